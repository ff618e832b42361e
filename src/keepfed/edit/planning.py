"""From wishes to edits: what is changed in which file, what says so already, and what is refused.

Offsets were counted in the file as it was scanned. The bytes are looked at once more here, and where they say something else
than the site does, nothing is made of them: a reader and this room disagree, and then a span is a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from keepfed.edit.choosing import Choice, Kept, Place, choose, same_file
from keepfed.edit.generated import is_generated
from keepfed.edit.replacement import Edit, EditRefused, in_order
from keepfed.edit.respelling import respelled, says_the_same
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import KnobSite, Span
from keepfed.knobs.source import Source
from keepfed.text import say

# Lines between the name of an option and its value: flags, type, help.
_BELOW = 4


@dataclass(slots=True)
class Planned:
    """What a set of wishes comes to."""

    choices: list[Choice] = field(default_factory=list)
    """Per wish, which places it means."""
    edits: list[Edit] = field(default_factory=list)
    """What is changed, each place once."""
    changed: list[tuple[KnobSite, Edit]] = field(default_factory=list)
    """The places that are changed, with their edits."""
    already: list[KnobSite] = field(default_factory=list)
    """Places that say it already."""
    inserted: list[Edit] = field(default_factory=list)
    """Edits that add what was missing; among `edits` as well."""
    answered: list[Choice] = field(default_factory=list)
    """The choices that those edits are for."""

    @property
    def kept(self) -> list[Kept]:
        """All places that set the same things and stay."""
        return [kept for choice in self.choices for kept in choice.kept]

    def by_file(self) -> dict[str, tuple[Edit, ...]]:
        """The edits of each file in its order. Raises EditRefused where two of them contradict."""
        files: dict[str, list[Edit]] = {}
        for edit in self.edits:
            files.setdefault(edit.file, []).append(edit)
        return {file: tuple(in_order(edits)) for file, edits in files.items()}

    def insert(self, choice: Choice, edits: Iterable[Edit]) -> None:
        """Add edits that make something new for a wish."""
        for edit in edits:
            self.inserted.append(edit)
            self.edits.append(edit)
            self.answered.append(choice)

    def missing(self) -> list[Choice]:
        """The wishes for which nothing was found that could be changed, or that says it already."""
        done = {id(site) for site, _ in self.changed} | {id(site) for site in self.already}
        return [
            choice
            for choice in self.choices
            if choice not in self.answered and not any(id(site) in done for site in choice.changing)
        ]


def planned(
    wishes: Iterable[Wish],
    sites: Sequence[KnobSite],
    sources: Mapping[str, Source],
    *,
    place: Place | None = None,
    named: Collection[str] = (),
) -> Planned:
    """What these wishes mean in these files. Raises UsageError and EditRefused."""
    plan = Planned()
    generated = [file for file in {site.file for site in sites} if is_generated(sources[file])]
    for wish in wishes:
        at = _value_of(place, wish, sites, sources) if place else None
        add(plan, choose(wish, sites, place=at, named=named, generated=generated), sources)
    return plan


def _value_of(place: Place, wish: Wish, sites: Sequence[KnobSite], sources: Mapping[str, Source]) -> Place:
    """The place of the value where a line was given that has only the name: black puts `default=` two lines below `--workers`."""
    near = [site for site in sites if site.knob == wish.knob and same_file(site.file, place.file)]
    if place.column is not None or any(site.line == place.line for site in near):
        return place
    below = [site for site in near if 0 < site.line - place.line <= _BELOW]
    if not below:
        return place
    first = min(below, key=lambda site: (site.line, site.column))
    line = sources[first.file].text.split("\n")[place.line - 1]
    return Place(first.file, first.line, first.column) if first.spelling in line else place


def add(plan: Planned, choice: Choice, sources: Mapping[str, Source]) -> None:
    """Add the edits of one choice. Raises EditRefused where a file is not as it was scanned."""
    plan.choices.append(choice)
    for site in choice.changing:
        edit = edit_of(site, choice.wish, sources[site.file])
        if edit is None:
            plan.already.append(site)
            continue
        plan.changed.append((site, edit))
        if edit not in plan.edits:
            plan.edits.append(edit)


def edit_of(site: KnobSite, wish: Wish, source: Source) -> Edit | None:
    """The edit that makes `site` say what is asked for; None where it says so already.

    Raises EditRefused where the site cannot be changed, or is no longer what it was.
    """
    if site.target is None:
        raise EditRefused(say(site.refusal or "edit.kept_untouchable"))
    text, whole = _text(source, site.target), _text(source, site.span)
    if not text or whole.replace("\r\n", "\n") != site.value.replace("\r\n", "\n"):
        raise EditRefused(say("edit.moved", place=f"{site.file}:{site.line}"), next_step=say("edit.moved_next"))
    if says_the_same(site, text, wish):
        return None
    new = respelled(site, text, wish)
    return Edit(
        file=site.file,
        span=site.target,
        old=source.data[site.target.start : site.target.end],
        new=source.encoded(new),
        line=site.line,
        knob=site.knob,
        spelling=site.spelling,
        was=text,
        becomes=new,
    )


def _text(source: Source, span: Span) -> str:
    return source.data[span.start : span.end].decode(source.encoding, "replace")
