"""Fresh processes compared in pairs: how many times faster, and how sure is that.

One process is faster than another by some per cent for no reason at all (where its memory lies, what else the host does), and a
host drifts within minutes. So everything is measured once per round, in rounds that run to and fro, compared within its own
round only, and what is reported is the median of the rounds' ratios with an interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import TypeVar

from keepfed.tuning.points import interval

_T = TypeVar("_T")

ROUNDS = 4
"""Rounds of fresh processes: twice to and fro."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one thing is than another."""

    factor: float
    """Median over the rounds; 1 is equal."""

    low: float
    """Lower end of its 95 % interval."""

    high: float
    """Its upper end."""

    @property
    def faster(self) -> bool:
        """Whether it is faster beyond doubt, by more than the 2 % that nobody would change a program for."""
        return self.low > 1.0 and self.factor > 1.02


def to_and_fro(things: Sequence[_T], rounds: int = ROUNDS) -> Iterator[tuple[int, _T]]:
    """(round, thing) in the order in which they are to be measured."""
    for number in range(rounds):
        for thing in things if number % 2 == 0 else reversed(things):
            yield number, thing


def ratio(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """Rates of two things in the same rounds → how many times faster the first is. After one round anything is possible."""
    factors = [one / other for one, other in zip(ones, others, strict=True)]
    middle = median(factors)
    low, high = interval(factors, middle)
    return Ratio(middle, 0.0 if low is None else low, inf if high is None else high)
