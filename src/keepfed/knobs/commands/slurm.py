"""What a batch script asks of SLURM: `#SBATCH --cpus-per-task=8`, once per part of a heterogeneous job.

sbatch(1): it reads directives up to the first line that is neither blank nor a comment; whatever stands behind that is
never read. A second `#` ends a directive, so digits in a remark are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from keepfed.knobs.commands.command_line import Named, meaning, site
from keepfed.knobs.commands.words import Word, behind, standing
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import THREAD_VARIABLES

_DIRECTIVE = re.compile(rb"(?m)^#SBATCH[ \t]+([^\r\n]*)")
# A template's own lines (`{% set ... %}`) are gone before sbatch sees the script.
_COMMAND = re.compile(rb"(?m)^[ \t]*(?!\{[%{#])[^#\s]")
_REMARK = re.compile(rb"(?:^|\s)#.*")
_TEXT = rb"((?:\"[^\"]*\"|'[^']*'|\{\{.*?\}\}|\S)+)"
_LONG = re.compile(rb"(--[a-z][\w-]*)(?:=|[ \t]+)" + _TEXT)
_SHORT = re.compile(rb"(?<!\S)(-c)[ \t=]*" + _TEXT)
_EXPORTED = re.compile(r"(?:^|,)([A-Z_]+)=([^,]*)")


def sites_of_directives(source: Source, begin: int, stop: int) -> Iterator[KnobSite]:
    """The settings in the lines that begin with `#SBATCH`, of a script that stands in this stretch of `source.utf8`."""
    text = source.utf8
    first = _COMMAND.search(text, begin, stop)
    for directive in _DIRECTIVE.finditer(text, begin, stop):
        remark = _REMARK.search(directive[1])
        end = directive.start(1) + (remark.start() if remark else len(directive[1]))
        for made in _sites_of_line(source, directive.start(1), end):
            yield replace(made, kind=Kind.DEAD) if first and first.start() < directive.start() else made


def _sites_of_line(source: Source, start: int, end: int) -> Iterator[KnobSite]:
    for pattern in (_LONG, _SHORT):
        for option in pattern.finditer(source.utf8, start, end):
            name = option[1].decode()
            value = Word(option[2].decode("utf-8", "replace"), option.start(2), option.end(2))
            if name == "--export":
                yield from _exported(source, value)
            elif name == "-c" or ((found := meaning(name)) and found.knob == "cpus_per_task"):
                named = Named("cpus_per_task", name, Role.LIMIT, "cpus_per_task", "sbatch")
                if standing_there := standing(value, named.knob, Form.SHELL):
                    yield site(source, named, standing_there, Form.SHELL)


def _exported(source: Source, value: Word) -> Iterator[KnobSite]:
    for pair in _EXPORTED.finditer(value.text):
        inner = behind(value, pair.start(2))._replace(end=value.start + pair.end(2), text=pair[2])
        found = standing(inner, "threads_env", Form.SHELL)
        if pair[1] in THREAD_VARIABLES and found:
            yield site(source, Named("threads_env", pair[1], Role.VARIABLE, pair[1], "sbatch"), found, Form.SHELL)
