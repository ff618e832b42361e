"""Times too short for a table of sessions: milliseconds and microseconds."""

from __future__ import annotations

from keepfed.tuning.numbers import rate
from keepfed.tuning.report.axes import Axis, tick_text
from keepfed.tuning.report.marks import Tick


def short_duration(seconds: float) -> str:
    """Three digits in the unit that fits: "1.20 s", "38.5 ms", "4.10 µs"."""
    factor, unit = _unit(seconds)
    return f"{rate(seconds * factor)} {unit}"


def duration_ticks(axis: Axis) -> tuple[Tick, ...]:
    """The ticks of an axis of seconds, all in the unit that fits its end."""
    factor, unit = _unit(axis.high)
    return tuple(Tick(axis.at(value), f"{tick_text(value * factor)} {unit}") for value in axis.ticks)


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
