r"""Makefiles: the variables at their top, and the commands of their recipes.

    NUM_WORKERS ?= 8
    train: data
    →   @docker run --shm-size=64gb $(IMAGE) python train.py --workers $(NUM_WORKERS) \
    →       --batch-size 32

GNU make itself goes line by line: a line that begins with a tab is given to the shell, any other is make's own. So does this
reader, and leaves what a recipe holds to the one of shell scripts. `$(NAME)` is make's variable, `$$NAME` the shell's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepfed.knobs.commands.command_line import meaning
from keepfed.knobs.commands.shell import sites_of_script
from keepfed.knobs.commands.shell_variables import Assignment, Use, definitions
from keepfed.knobs.commands.words import Word, unquoted
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.source import Source

# A line and those that a backslash at its end adds to it.
_LOGICAL_LINE = re.compile(rb"(?:[^\\\n]|\\\r?\n|\\.)*\n?", re.DOTALL)
_RECIPE = re.compile(rb"\t[ \t]*[@+-]*[ \t]*")
_AFTER_TARGET = re.compile(rb"[^\t#=\n][^#=\n;]*:[^=\n;]*;[ \t]*")
_ASSIGNMENT = re.compile(
    rb"(?:[^\s#=:][^#=:\n]*:(?!:?=))?[ ]*((?:override|export|private)[ \t]+)*([A-Za-z_][\w.-]*)[ \t]*(?:\?|:{1,3}|\+)?=[ \t]*"
    rb"((?:\\\r?\n|[^#\r\n])*?)[ \t]*(?:#[^\n]*)?\r?\n?"
)
_DEFINE, _ENDEF = re.compile(rb"[ ]*define\b"), re.compile(rb"[ ]*endef\b")
_VARIABLE = re.compile(r"\$[({](\w+)[)}]")
_OF_OPTION = re.compile(r"(?:^|\s)--?[A-Za-z][\w-]*(?:=|\s+)[\"']?$")
_PRINTED = re.compile(r"\s*[@+-]*\s*(?:echo|printf)\b|.*\$\((?:info|warning|error)\b")


def read(source: Source) -> list[KnobSite]:
    """The settings of a Makefile."""
    sites: list[KnobSite] = []
    assignments: list[Assignment] = []
    uses: list[Use] = []
    for start, end in _recipes(source.utf8):
        sites += sites_of_script(source, start, end, Form.MAKEFILE)
        uses += _uses(source.utf8, start, end)
    for start, end in _own_lines(source.utf8):
        assigned = _ASSIGNMENT.fullmatch(source.utf8, start, end)
        if assigned and b" " in assigned[3] and meaning(assigned[2].decode()) is None:
            # A command, or flags of one: RUN = python train.py --workers 8
            sites += sites_of_script(source, assigned.start(3), assigned.end(3), Form.MAKEFILE)
        elif assigned:
            assignments.append(_assignment(assigned))
    return [*sites, *definitions(source, assignments, uses, sites, Form.MAKEFILE)]


def _recipes(text: bytes) -> Iterator[tuple[int, int]]:
    """What the shell gets: lines behind a tab, a line behind `target: ;`, bodies of `define`."""
    defined = False
    for line in _LOGICAL_LINE.finditer(text):
        defined = (defined or bool(_DEFINE.match(line[0]))) and not _ENDEF.match(line[0])
        begins = _RECIPE.match(line[0]) or _AFTER_TARGET.match(line[0])
        if begins or (defined and not _DEFINE.match(line[0])):
            yield line.start() + (begins.end() if begins else 0), line.end()


def _own_lines(text: bytes) -> Iterator[tuple[int, int]]:
    for line in _LOGICAL_LINE.finditer(text):
        if line[0] and not line[0].startswith(b"\t"):
            yield line.start() + len(line[0]) - len(line[0].lstrip(b" ")), line.end()


def _assignment(found: re.Match[bytes]) -> Assignment:
    value = Word(found[3].decode("utf-8", "surrogatepass"), found.start(3), found.end(3))
    exported = b"export" in (found[1] or b"")
    return Assignment(found[2].decode(), unquoted(value), exported, found.start(), found.end())


def _uses(text: bytes, start: int, end: int) -> Iterator[Use]:
    recipe = text[start:end].decode("utf-8", "surrogatepass")
    silent = bool(_PRINTED.match(recipe))
    for used in _VARIABLE.finditer(recipe):
        at = start + len(recipe[: used.start(1)].encode("utf-8", "surrogatepass"))
        yield Use(used[1], at, silent=silent, option=bool(_OF_OPTION.search(recipe[: used.start()])))
