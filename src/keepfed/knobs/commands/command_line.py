"""The settings on one command line: `--workers 8`, `-j8`, `data.num_workers=8`, `DATA.NUM_WORKERS 8`, `-e OMP_NUM_THREADS=4`.

Shared by everything that holds a command: shell scripts, recipes of a Makefile, CMD and RUN of a Dockerfile, `command` and
`args` of compose and Kubernetes, cells of a notebook. Who reads an option decides what it means, so the words are first cut
into the programs that they start (`program.layers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from keepfed.knobs.commands.program import Layer, Runs, layers
from keepfed.knobs.commands.words import Standing, Word, behind, standing, unquoted
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import THREAD_VARIABLES, Spelled, spelled, words_of

_OPTION = re.compile(r"(--?[A-Za-z][\w.-]*)(=?)", re.ASCII)
_GLUED = re.compile(r"-([jc])(?=\d+$|\$)")
_PAIR = re.compile(r"[+~]{0,2}([A-Za-z_][\w.@-]*)=", re.ASCII)
_NODE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z][A-Z_]*|(?:[A-Za-z_]\w*\.)+\w+", re.ASCII)
_IN_BRACES = re.compile(r"""["']?([A-Za-z_][\w.]*)["']?\s*[:=]\s*["']?([\w.+-]+)""")
_EXPORTED = re.compile(r"(?:^|,)([A-Z_]+)=([^,]*)")
_ENVIRONMENT = {"-e", "--env", "-x", "--genv", "--envs", "--build-arg"}
# Names of a count that say themselves that they are a loader's, whatever the program does besides.
_OF_A_LOADER = {"data", "loader", "loaders", "dataloader", "dataloaders", "dl", "dataset", "loading"}
# Sections of settings whose workers are Ray's actors or a server's processes: `rollout.agent.num_workers=8`.
_OF_OTHERS = {"agent", "rollout", "reward", "ray", "actor", "server", "scaling", "env"}


def sites_of_words(source: Source, words: Sequence[Word], form: Form) -> list[KnobSite]:
    """The settings in the words of one command (no `;`, `|` or `&&` among them), in their order."""
    found: list[KnobSite] = []
    for layer in layers([Word(*word) for word in words]):
        if layer.runs not in {Runs.SILENT, Runs.FOREIGN}:
            found += _without_earlier(_sites_of_layer(source, layer, form))
    return found


def site(source: Source, named: Named, value: Standing, form: Form) -> KnobSite:
    """The site of a value that stands in this file."""
    line, column = source.place(value.start)
    span = source.span(value.start, value.end)
    literal = value.kind is Kind.LITERAL
    return KnobSite(
        file=source.name,
        line=line,
        column=column,
        span=span,
        knob=named.knob,
        spelling=named.spelling,
        value=source.utf8[value.start : value.end].decode("utf-8", "surrogatepass"),
        kind=value.kind,
        form=form,
        role=named.role,
        quoted=value.quoted,
        target=span if literal else None,
        refusal="" if literal else f"knobs.refuse_{value.kind.value}",
        owner=named.owner,
        refers_to=value.refers_to,
        setting=named.setting or named.spelling,
    )


@dataclass(frozen=True, slots=True)
class Named:
    """What a value is the value of."""

    knob: str
    """Canonical name of the setting."""
    spelling: str
    """As it is written."""
    role: Role
    """What the place does."""
    setting: str = ""
    """The name by which other places speak of it; the spelling where it is the same."""
    owner: str = ""
    """The program, container or job that it belongs to."""


def meaning(name: str) -> Spelled | None:
    """What a dotted name stands for: its last part, with the part before where that one leaves doubts (`data.workers`)."""
    parents, _, last = name.strip("-").rpartition(".")
    found = spelled(last)
    if found and not found.sure and parents:
        return spelled(f"{parents.rpartition('.')[2]}_{last}") or found
    return found


def is_of_a_loader(name: str) -> bool:
    """Whether a name of a count says itself that it is a loader's, and not that of web processes or machines."""
    return bool(set(words_of(name)) & _OF_A_LOADER)


def _sites_of_layer(source: Source, layer: Layer, form: Form) -> Iterator[KnobSite]:
    words = layer.words
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else None
        for named, value in _read(word, following, layer):
            found = standing(value, named.knob, form)
            if found is not None:
                made = site(source, named, found, form)
                yield replace(made, kind=Kind.OVERRIDDEN) if _pointless(made, layer) else made


