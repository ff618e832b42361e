r"""Dockerfiles: environment, build arguments, and the command that the image starts.

    ARG NUM_WORKERS=4
    ENV OMP_NUM_THREADS=1 \
        # a remark between two lines of one instruction
        MKL_NUM_THREADS=1
    CMD ["python", "train.py", "--workers", "8"]

The tree-sitter grammar loses everything behind such a remark, which Docker allows (Dockerfile reference, "Format") and people
write. The format is simple enough to be read as Docker reads it: remarks out, continued lines joined, then one instruction a
line. Remarks are blanked out, so that every offset stays what it is.

A RUN line works while the image is built, not while it runs: its flags count where it starts a training program, its
variables never do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from keepfed.knobs.commands.command_line import is_of_a_loader, meaning, sites_of_words
from keepfed.knobs.commands.program import Runs, layers
from keepfed.knobs.commands.shell import sites_of_script
from keepfed.knobs.commands.shell_variables import Assignment, Use, definitions
from keepfed.knobs.commands.words import Word, unquoted
from keepfed.knobs.site import Form, KnobSite, Role
from keepfed.knobs.source import Source

_ESCAPE = re.compile(rb"\A(?:#[^\n]*\n)*?#[ \t]*escape[ \t]*=[ \t]*(`)", re.IGNORECASE)
_REMARK = re.compile(rb"(?m)^[ \t]*#[^\n]*\n?")
_INSTRUCTION = re.compile(rb"[ \t]*(?:ONBUILD[ \t]+)?([A-Za-z]+)[ \t]+", re.IGNORECASE)
_HEREDOC = re.compile(rb"<<-?[\"']?(\w+)[\"']?")
_RUN_OPTIONS = re.compile(rb"(?:--[a-z]+=\S+[ \t]+)*")
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)=((?:\"(?:\\.|[^\"\\])*\"|'[^']*'|\\.|[^\s\"'\\])*)", re.DOTALL)
_OLD_PAIR = re.compile(r"([A-Za-z_][\w.-]*)[ \t]+([^\r\n]*?)\s*", re.DOTALL)
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_VARIABLE = re.compile(r"\$\{?(\w+)")
_SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/bash"}


@dataclass(frozen=True, slots=True)
class _Instruction:
    name: str
    """ENV, RUN, ... in capitals."""
    start: int
    """Offset of what stands behind it."""
    end: int
    """Offset behind its last line."""


def read(source: Source) -> list[KnobSite]:
    """The settings of a Dockerfile."""
    text = _blanked(source.utf8)
    sites: list[KnobSite] = []
    assignments: list[Assignment] = []
    uses: list[Use] = []
    entry: list[Word] = []
    started: list[Word] = []
    for instruction in _instructions(text):
        start, end = instruction.start, instruction.end
        if instruction.name in {"ENV", "ARG"}:
            assignments += _assignments(text, instruction)
        elif instruction.name == "RUN":
            sites += _run(source, text, start, end)
        elif instruction.name in {"CMD", "ENTRYPOINT"}:
            words = _exec_form(text, start, end)
            sites += _command(source, text, instruction, words, entry)
            entry = words if instruction.name == "ENTRYPOINT" else entry
            started = words or started
            uses += _uses(text, start, end)
    if any(layer.runs is Runs.FOREIGN for layer in layers([*entry, *started])):
        assignments = [each for each in assignments if _is_not_a_servers(each.name)]
    return [*sites, *definitions(source, assignments, uses, sites, Form.DOCKERFILE)]


def _is_not_a_servers(name: str) -> bool:
    """Whether a variable may be a loader's in an image that starts a web server."""
    said = meaning(name)
    return said is None or said.knob != "num_workers" or is_of_a_loader(name)


def _blanked(text: bytes) -> bytes:
    r"""The text with remarks as blanks, and with `\` where another sign continues a line."""
    escape = _ESCAPE.match(text)
    without = _REMARK.sub(lambda remark: b" " * len(remark[0]), text)
    return re.sub(rb"`(?=[ \t]*\r?\n)", b"\\\\", without) if escape else without


