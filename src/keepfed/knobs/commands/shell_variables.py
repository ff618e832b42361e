"""Which variables of a script hold a setting: judged by their names, and by what is done with them.

`NUM_WORKERS=8` is a loader's where it reaches `--num_workers $NUM_WORKERS`, and a number of machines where it reaches
`--nnodes $NUM_WORKERS`. A name that says nothing (`N=8`, `workers=8`) counts only if every use of it is that setting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from keepfed.knobs.commands.command_line import Named, meaning, site
from keepfed.knobs.commands.words import Word, standing
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import THREAD_VARIABLES

_LONGEST_CHAIN = 4
# What a script does with its own options: `NUM_WORKERS="$2"`, `${1#*=}`. The value stands on somebody's command line.
_ARGUMENT = re.compile(r"[\"']?\$(?:\{?\d|\{?OPTARG)")


@dataclass(frozen=True, slots=True)
class Assignment:
    """`NAME=value`."""

    name: str
    """The variable."""
    value: Word
    """What it gets."""
    exported: bool
    """Whether programs that are started see it."""
    start: int
    """Offset of the whole assignment."""
    end: int
    """Offset behind it."""


@dataclass(frozen=True, slots=True)
class Use:
    """`$NAME`, somewhere."""

    name: str
    """The variable."""
    start: int
    """Offset of the name."""
    silent: bool
    """Printed or tested only."""
    option: bool
    """The value of an option, or a count."""


def definitions(
    source: Source, assignments: Sequence[Assignment], uses: Sequence[Use], flags: Sequence[KnobSite], form: Form
) -> Iterator[KnobSite]:
    """The sites of the variables that hold a setting. `flags` are the sites on command lines, with what they refer to."""
    flows = _Flows(source, uses, flags)
    found: dict[int, KnobSite] = {}
    for _ in range(_LONGEST_CHAIN):
        for assignment in assignments:
            made = _definition(source, assignment, flows, form)
            if made is not None and assignment.start not in found:
                found[assignment.start] = made
                flows.add(made)
    yield from found.values()


def without_effect(sites: Sequence[KnobSite]) -> list[KnobSite]:
    """The same sites; fallbacks (`${N:-8}`) of variables that were given a value before are overridden."""
    given: dict[str, int] = {}
    for made in sites:
        if made.role is Role.VARIABLE:
            given.setdefault(made.spelling, made.span.start)
    return [
        replace(made, kind=Kind.OVERRIDDEN)
        if made.kind is Kind.LITERAL and given.get(made.refers_to, made.span.end) < made.span.start
        else made
        for made in sites
    ]


class _Flows:
    """Which settings a variable reaches, and what else."""

    def __init__(self, source: Source, uses: Sequence[Use], flags: Sequence[KnobSite]) -> None:
        self._reached: dict[str, set[str]] = defaultdict(set)
        self._others: dict[str, dict[int, int]] = defaultdict(dict)
        """Of each variable, uses as the value of an option that is no setting: place on disk, place in the text."""
        for use in uses:
            if use.option and not use.silent:
                self._others[use.name][source.span(use.start, use.start).start] = use.start
        for flag in flags:
            self.add(flag)

    def add(self, made: KnobSite) -> None:
        """A setting that takes its value from a variable."""
        if not made.refers_to:
            return
        self._reached[made.refers_to].add(made.knob)
        others = self._others[made.refers_to]
        # `$N` and `${N`, and `${N:-8}`, where the span is the number alone; in UTF-16 that is twice as long.
        for at in range(made.span.start - 2 * len(f"${{{made.refers_to}:-".encode()), made.span.end):
            others.pop(at, None)

    def knobs(self, name: str) -> set[str]:
        """The settings that the variable reaches."""
        return self._reached[name]

    def serves_others(self, name: str, start: int, end: int) -> bool:
        """Whether the variable, outside of this stretch, is the value of something that is no setting."""
        return any(not start <= at < end for at in self._others[name].values())


def _definition(source: Source, assignment: Assignment, flows: _Flows, form: Form) -> KnobSite | None:
    said = meaning(assignment.name)
    reached = flows.knobs(assignment.name)
    others = flows.serves_others(assignment.name, assignment.start, assignment.end)
    if said is not None and said.sure:
        knob = said.knob
        if others and knob not in reached and knob != "threads_env":
            return None
    elif len(reached) == 1 and not others:
        (knob,) = reached
    else:
        return None
    value = standing(assignment.value, knob, form)
    if value is None or (value.kind is not Kind.LITERAL and (said is None or not said.sure)):
        return None
    if value.kind is not Kind.LITERAL and not _is_handed_on(assignment, knob, reached):
        return None
    if value.kind is Kind.LITERAL and value.refers_to == assignment.name:
        value = replace(value, refers_to="")  # `N=${N:-8}` leads nowhere else
    return site(source, Named(knob, assignment.name, Role.VARIABLE, assignment.name), value, form)


def _is_handed_on(assignment: Assignment, knob: str, reached: set[str]) -> bool:
    """Whether a value that comes from elsewhere goes on to the setting: `SHM_SIZE=$(df ...)` may only be looked at."""
    if _ARGUMENT.match(assignment.value.text):
        return False
    return assignment.exported or knob in reached or assignment.name in THREAD_VARIABLES
