"""`--expect num_workers=0`: whether the places that count say so, as values and not as text.

For scripts and CI, so the answer must be safe to rely on: what is computed or comes from elsewhere cannot be shown to be as
expected, and a setting that nobody sets has the program's own default, which is no proof either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from keepfed.errors import UsageError
from keepfed.knobs.knob import KNOBS, Wish, checked, size_bytes
from keepfed.knobs.site import Kind, KnobSite
from keepfed.knobs.spelling import words_of
from keepfed.text import say

_OUT_OF_PLAY = (Kind.RECORD, Kind.DEAD, Kind.OVERRIDDEN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one expectation."""

    wished: Wish
    """What was expected."""
    counting: tuple[KnobSite, ...]
    """The places that count for it."""
    differing: tuple[KnobSite, ...]
    """Those of them that say something else, or nothing that can be compared."""

    @property
    def met(self) -> bool:
        """Whether there are such places, and all of them say so."""
        return bool(self.counting) and not self.differing

    def lines(self) -> list[str]:
        """What to tell: one line where it is met, else one for each place that differs."""
        asked = f"{self.wished.spelling}={self.wished.value}"
        if not self.counting:
            return [say("scan.expect_unset", asked=asked)]
        if self.met:
            return [say("scan.expect_met", asked=asked, count=len(self.counting))]
        return [say("scan.expect_differs", asked=asked, count=len(self.differing)), *map(_line, self.differing)]


def verdict_of(wished: Wish, sites: Iterable[KnobSite]) -> Verdict:
    """Compare what is wished with the places that count for it."""
    counting = tuple(_counting([site for site in sites if _is_meant(wished, site)]))
    return Verdict(wished, counting, tuple(site for site in counting if not _says(wished, site)))


def same_value(knob: str, first: str, second: str) -> bool:
    """Whether two texts are the same value of a setting: `2g` and `2048m`, `True` and `1`; False where one is no value."""
    try:
        return _value(knob, first) == _value(knob, second)
    except UsageError:
        return False


def _is_meant(wished: Wish, site: KnobSite) -> bool:
    if wished.knob != site.knob:
        return False
    return wished.spelling in KNOBS or words_of(wished.spelling) == words_of(site.spelling)


def _counting(sites: list[KnobSite]) -> list[KnobSite]:
    """The winners where they are known; of what may count, a name whose value stands in another place is left to that one."""
    in_play = [site for site in sites if site.kind not in _OUT_OF_PLAY and site.wins is not False]
    winners = [site for site in in_play if site.wins]
    candidates = winners or in_play
    plain = [site for site in candidates if site.kind is not Kind.REFERENCE or site.in_effect]
    return plain or candidates


def _says(wished: Wish, site: KnobSite) -> bool:
    if site.in_effect is not None:
        return same_value(wished.knob, wished.value, site.in_effect.value)
    return site.kind is Kind.LITERAL and same_value(wished.knob, wished.value, site.value)


def _value(knob: str, text: str) -> str | int:
    plain = text.strip().replace("_", "")
    return size_bytes(plain) if knob == "shm_size" else checked(knob, knob, plain)


def _line(site: KnobSite) -> str:
    shown = replace(site, value=site.in_effect.value) if site.in_effect else site
    return f"{site.file}:{site.line}:{site.column}: {site.spelling} = {' '.join(shown.value.split())}"