def _instructions(text: bytes) -> Iterator[_Instruction]:
    at = 0
    while at < len(text):
        end = _end_of_line(text, at)
        begins = _INSTRUCTION.match(text, at, end)
        if begins and begins[1].upper() in {b"RUN", b"COPY", b"ADD"}:
            for here in _HEREDOC.finditer(text, begins.end(), end):
                closing = re.compile(rb"(?m)^\t*" + here[1] + rb"\r?$").search(text, end)
                end = _end_of_line(text, closing.start()) if closing else end
        if begins:
            yield _Instruction(begins[1].decode().upper(), begins.end(), end)
        at = end


def _end_of_line(text: bytes, at: int) -> int:
    """Behind the line, and those that a backslash (and blanks) at its end add to it; blank lines among those do not end it."""
    while True:
        newline = text.find(b"\n", at)
        if newline < 0:
            return len(text)
        continued = text[at:newline].rstrip()
        at = newline + 1
        if not continued.endswith(b"\\"):
            return at
        while (blank := text.find(b"\n", at)) >= 0 and not text[at:blank].strip():
            at = blank + 1


def _assignments(text: bytes, instruction: _Instruction) -> Iterator[Assignment]:
    rest = text[instruction.start : instruction.end].decode("utf-8", "surrogatepass")
    old = None if _PAIR.match(rest) else _OLD_PAIR.fullmatch(rest)
    for pair in [old] if old else _PAIR.finditer(rest):
        start = instruction.start + len(rest[: pair.start(2)].encode("utf-8", "surrogatepass"))
        value = Word(pair[2], start, start + len(pair[2].encode("utf-8", "surrogatepass")))
        if pair[2]:
            yield Assignment(pair[1], unquoted(value), instruction.name == "ENV", start, value.end)


def _run(source: Source, text: bytes, start: int, end: int) -> Iterator[KnobSite]:
    options = _RUN_OPTIONS.match(text, start, end)
    begin = options.end() if options else start
    for made in sites_of_script(source, begin, end, Form.DOCKERFILE, text):
        if made.role not in {Role.VARIABLE, Role.LIMIT}:
            yield made


def _command(
    source: Source, text: bytes, instruction: _Instruction, words: list[Word], entry: list[Word]
) -> list[KnobSite]:
    if not words:
        return sites_of_script(source, instruction.start, instruction.end, Form.DOCKERFILE, text)
    if words[0].text in _SHELLS and len(words) > 2:
        return sites_of_script(source, words[2].start, words[2].end, Form.DOCKERFILE, text)
    before = entry if instruction.name == "CMD" else []
    own = range(instruction.start, instruction.end)
    made = sites_of_words(source, [*before, *words], Form.DOCKERFILE)
    disk = source.span(own.start, own.stop)
    return [each for each in made if disk.start <= each.span.start < disk.end]


def _exec_form(text: bytes, start: int, end: int) -> list[Word]:
    """The words of `["python", "train.py"]`; none where the instruction is in shell form."""
    rest = text[start:end].decode("utf-8", "surrogatepass")
    if not rest.lstrip().startswith("["):
        return []
    words = []
    for string in _JSON_STRING.finditer(rest):
        begin = start + len(rest[: string.start(1)].encode("utf-8", "surrogatepass"))
        words.append(Word(string[1], begin, begin + len(string[1].encode("utf-8", "surrogatepass")), quoted=True))
    return words


def _uses(text: bytes, start: int, end: int) -> Iterator[Use]:
    rest = text[start:end].decode("utf-8", "surrogatepass")
    for used in _VARIABLE.finditer(rest):
        at = start + len(rest[: used.start(1)].encode("utf-8", "surrogatepass"))
        yield Use(used[1], at, silent=False, option=bool(re.search(r"-\w[\w-]*[= \"',]*$", rest[: used.start()])))
