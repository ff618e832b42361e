"""Why nothing could be done for a wish: is it set at all, is it set there, is it written so, may it be changed."""

from __future__ import annotations

from collections.abc import Sequence

from keepfed.cli.set.telling import looked_at, tell_kept
from keepfed.edit.choosing import Choice, Place
from keepfed.edit.planning import Planned
from keepfed.edit.replacement import EditRefused
from keepfed.errors import KeepfedError, UnreachableError
from keepfed.knobs.scan import Scanned
from keepfed.text import say

ELSEWHERE = frozenset({"edit.kept_not_meant", "edit.kept_elsewhere"})
"""Reasons that say that a place was not asked for, and nothing of the place."""


def refuse_missing(made: Planned, scanned: Scanned, paths: Sequence[str], *, place: Place | None, insert: bool) -> None:
    """Raise for the first wish that nothing can be done for, with what was found and why it stays."""
    for choice in made.missing():
        if any(kept.reason not in ELSEWHERE for kept in choice.kept):
            tell_kept(made)
            message = say("edit.only_kept", name=_name(choice))
            raise EditRefused(message, next_step=say("edit.only_kept_next"))
        raise _not_there(choice, looked_at(scanned, paths), place, insert=insert)


def _not_there(choice: Choice, looked: str, place: Place | None, *, insert: bool) -> KeepfedError:
    name = _name(choice)
    if insert:
        message = say("edit.no_neighbour", name=name, looked=looked)
        return UnreachableError(message, next_step=say("edit.no_neighbour_next"))
    if choice.kept and place is not None:
        message = say("edit.nothing_at_site", name=name, place=f"{place.file}:{place.line}", looked=looked)
        places = ", ".join(f"{kept.site.file}:{kept.site.line}" for kept in choice.kept[:5])
        return UnreachableError(message, next_step=say("edit.nothing_at_site_next", places=places))
    if choice.kept:
        spellings = dict.fromkeys(kept.site.spelling for kept in choice.kept)
        message = say("edit.not_written_so", name=choice.wish.spelling, looked=looked)
        return UnreachableError(message, next_step=say("edit.not_written_so_next", names=", ".join(spellings)))
    return UnreachableError(say("edit.not_found", name=name, looked=looked), next_step=say("edit.not_found_next"))


def _name(choice: Choice) -> str:
    return f"{choice.wish.spelling}={choice.wish.value}"
