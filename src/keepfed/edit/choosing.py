"""Which of all the places that set something a wish means: those that count. The others are listed, each with the reason.

"Set num_workers to 0" is said of a program, and a program has the number in ten places: the default of an option, a script that
gives the option, two configurations of which one is used, a printout of last week's run. Changing all of them is vandalism,
changing the first is luck.

    every site of the setting
      │ written as it was asked for       --workers=8 narrows to places that say --workers
      │ at --site FILE:LINE[:COLUMN]      then even a dead or overridden one: somebody looked at it and wants it
      ▼
    a reference is led to its definition;  printouts only by name;  dead, overridden and losing ones not
      ▼
    those that win; those of which it cannot be told where they stand in one file, or in one that was named
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from keepfed.errors import UsageError
from keepfed.knobs.knob import KNOBS, Wish
from keepfed.knobs.site import Kind, KnobSite, Role, Span
from keepfed.knobs.spelling import words_of
from keepfed.text import say


@dataclass(frozen=True, slots=True)
class Place:
    """`--site FILE:LINE` or `FILE:LINE:COLUMN`."""

    file: str
    """The file as it was given, or the tail of its path."""
    line: int
    """From 1."""
    column: int | None = None
    """In characters from 1; None means the whole line."""

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that a text names. Raises UsageError where it names none."""
        file, _, last = text.rpartition(":")
        before, _, middle = file.rpartition(":")
        if before and middle.isdecimal() and last.isdecimal():
            return cls(before.replace("\\", "/"), int(middle), int(last))
        if not file or not last.isdecimal() or int(last) < 1:
            raise UsageError(say("edit.bad_site", text=text), next_step=say("edit.bad_site_next"))
        return cls(file.replace("\\", "/"), int(last))

    def covers(self, site: KnobSite) -> bool:
        """Whether a site is written there."""
        same_line = site.line == self.line and self.column in {None, site.column}
        return same_line and same_file(site.file, self.file)


@dataclass(frozen=True, slots=True)
class Kept:
    """A place that sets the same thing and stays as it is."""

    site: KnobSite
    """The place."""
    reason: str
    """Why, a key of the locales: `edit.kept_*`, or `knobs.refuse_*`."""


@dataclass(frozen=True, slots=True)
class _Files:
    named: frozenset[str] = frozenset()
    generated: frozenset[str] = frozenset()


@dataclass(slots=True)
class Choice:
    """What a wish means in a set of files."""

    wish: Wish
    """What was asked for."""
    changing: list[KnobSite] = field(default_factory=list)
    """The places to change, each of which has a target."""
    kept: list[Kept] = field(default_factory=list)
    """All others that set the same."""
    ways: list[tuple[KnobSite, KnobSite]] = field(default_factory=list)
    """Where a reference was asked for: it, and the definition that is changed in its place."""


def choose(
    wish: Wish,
    sites: Sequence[KnobSite],
    *,
    place: Place | None = None,
    named: Collection[str] = (),
    generated: Collection[str] = (),
) -> Choice:
    """The places that `wish` means among `sites`.

    `named` are files that were given by name, not found in a folder; `generated` those that a program writes. Raises UsageError
    where `place` stands for several places on one line.
    """
    choice = Choice(wish)
    candidates = meant(wish, sites)
    if place is not None:
        _choose_at(choice, _at(wish, candidates, place), sites)
    else:
        _choose_among(choice, candidates, sites, _Files(frozenset(named), frozenset(generated)))
    chosen = {_identity(site) for site in choice.changing} | {_identity(kept.site) for kept in choice.kept}
    every = [site for site in sites if site.knob == wish.knob and same_variable(wish, site)]
    reason = "edit.kept_not_meant" if place is None else "edit.kept_elsewhere"
    choice.kept += [Kept(site, reason) for site in every if _identity(site) not in chosen]
    return choice


def meant(wish: Wish, sites: Iterable[KnobSite]) -> list[KnobSite]:
    """The sites of the setting that is asked for, written as it was asked for.

    A canonical name means every spelling, and so does one that is written nowhere but in other joints (`num-workers` for
    `num_workers`). A thread variable is always itself.
    """
    of_knob = [site for site in sites if site.knob == wish.knob and same_variable(wish, site)]
    exact = [site for site in of_knob if site.spelling == wish.spelling]
    if wish.knob == "threads_env" or wish.spelling in KNOBS:
        return of_knob
    if exact:
        return exact
    words = words_of(wish.spelling)
    return [site for site in of_knob if words_of(site.spelling.rpartition(".")[2]) == words]


def same_variable(wish: Wish, site: KnobSite) -> bool:
    """Whether a site speaks of the same thing at all: OMP_NUM_THREADS and MKL_NUM_THREADS are one knob, and two settings."""
    return wish.knob != "threads_env" or words_of(site.spelling) == words_of(wish.spelling)


