"""What all benchmarks compare by: neighbouring pairs in turned order, and the interval of their median.

On a shared machine the same code differs by several percent from minute to minute and by a factor of two within the hour,
so only ratios of neighbours mean anything; and whoever runs second finds the caches as the first left them, so the order is
turned from pair to pair (ABBA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and where it lies with 95 % confidence."""

    low: float
    median: float
    high: float


def in_turn(pairs: int, left: Callable[[], T], right: Callable[[], T]) -> Iterator[tuple[T, T]]:
    """`pairs` times what (left, right) measure, every other time the right one first."""
    for number in range(pairs):
        if number % 2:
            second, first = right(), left()
        else:
            first, second = left(), right()
        yield first, second


def median_interval(values: Sequence[float], resamples: int = 10_000) -> Interval:
    """The median and its 95 % percentile-bootstrap interval; the resampling is seeded, equal values in, equal values out."""
    if not values:
        raise ValueError("no values, no median: at least one pair is needed")
    sample = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.percentile(np.median(sample[picks], axis=1), [2.5, 97.5])
    return Interval(low=float(low), median=float(np.median(sample)), high=float(high))
