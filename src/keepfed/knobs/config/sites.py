r"""The settings among the values of a configuration file, whatever its syntax.

An entry is a setting by its key (`num_workers: 4`), by the name beside it (`{name: OMP_NUM_THREADS, value: "4"}`), as an
assignment (`- OMP_NUM_THREADS=4`), as a word of a command line (`command: python train.py --workers 8`), or because another
setting refers to it (`&n 8` … `*n`).

    Document ──each entry──→ by key │ by name │ by word │ by reference ──→ written value ──→ KnobSite
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from keepfed.knobs.config import command_values, compose, kubernetes, reason
from keepfed.knobs.config.entry import Document, Entry, Shape
from keepfed.knobs.config.written_value import Written, named, written
from keepfed.knobs.site import Form, Kind, KnobSite, Role, Span
from keepfed.knobs.spelling import THREAD_VARIABLES, Spelled, spelled, words_of

_LIMITS = {"shm_size", "cpus_per_task"}
_ENVIRONMENT = {"environment", "env", "envs", "env_vars", "environment_variables", "containerEnv", "remoteEnv"}
# Words of keys that hold a setting for others to refer to, and of keys that hold something else.
_COUNTING = {
    "worker", "workers", "thread", "threads", "cpu", "cpus", "core", "cores", "parallel", "parallelism", "concurrency", "jobs", "procs",
    "shared", "count", "n", "nw", "num", "shm", "memory", "pin", "prefetch", "persistent",
}  # fmt: skip
_OTHER_THINGS = {
    "batch",
    "bs",
    "gpu",
    "gpus",
    "world",
    "nodes",
    "epochs",
    "steps",
    "samples",
    "classes",
    "layers",
    "heads",
    "seed",
}
_DESCRIBED = {"value", "default"}
_PARTS = {
    "train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "testing", "predict",
    "inference",
}  # fmt: skip
_DESCRIPTION = {
    "value", "default", "desc", "description", "help", "type", "choices", "nargs", "required", "distribution",
}  # fmt: skip
_ASSIGNMENT = re.compile(
    r"[+~]{0,2}(?P<path>(?:\w+[./@])*)(?P<name>[A-Za-z_]\w*)=(?P<quote>[\"']?)(?P<value>.*?)(?P=quote)"
)
# systemd's `Environment=A=1` and supervisord's `environment=A="1",B="2"`.
_ASSIGNED = re.compile(r"(?<!\w)(?P<name>[A-Z][A-Z0-9_]*)=(?P<quote>[\"']?)(?P<value>[^\s,\"']*)(?P=quote)")
_STEM = rb"(?:worker|thread|prefetch|shm|size_?limit|pin[_-]?mem|reader|cpu|shared[_-]?mem|jobs?|procs?|(?<![a-z])nw)"
_STATED = re.compile(
    rb"(?i)" + _STEM + rb"[\w.+-]*[\"'`]?\s*[:=+]|--[\w.-]*" + _STEM + rb"|NUM_THREADS|_WORKERS\b|-[jc][ =\"',\d]"
)
_SMALL_BYTES = 64 << 10
_RECORDS = re.compile(r"(?:^|/)(?:\.hydra|lightning_logs|wandb|mlruns)/")


def may_state(utf8: bytes) -> bool:
    """Whether a setting can be stated in a file at all: as a key, an assignment, an option or a variable.

    A few megabytes of captions ("two workers on a roof") are not parsed for a word. Small files are not worth the question.
    """
    return len(utf8) < _SMALL_BYTES or bool(_STATED.search(utf8))


def sites_of(document: Document) -> Iterator[KnobSite]:
    """Every setting of the document, in its order."""
    if reason.foreign(document):
        return
    found = [site for entry in document.entries for site in _sites(document, entry)]
    found = [_of_anchor(document, site) for site in found]
    found += _definitions(document, found)
    record = bool(_RECORDS.search(document.source.name.replace("\\", "/")))
    for site in sorted(found, key=lambda site: site.span):
        yield replace(site, kind=Kind.RECORD) if record and site.kind is Kind.LITERAL else site


def _sites(document: Document, entry: Entry) -> Iterator[KnobSite]:
    volume = kubernetes.shm_volume(document, entry)
    if volume:
        yield from _site(document, entry, entry.key, Spelled("shm_size", sure=True), Role.LIMIT, owner=volume)
        return
    size = compose.tmpfs_size(entry)
    if size:
        inner = _inner(entry, *size, quoted=False)
        yield from _site(document, inner, "size", Spelled("shm_size", sure=True), Role.LIMIT)
        return
    variable = kubernetes.variable(document, entry)
    if variable:
        yield from _variable(document, entry, variable)
    elif entry.key.isdigit() and entry.path:
        yield from _item(document, entry)
    elif (key := _key(document, entry)) and (meaning := spelled(key[-1])):
        in_environment = key[-1].isupper() and bool(_ENVIRONMENT & set(entry.path[-2:-1]))
        if in_environment or (document.form is not Form.INI and key[-1] in THREAD_VARIABLES):
            yield from _variable(document, entry, key[-1])
        elif reason.is_the_loaders(document, entry, meaning, tuple(key[:-1])):
            role = Role.LIMIT if meaning.knob in _LIMITS else Role.CONFIG
            yield from _site(document, entry, key[-1], meaning, role)
    elif document.form is Form.INI and entry.key.lower() == "environment":
        for assigned in _ASSIGNED.finditer(entry.text):
            inner = _inner(entry, *assigned.span("value"), quoted=bool(assigned["quote"]))
            yield from _variable(document, inner, assigned["name"])
    elif command_values.file_within(entry):
        yield from command_values.sites_of_file(document, entry)
    elif command_values.is_command(entry):
        yield from _commands(document, entry, command_values.sites_of_text(document, entry))


def _key(document: Document, entry: Entry) -> list[str]:
    """The path that names it: `a.b` in one key counts as two, and `value` and `train` below a setting's name are that setting's."""
    path = list(entry.path)
    if len(path) > 1 and path[-1].lower() in _PARTS and (above := spelled(path[-2])) and above.sure:
        path.pop()
    if (
        len(path) > 1
        and path[-1] in _DESCRIBED
        and "properties" not in path
        and set(document.keys_beside(entry)) <= _DESCRIPTION
    ):
        path.pop()
    if path and "." in path[-1]:
        parts = path[-1].split(".")
        # `num.workers` is one name, `data.num_workers` a path.
        one_name = not _is_sure(parts[-1]) and _is_sure(path[-1])
        path[-1:] = [path[-1]] if one_name else parts
    return path


def _is_sure(name: str) -> bool:
    meaning = spelled(name)
    return meaning is not None and meaning.sure


def _variable(document: Document, entry: Entry, name: str) -> Iterator[KnobSite]:
    """An environment variable of a container; of those that are not OpenMP's only the sure ones, and no server's."""
    meaning = spelled(name)
    if meaning is None or not meaning.sure:
        return
    if meaning.knob == "num_workers" and compose.runs_something_else(document, entry):
        return
    yield from _site(document, entry, name, meaning, Role.VARIABLE, setting=name)


def _item(document: Document, entry: Entry) -> Iterator[KnobSite]:
    """An item of a list: an assignment, or a word of a command line, all of which are read with the first."""
    if command_values.is_word(entry):
        if document.beside(entry)[0] is entry:
            yield from _commands(document, entry, command_values.sites_of_list(document, entry))
        return
    assigned = _ASSIGNMENT.fullmatch(entry.text)
    if assigned and (meaning := spelled(assigned["name"])) and meaning.sure:
        if meaning.knob == "num_workers" and compose.runs_something_else(document, entry):
            return
        name = assigned["name"]
        role = Role.VARIABLE if name.isupper() else Role.LIMIT if meaning.knob in _LIMITS else Role.FLAG
        inner = _inner(entry, *assigned.span("value"), quoted=bool(assigned["quote"]))
        yield from _site(document, inner, name, meaning, role, setting=assigned["path"] + name)


def _commands(document: Document, entry: Entry, found: Iterable[KnobSite]) -> Iterator[KnobSite]:
    owner = compose.service(entry) or kubernetes.container(document, entry)
    for site in found:
        if site.knob != "num_workers" or not compose.runs_something_else(document, entry):
            yield replace(site, owner=owner or site.owner)


def _inner(entry: Entry, start: int, end: int, *, quoted: bool) -> Entry:
    """A stretch of an entry's text as an entry."""
    first = entry.start + len(entry.text[:start].encode("utf-8", "surrogatepass"))
    last = entry.start + len(entry.text[:end].encode("utf-8", "surrogatepass"))
    shape = Shape.TEXT if quoted else Shape.PLAIN
    return replace(entry, start=first, end=last, text=entry.text[start:end], shape=shape, anchor="", tag="")


