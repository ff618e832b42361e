r"""Command lines that stand as values in other files: compose's `command`, a pod's `args`, `launch.json`, a list of overrides.

    command: python train.py --num_workers 8            one text
    args: ["train.py", "--num_workers", "8"]            one word per item
    args: ["set -e; python train.py --workers 8"]       a script, behind `bash -c` or alone
    runArgs: ["--shm-size=8g"]                          options of docker run, which is not named

They are read as shell scripts read them (`command_line`, `shell`); what is a command is told by its key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count, takewhile

from keepfed.knobs.commands.command_line import sites_of_words
from keepfed.knobs.commands.embedded import sites_within
from keepfed.knobs.commands.shell import sites_of_script
from keepfed.knobs.commands.words import Word
from keepfed.knobs.config.entry import Document, Entry, Shape
from keepfed.knobs.site import KnobSite

_KEYS = re.compile(
    r"(?i)(?:\w*[._-])?(?:commands?|cmds?|cmdline|args?|arguments|argv|entrypoint|entry_?point|run|scripts?|shell|exec|overrides"
    r"|run_?args|run_options|program|program_?args|options|flags|extra_args|setup|job|task|launch|execstart)"
)
_SCRIPT_LINE = re.compile(
    r"(?m)^\s*(?:export\s+\w+=|#!\S*sh\b|#SBATCH|(?:python3?|torchrun|srun|accelerate|deepspeed)\s)"
)
_FILE = re.compile(r"[\w.-]+\.(?:ya?ml|json|toml|ini|cfg|conf|sh|py|env)")
_DOCKER_RUN = re.compile(r"(?i)(?:docker_?)?run_?(?:args|options)")
_SHELL_OPTION = re.compile(r"-\w*c")
_BEGIN = re.compile(r"[|>][^\n]*\n")


def is_command(entry: Entry) -> bool:
    """Whether a value is a command line, by the key that it stands under, or a script, by its lines."""
    if entry.key != _name(entry):
        return False
    return bool(_KEYS.fullmatch(entry.key)) or (entry.shape is Shape.BLOCK and bool(_SCRIPT_LINE.search(entry.text)))


def file_within(entry: Entry) -> str:
    """The name of the file that a text is, where its key is one (in a ConfigMap: `train.yaml: |`); else nothing."""
    return entry.key if entry.shape is Shape.BLOCK and _FILE.fullmatch(entry.key) else ""


def sites_of_file(document: Document, entry: Entry) -> list[KnobSite]:
    """The settings of a file that stands as a text in another one."""
    begin = _BEGIN.match(entry.text)
    start = entry.start + len(begin[0].encode("utf-8", "surrogatepass")) if begin else entry.start
    return sites_within(document.source, start, entry.end, file_within(entry))


def is_word(entry: Entry) -> bool:
    """Whether an item of a list is a word of a command line."""
    return bool(_KEYS.fullmatch(_name(entry)))


def sites_of_text(document: Document, entry: Entry) -> list[KnobSite]:
    """The settings of a command line or a script in one text."""
    if not _worth_it(entry.text):
        return []
    start, end, text = entry.start, entry.end, None
    begin = _BEGIN.match(entry.text) if entry.shape is Shape.BLOCK else None
    if begin:
        start += len(begin[0].encode("utf-8", "surrogatepass"))
    if not (begin and entry.text.startswith("|")) and "\n" in entry.text:
        # In a folded text the lines are one.
        utf8 = document.source.utf8
        text = utf8[:start] + re.sub(rb"\\?\r?\n", _blanks, utf8[start:end]) + utf8[end:]
    return sites_of_script(document.source, start, end, document.form, text)


def sites_of_list(document: Document, first: Entry) -> Iterator[KnobSite]:
    """The settings of a command whose words are the items of a list. `first` is its first item."""
    items = document.beside(first)
    scripts = [item for number, item in enumerate(items) if _is_script(items, number)]
    for item in scripts:
        yield from sites_of_text(document, item)
    own = [item for item in items if item not in scripts]
    before = _before(document, first)
    if not any(_worth_it(item.text) for item in own):
        return
    spans = [document.source.span(item.start, item.end) for item in own]
    words = [word for item in own for word in _words(item)]
    for site in sites_of_words(document.source, [*before, *words], document.form):
        if any(span.start <= site.span.start and site.span.end <= span.end for span in spans):
            yield site


def _is_script(items: Sequence[Entry], number: int) -> bool:
    """Whether an item is a whole command: the text behind `bash -c`, the only item, or lines."""
    text = items[number].text
    behind_shell = number > 0 and bool(_SHELL_OPTION.fullmatch(items[number - 1].text))
    return behind_shell or "\n" in text or (" " in text.strip() and (len(items) == 1 or not text.startswith("-")))


def _before(document: Document, first: Entry) -> list[Word]:
    """What runs the words, where another key says it: `command` beside `args`, `program`, or docker itself."""
    if _DOCKER_RUN.fullmatch(_name(first)):
        return [Word("docker", 0, 0), Word("run", 0, 0)]
    above = first.path[:-2]
    if first.path[-2:-1] in {("args",), ("arguments",)}:
        program = document.at(first.part, (*above, "program"))
        if program:
            return _words(program)
        numbers = takewhile(bool, (document.at(first.part, (*above, "command", str(number))) for number in count()))
        words = [word for item in numbers if item for word in _words(item)]
        return [] if any(_SHELL_OPTION.fullmatch(word.text) for word in words) else words
    return []


def _words(item: Entry) -> list[Word]:
    """The words of an item: one, or for `--workers 8` two."""
    if not item.text.startswith("-") or " " not in item.text:
        return [Word(item.text, item.start, item.end, item.quoted)]
    return words_of_line(item.text, item.start)


def words_of_line(text: str, start: int) -> list[Word]:
    """The words of a line of options that begins at this byte."""
    words = []
    for found in re.finditer(r"\S+", text):
        begin = start + len(text[: found.start()].encode("utf-8", "surrogatepass"))
        words.append(Word(found[0], begin, begin + len(found[0].encode("utf-8", "surrogatepass"))))
    return words


def _name(entry: Entry) -> str:
    """The last key above it that is no number."""
    return next((key for key in reversed(entry.path) if not key.isdigit()), "")


def _worth_it(text: str) -> bool:
    """Whether a setting can be in it at all; a shell's grammar is not asked for every value of a file."""
    return bool(re.search(r"(?i)work|thread|shm|prefetch|pin.?mem|cpu|-[cj]", text))


def _blanks(found: re.Match[bytes]) -> bytes:
    return b" " * len(found[0])
