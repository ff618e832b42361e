"""`--expect num_workers=0`: whether the places that count say so, as values and not as text.

For scripts and CI, so the answer must be safe to rely on: what is computed or comes from elsewhere cannot be shown to be as
expected, and a setting that nobody sets has the program's own default, which is no proof either. Which places count is the same
question that `keepfed set` asks, with the same answer, project by project: the winners, or all that may be ones where none is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
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
    unsure: tuple[KnobSite, ...] = ()
    """Places beside winners that say something else, and of which nobody knows whether they count: told, and not judged."""

    @property
    def met(self) -> bool:
        """Whether there are such places, and all of them say so."""
        return bool(self.counting) and not self.differing

    def lines(self) -> list[str]:
        """What to tell: one line where it is met, else one for each place that differs."""
        asked = f"{self.wished.spelling}={self.wished.value}"
        return [*self._answer(asked), *self._remark()]

    def _answer(self, asked: str) -> list[str]:
        if not self.counting:
            return [say("scan.expect_unset", asked=asked)]
        if self.met:
            return [say("scan.expect_met", asked=asked, count=len(self.counting))]
        return [say("scan.expect_differs", asked=asked, count=len(self.differing)), *map(_line, self.differing)]

    def _remark(self) -> list[str]:
        if not self.unsure:
            return []
        return [say("scan.expect_unsure", count=len(self.unsure)), *map(_line, self.unsure)]


def verdict_of(wished: Wish, sites: Iterable[KnobSite], project_of: Callable[[str], str]) -> Verdict:
    """Compare what is wished with the places that count for it; `project_of` gives the project of a file."""
    by_project: dict[str, list[KnobSite]] = defaultdict(list)
    for site in sites:
        if _is_meant(wished, site):
            by_project[project_of(site.file)].append(site)
    counting, unsure = [], []
    for known in by_project.values():
        candidates, others = _counting(known)
        counting += candidates
        unsure += [site for site in others if site.kind is Kind.LITERAL and not _says(wished, site)]
    return Verdict(wished, tuple(counting), tuple(site for site in counting if not _says(wished, site)), tuple(unsure))


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


def _counting(sites: list[KnobSite]) -> tuple[list[KnobSite], list[KnobSite]]:
    """The places that count, and those beside them of which nobody knows.

    A name whose value stands in another place is left to that one.
    """
    in_play = [site for site in sites if site.kind not in _OUT_OF_PLAY and site.wins is not False]
    winners = [site for site in in_play if site.wins]
    candidates = winners or in_play
    plain = [site for site in candidates if site.kind is not Kind.REFERENCE or site.in_effect]
    return plain or candidates, [site for site in in_play if not site.wins] if winners else []


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