def _site(
    document: Document,
    entry: Entry,
    spelling: str,
    meaning: Spelled,
    role: Role,
    *,
    owner: str = "",
    setting: str = "",
) -> Iterator[KnobSite]:
    """The site of a value, if this setting can have it."""
    whole = entry
    value = written(meaning.knob, entry.text, entry.shape, entry.tag)
    if value is None and document.form is Form.JSON and entry.shape is Shape.PLAIN:
        value = named(entry.text)
    if value is None:
        return
    if value.fallback and value.target:
        entry, role = _inner(entry, *value.target, quoted=False), Role.DEFAULT
        value = replace(value, target=(0, len(entry.text)))
    source = document.source
    line, column = source.place(entry.start)
    replacing = None if value.kind is Kind.REFERENCE else _replacing(document, whole, meaning.knob, setting)
    yield KnobSite(
        file=source.name,
        line=line,
        column=column,
        span=source.span(entry.start, entry.end),
        knob=meaning.knob,
        spelling=spelling,
        value=entry.text,
        kind=Kind.OVERRIDDEN if replacing else value.kind,
        form=document.form,
        role=role,
        quoted=entry.quoted,
        target=_target(document, entry, value),
        refusal=value.refusal,
        owner=owner or _owner(document, entry),
        refers_to=value.refers_to,
        setting=setting or ".".join(entry.path),
        counts_at=f"{source.name}:{source.place(replacing.start)[0]}" if replacing else "",
    )


