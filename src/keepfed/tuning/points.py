"""The windows of a search → what is known of each plan, with an interval.

A mean without its scatter invites people to see a difference between 21.3 and 21.6. The first window after a change of plan
still eats what had been prepared under the old one, or waits for workers to start: it is left out where there are others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from statistics import stdev

from keepfed.events import Window
from keepfed.plan import Plan
from keepfed.profile import Measured
from keepfed.tuning.results import Moment, Point

# Two-sided 95 % points of Student's distribution by degrees of freedom: ISO 3534-1, any table of it. Beyond, 2 will do.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)


@dataclass(frozen=True, slots=True)
class Timed:
    """A window and when it was reported."""

    at_s: float
    """Seconds since the loader was first heard of."""

    window: Window
    """The window."""


def share(value: float) -> float:
    """A share, whatever rounding and clocks have made of it."""
    return min(1.0, max(0.0, value))


def timeline(windows: Iterable[Timed]) -> tuple[Moment, ...]:
    """One moment per window."""
    return tuple(
        Moment(at_s, Measured(one.plan, one.batches / one.elapsed_s, share(one.wait_s / one.elapsed_s)))
        for at_s, one in ((timed.at_s, timed.window) for timed in windows)
    )


def points(windows: Sequence[Timed], predicted: Mapping[Plan, float]) -> tuple[Point, ...]:
    """One point per plan, fewest workers first."""
    whole: dict[Plan, list[Window]] = {}
    after_change: dict[Plan, list[Window]] = {}
    for at, (plan, stay) in enumerate(groupby((timed.window for timed in windows), lambda window: window.plan)):
        first, *rest = stay
        after_change.setdefault(plan, []).append(first)
        whole.setdefault(plan, []).extend(rest if at else [first, *rest])  # nothing was changed before the very first
    counted = {plan: whole[plan] or after_change[plan] for plan in sorted(whole)}
    scatter = _pooled([_rates(own) for own in counted.values()])
    return tuple(_point(plan, own, predicted.get(plan, 0.0), scatter) for plan, own in counted.items())


def _rates(windows: Sequence[Window]) -> list[float]:
    return [one.batches / one.elapsed_s for one in windows]


def _pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Relative scatter of single windows around their plan's mean, over all plans, and its degrees of freedom.

    Two windows alone say next to nothing about their scatter: the interval would be nine times as wide as it.
    """
    squares = sum((rate * len(rates) / sum(rates) - 1) ** 2 for rates in groups if any(rates) for rate in rates)
    freedom = sum(len(rates) - 1 for rates in groups)
    return sqrt(squares / freedom) if freedom else 0.0, freedom


def _point(plan: Plan, windows: Sequence[Window], predicted: float, scatter: tuple[float, int]) -> Point:
    batches, seconds = sum(one.batches for one in windows), sum(one.elapsed_s for one in windows)
    rate = batches / seconds
    half = _student(scatter[1]) * scatter[0] * rate / sqrt(len(windows))
    low, high = (max(0.0, rate - half), rate + half) if len(windows) > 1 else (None, None)
    return Point(
        measured=Measured(plan, rate, share(sum(one.wait_s for one in windows) / seconds)),
        low=low,
        high=high,
        windows=len(windows),
        seconds=seconds,
        memory_bytes=max(one.rss_bytes for one in windows),
        cpu_s_per_batch=sum(one.fetch_cpu_s for one in windows) / max(1, batches),
        predicted_batches_per_s=predicted,
    )


def interval(rates: Sequence[float], mean: float) -> tuple[float | None, float | None]:
    """95 % interval of `mean` from the scatter of the rates that it was taken from; None, None for a single one."""
    if len(rates) < 2:
        return None, None
    half = _student(len(rates) - 1) * stdev(rates) / sqrt(len(rates))
    return max(0.0, mean - half), mean + half


def _student(freedom: int) -> float:
    return _STUDENT[freedom - 1] if 0 < freedom <= len(_STUDENT) else 2.0
