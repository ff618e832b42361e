"""Axes: where a value lies, and which round numbers stand beside the lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high`."""

    low: float
    """Value at its beginning."""

    high: float
    """Value at its end; above `low`."""

    ticks: tuple[float, ...]
    """The values that are written beside it."""

    def cut(self, value: float) -> float:
        """The value, or the end of the axis that it lies beyond."""
        return min(self.high, max(self.low, value))

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis; 0 to 100 for values within it."""
        return 100.0 * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Plane:
    """Two axes of a plot of so many pixels in height: values → marks."""

    across: Axis
    """What goes to the right."""

    up: Axis
    """What goes up."""

    height: float
    """Pixels."""

    def x(self, value: float) -> float:
        """Percent of the width."""
        return self.across.at(value)

    def y(self, value: float) -> float:
        """Pixels from the top; values beyond the axis lie at its end."""
        return self.height * (1 - self.up.at(self.up.cut(value)) / 100)


def from_zero(highest: float, *, count: int = 5, whole: bool = False) -> Axis:
    """An axis from zero to the first tick that is not below `highest`, with about `count` ticks."""
    top = highest if highest > 0 else 1.0
    step = nice_step(top / count)
    if whole:
        step = max(1.0, step)
    steps = max(1, ceil(top / step - 1e-9))
    return Axis(0.0, steps * step, tuple(step * number for number in range(steps + 1)))


def rates_axis(means: Iterable[float], highs: Iterable[float], *, count: int = 5) -> Axis:
    """For rates with intervals: all of a usual one fits; that of two windows that disagree would flatten all else.

    Above the highest rate there is an eighth of it, for its label.
    """
    highest = max(means)
    return from_zero(max(1.125 * highest, min(max(highs, default=0.0), 1.4 * highest)), count=count)


def around(lowest: float, highest: float, *, count: int = 8) -> Axis:
    """An axis for whole numbers: from zero, or from just below the lowest where that would leave most of it empty."""
    if lowest <= highest / 2:
        return from_zero(highest, count=count, whole=True)
    step = max(1.0, nice_step((highest - lowest + 2) / count))
    first, last = floor((lowest - 1) / step), ceil((highest + 1) / step)
    return Axis(first * step, last * step, tuple(step * number for number in range(first, last + 1)))


def until(highest: float, *, count: int = 6) -> Axis:
    """An axis from zero that ends at `highest` itself, as for time: its ticks lie within."""
    top = highest if highest > 0 else 1.0
    step = nice_step(top / count)
    return Axis(0.0, top, tuple(step * number for number in range(floor(top / step + 1e-9) + 1)))


def nice_step(rough: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `rough` (after Heckbert, Graphics Gems, 1990)."""
    power: float = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if rough <= factor * power * (1 + 1e-9))


def tick_text(value: float) -> str:
    """A round number without digits that say nothing: "0", "2.5", "10", "20000"."""
    return f"{value:.10g}" if abs(value) < 1e6 else f"{value:g}"