def _replacing(document: Document, entry: Entry, knob: str, setting: str) -> Entry | None:
    """What takes the place of this value: a later one of the same key, or for a size another /dev/shm."""
    if knob == "shm_size" and entry.key == "shm_size" and (other := compose.other_shm(document, entry)):
        return other
    last = document.at(entry.part, entry.path)
    if last is None or last is entry or setting or entry.key.isdigit():
        return None
    # In a file that is broken behind it, the later one may be no value at all, and no place that could be pointed at.
    return last if written(knob, last.text, last.shape, last.tag) is not None else None


def _target(document: Document, entry: Entry, value: Written) -> Span | None:
    if value.target is None:
        return None
    start, end = (len(entry.text[:at].encode("utf-8", "surrogatepass")) for at in value.target)
    return document.source.span(entry.start + start, entry.start + end)


def _owner(document: Document, entry: Entry) -> str:
    """Whose setting it is: the service, the container, or the section."""
    keys = [key for key in entry.path[:-1] if not key.isdigit()]
    return compose.service(entry) or kubernetes.container(document, entry) or (keys[-1] if keys else "")


def _of_anchor(document: Document, site: KnobSite) -> KnobSite:
    """An alias, referring to the keys of its anchor: the anchor's name is known to nobody else."""
    if not (site.kind is Kind.REFERENCE and site.value.startswith("*")):
        return site
    anchors = (entry for entry in document.entries if entry.anchor == site.refers_to and entry.shape is not Shape.ALIAS)
    return next((replace(site, refers_to=".".join(entry.path)) for entry in anchors), site)


def _definitions(document: Document, found: list[KnobSite]) -> Iterator[KnobSite]:
    """The places that settings refer to, where they are in this file and have names of their own."""
    taken = {site.span for site in found}
    for site in found:
        if site.kind is not Kind.REFERENCE:
            continue
        for entry in document.entries:
            if not _defines(entry, site):
                continue
            meaning = Spelled(site.knob, sure=True)
            for definition in _site(document, entry, entry.key, meaning, site.role):
                if definition.span not in taken:
                    taken.add(definition.span)
                    yield definition


def _defines(entry: Entry, site: KnobSite) -> bool:
    if entry.shape is Shape.ALIAS or not entry.path:
        return False
    name = re.sub(r"\[(\w+)\]", r".\1", site.refers_to).lstrip(".")
    return ".".join(entry.path) == name and ".".join(entry.path) != site.setting and _is_for_it(entry, site)


def _is_for_it(entry: Entry, site: KnobSite) -> bool:
    """Whether a key that a setting refers to is there for it.

    `cpus_per_task: ${distributed.world_size}` is no reason to change the world's size. A local variable is there for whoever names
    it; of the keys only those count whose names, or whose anchors', speak of the same thing.
    """
    if (site.form is Form.JSON and entry.home == 0) or entry.path[0].startswith(("_", ".", "x-")):
        return True
    said = set(words_of(f"{entry.key} {entry.anchor}"))
    return bool(said & _COUNTING) and not said & _OTHER_THINGS