def _read(word: Word, following: Word | None, layer: Layer) -> Iterator[tuple[Named, Word]]:
    """The settings that begin with this word, each with the text of its value."""
    text = word.text
    if option := _OPTION.match(text):
        yield from _option(word, option, following, layer)
    elif pair := _PAIR.match(text):
        yield from _known(pair[1], behind(word, pair.end()), layer, _role_of_pair(pair[1], layer), pair[1])
    elif following is not None and _NODE.fullmatch(text) and not following.text.startswith("-"):
        # yacs takes its overrides as pairs of words: `--opts DATA.NUM_WORKERS 8`; csh's `setenv OMP_NUM_THREADS 8` is one too.
        yield from _known(text, following, layer, _role_of_pair(text, layer), text)
    if "{" in text and word.quoted:
        yield from _in_braces(word, layer)


def _option(word: Word, option: re.Match[str], following: Word | None, layer: Layer) -> Iterator[tuple[Named, Word]]:
    name = option[1]
    value = behind(word, option.end()) if option[2] else following
    if glued := _GLUED.match(word.text):
        name, value = f"-{glued[1]}", behind(word, glued.end())
    if value is None or (not option[2] and value is following and re.match(r"--?[A-Za-z]", value.text)):
        return
    if name in _ENVIRONMENT and not option[2]:
        return  # the pair is the next word
    if name in _ENVIRONMENT:
        yield from _read(value, None, layer)
    elif name == "--export":
        for pair in _EXPORTED.finditer(value.text):
            yield from _known(pair[1], _part(value, pair, 2), layer, Role.VARIABLE, pair[1])
    else:
        setting = "cpus_per_task" if name == "-c" else name.strip("-").replace("-", "_")
        yield from _known(name, value, layer, Role.FLAG, setting)


def _known(name: str, value: Word, layer: Layer, role: Role, setting: str) -> Iterator[tuple[Named, Word]]:
    """The value of a name, if the name is a setting's in this program."""
    found = meaning(name) if name not in {"-c", "-j"} else spelled(name)
    if found is None or not _meant(name, found, layer, value):
        return
    if role is Role.FLAG and found.knob in {"shm_size", "cpus_per_task"}:
        role = Role.LIMIT
    yield Named(found.knob, name, role, setting, layer.name), value


def _meant(name: str, found: Spelled, layer: Layer, value: Word) -> bool:
    """Whether the name means the setting in this program."""
    if found.knob == "cpus_per_task":
        return found.sure or layer.runs is Runs.JOB
    if found.knob in {"shm_size", "threads_env"}:
        return found.sure
    if set(words_of(name.rpartition(".")[0])) & _OF_OTHERS:
        return False
    if layer.runs in {Runs.JOB, Runs.WRAPPER} and name.startswith("-"):
        return False
    if found.knob == "num_workers" and not is_of_a_loader(name):
        return not layer.elsewhere and (found.sure or (layer.trains and _is_a_count(value)))
    return found.sure or layer.trains


def _is_a_count(value: Word) -> bool:
    text = unquoted(value).text
    return bool(re.fullmatch(r"\d{1,4}", text)) or "$" in text


def _role_of_pair(name: str, layer: Layer) -> Role:
    """`NAME=8` in front of a program goes into its environment; behind it, it is an argument."""
    outside = layer.runs in {Runs.WRAPPER, Runs.CONTAINER, Runs.JOB, Runs.OTHER} and name.isupper()
    return Role.VARIABLE if outside or name in THREAD_VARIABLES else Role.FLAG


def _in_braces(word: Word, layer: Layer) -> Iterator[tuple[Named, Word]]:
    """Settings in a dict that is given as one word: `--loader '{"num_workers": 4}'`."""
    for pair in _IN_BRACES.finditer(word.text):
        found = spelled(pair[1])
        if found is not None and found.sure:
            yield Named(found.knob, pair[1], Role.FLAG, pair[1], layer.name), _part(word, pair, 2)


def _part(word: Word, found: re.Match[str], group: int) -> Word:
    start = word.start + len(word.text[: found.start(group)].encode("utf-8", "surrogatepass"))
    return Word(found[group], start, start + len(found[group].encode("utf-8", "surrogatepass")))


def _pointless(made: KnobSite, layer: Layer) -> bool:
    """`--ipc=host` and a mount over /dev/shm leave `--shm-size` without effect (docker run, "IPC settings")."""
    if made.knob != "shm_size":
        return False
    line = " ".join(unquoted(word).text for word in layer.words)
    return bool(
        re.search(r"--ipc[= ][\"']?(?:host|container:)|:/dev/shm\b|(?:target|dst|destination)=/dev/shm\b", line)
    )


def _without_earlier(sites: Iterator[KnobSite]) -> list[KnobSite]:
    """Of an option that is given twice, the last one counts (argparse, Hydra, yacs, docker)."""
    found = list(sites)
    last = {made.setting: made.span for made in found}
    return [
        made
        if last[made.setting] == made.span or made.kind is not Kind.LITERAL
        else replace(made, kind=Kind.OVERRIDDEN)
        for made in found
    ]