def same_file(one: str, other: str) -> bool:
    """Whether two paths name one file, or one is the tail of the other: `train.py` and `./project/train.py`."""
    short, long = sorted((PurePosixPath(one).parts, PurePosixPath(other).parts), key=len)
    return long[len(long) - len(short) :] == short


def _at(wish: Wish, candidates: Sequence[KnobSite], place: Place) -> list[KnobSite]:
    found = [site for site in candidates if place.covers(site)]
    exact = [site for site in found if site.spelling == wish.spelling]
    if len(found) > 1 and len(exact) == 1:
        return exact
    if len(found) > 1:
        columns = ", ".join(
            f"{place.file}:{site.line}:{site.column} ({site.spelling} = {site.value})" for site in found
        )
        raise UsageError(
            say("edit.several_at_site", name=wish.spelling, file=place.file, line=place.line),
            next_step=say("edit.several_at_site_next", places=columns),
        )
    return found


def _choose_at(choice: Choice, found: Sequence[KnobSite], sites: Sequence[KnobSite]) -> None:
    for site in found:
        if site.target is not None:
            choice.changing.append(site)
            continue
        definitions = [other for other in definitions_of(site, sites) if other.target is not None]
        for definition in definitions[:1] if len(definitions) == 1 else ():
            choice.changing.append(definition)
            choice.ways.append((site, definition))
        if len(definitions) != 1:
            choice.kept.append(Kept(site, site.refusal or "edit.kept_reference"))


def _choose_among(choice: Choice, candidates: Sequence[KnobSite], sites: Sequence[KnobSite], files: _Files) -> None:
    open_ones = []
    # A printout is appended to by each run: of those blocks the last one is meant.
    last_printed = {(site.file, site.spelling): site.line for site in candidates if _is_printed(site)}
    for site in candidates:
        reason = _why_not(site, files)
        if _is_printed(site) and site.line != last_printed[site.file, site.spelling]:
            reason = "edit.kept_printout"
        if reason:
            choice.kept.append(Kept(site, reason))
        else:
            open_ones.append(site)
    unknown = _unclear(open_ones, files)
    choice.changing = [site for site in open_ones if site not in unknown]
    choice.kept += [Kept(site, "edit.kept_unknown") for site in unknown]
    if not open_ones:
        _follow(choice, candidates, sites)


def _unclear(sites: Sequence[KnobSite], files: _Files) -> list[KnobSite]:
    """Of places that may count or not, those of several files that nobody named: one of ten configurations is in use."""
    unclear = [site for site in sites if site.wins is None]
    several = len({site.file for site in unclear}) > 1
    return [site for site in unclear if several and site.file not in files.named]


def _follow(choice: Choice, candidates: Sequence[KnobSite], sites: Sequence[KnobSite]) -> None:
    """Where only references were meant: their definitions, if every one of them has a single one that can be changed."""
    for site in candidates:
        definitions = [other for other in definitions_of(site, sites) if other.target and not _why_not(other, _Files())]
        if site.kind is Kind.REFERENCE and len(definitions) == 1 and definitions[0] not in choice.changing:
            choice.changing.append(definitions[0])
            choice.ways.append((site, definitions[0]))
    led = {_identity(site) for site, _ in choice.ways}
    choice.kept = [kept for kept in choice.kept if _identity(kept.site) not in led]


def definitions_of(site: KnobSite, sites: Iterable[KnobSite]) -> list[KnobSite]:
    """The places that a reference gets its value from: what counts, where that is known, else those of its own file or of others."""
    known = [
        other for other in sites if site.counts_at and site.counts_at == f"{other.file}:{other.line}" and other.target
    ]
    of_knob = [other for other in known if other.knob == site.knob and other is not site]
    if of_knob:
        return of_knob
    if site.kind is not Kind.REFERENCE and not site.refers_to:
        return []
    name = _last(site.refers_to)
    found = [
        other
        for other in sites
        if other is not site and other.kind is not Kind.REFERENCE and other.knob == site.knob and name
        if name in {_last(other.setting), other.spelling.lstrip("-").replace("-", "_")}
    ]
    return [other for other in found if other.file == site.file] or found


def _last(name: str) -> str:
    return name.rpartition(".")[2].strip("${}").replace("-", "_")


def _why_not(site: KnobSite, files: _Files) -> str:
    """The reason to leave a site alone that nobody has pointed at; empty where it may be changed."""
    if _is_printed(site):
        return "" if site.file in files.named and site.target else "edit.kept_printout"
    if site.kind is Kind.DEAD:
        return "edit.kept_dead"
    if site.kind is Kind.REFERENCE:
        return "edit.kept_reference"
    if site.kind is Kind.OVERRIDDEN or site.wins is False:
        return "edit.kept_overridden"
    if site.target is None:
        return site.refusal or "edit.kept_untouchable"
    return "edit.kept_generated" if site.file in files.generated else ""


def _is_printed(site: KnobSite) -> bool:
    return site.kind is Kind.RECORD or site.role is Role.PRINTED


def _identity(site: KnobSite) -> tuple[str, Span]:
    return site.file, site.span
