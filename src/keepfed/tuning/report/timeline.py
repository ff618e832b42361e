"""The search as it went: every window's rate, the workers in force, and the waiting, over one axis of time.

A long search has thousands of windows, and a plot has a few hundred pixels; so windows are put together into bins of time
(their mean), and the caption says of how many each dot is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean

from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, plan_text, rate
from keepfed.tuning.report.axes import Axis, Plane, from_zero, tick_text, until
from keepfed.tuning.report.marks import Dot, Figure, Label, Line, Mark, Panel, Table, Tick, Trace
from keepfed.tuning.report.path import MOST_STEPS, judged
from keepfed.tuning.report.records import Loader, Moment, Move

MOST_BINS = 160
"""Dots of a plot: more are a smear, and a page of many loaders has to stay small."""

_MOST_MOMENTS = 60
"""Vertical lines: more of them hide the dots."""

_TALL, _LOW = 150.0, 84.0


@dataclass(frozen=True, slots=True)
class Bin:
    """One dot: a window, or the mean of several that follow each other."""

    at_s: float
    """Time of its last window."""

    per_s: float
    """Mean of their batches per second."""

    wait_share: float | None
    """Mean of their shares of waiting."""

    last: Moment
    """The last of them, whose plan stands for all."""

    windows: int
    """How many they are."""


def timeline(loader: Loader, most: int = MOST_BINS) -> Figure | None:
    """The figure; None where fewer than two windows are known."""
    bins = binned(loader.timeline, most)
    if len(bins) < 2:
        return None
    last_s = max([bins[-1].at_s, *(move.at_s for move in loader.moves if move.at_s is not None)])
    across = until(last_s)
    ticks = tuple(Tick(across.at(value), tick_text(value)) for value in across.ticks)
    together = max(one.windows for one in bins)
    caption = say("report.timeline_caption")
    if _timed(loader):
        caption = say("report.and_then", first=caption, second=say("report.timeline_moves"))
    if together > 1:
        caption = say("report.and_then", first=caption, second=say("report.timeline_bins", count=together))
    panels = (_rates(loader, bins, across), _workers(loader, bins, across), _waits(loader, bins, across))
    *upper, lowest = (panel for panel in panels if panel is not None)
    return Figure(
        "timeline",
        say("report.timeline"),
        caption,
        panels=(*upper, _with_axis(lowest, ticks)),
        table=_table(bins),
    )


def binned(timeline: tuple[Moment, ...], most: int) -> tuple[Bin, ...]:
    """At most `most` of them, equally wide in time."""
    if len(timeline) <= most:
        groups = [[moment] for moment in timeline]
    else:
        end_s = timeline[-1].at_s or 1.0
        by_time: dict[int, list[Moment]] = {}
        for moment in timeline:
            by_time.setdefault(min(most - 1, int(moment.at_s / end_s * most)), []).append(moment)
        groups = list(by_time.values())
    return tuple(_bin(group) for group in groups)


def _bin(group: list[Moment]) -> Bin:
    waits = [moment.wait_share for moment in group if moment.wait_share is not None]
    rates = fmean(moment.per_s for moment in group)
    return Bin(group[-1].at_s, rates, fmean(waits) if waits else None, group[-1], len(group))


# ------------------------------------------------------------------------------------------------------------------ plots


def _rates(loader: Loader, bins: tuple[Bin, ...], across: Axis) -> Panel:
    plane = Plane(across, from_zero(max(one.per_s for one in bins), count=4), _TALL)
    dots = tuple(Dot(plane.x(one.at_s), plane.y(one.per_s), "measured small", _title(one)) for one in bins)
    return Panel(
        say("report.axis_rate"),
        _TALL,
        (),
        tuple(Tick(plane.y(value), tick_text(value)) for value in plane.up.ticks),
        (*_moments(loader, across, _TALL, numbered=True), *dots),
        described=say("report.timeline_described", count=len(bins)),
    )


def _workers(loader: Loader, bins: tuple[Bin, ...], across: Axis) -> Panel:
    """A window is reported at its end: its workers were in force from the end of the window before."""
    most = max(one.last.plan.num_workers for one in bins)
    plane = Plane(across, from_zero(most, count=3, whole=True), _LOW)
    corners: list[tuple[float, float]] = []
    x = 0.0
    for workers, same in groupby(bins, key=lambda one: one.last.plan.num_workers):
        y, end = plane.y(workers), plane.x(list(same)[-1].at_s)
        corners += [(x, y), (end, y)]
        x = end
    return Panel(
        say("report.axis_workers"),
        _LOW,
        (),
        tuple(Tick(plane.y(value), tick_text(value)) for value in plane.up.ticks),
        (*_moments(loader, across, _LOW), Trace(tuple(corners), "measured")),
        described=_steps_described(bins),
    )


def _waits(loader: Loader, bins: tuple[Bin, ...], across: Axis) -> Panel | None:
    known = [(one, one.wait_share) for one in bins if one.wait_share is not None]
    if not known:
        return None
    plane = Plane(across, Axis(0.0, 1.0, (0.0, 0.5, 1.0)), _LOW)
    dots = tuple(Dot(plane.x(one.at_s), plane.y(wait), "waiting small") for one, wait in known)
    return Panel(
        say("report.axis_wait"),
        _LOW,
        (),
        tuple(Tick(plane.y(value), percent(value)) for value in plane.up.ticks),
        (*_moments(loader, across, _LOW), *dots),
        described=say("report.timeline_described", count=len(known)),
    )


def _with_axis(panel: Panel, ticks: tuple[Tick, ...]) -> Panel:
    return replace(panel, x_ticks=ticks, x_title=say("report.axis_time"))


def _timed(loader: Loader) -> list[tuple[int, Move, float]]:
    return [(number, move, move.at_s) for number, move in enumerate(judged(loader), 1) if move.at_s is not None]


def _moments(loader: Loader, across: Axis, height: float, *, numbered: bool = False) -> list[Mark]:
    moves = _timed(loader)
    marks: list[Mark] = []
    for number, move, at_s in moves[:_MOST_MOMENTS]:
        x, kept = across.at(at_s), "moment" if move.kept else "moment-dropped"
        marks.append(Line(x, 0.0, x, height, kept, plan_text(move.point.plan)))
        if numbered and len(moves) <= MOST_STEPS:
            marks.append(Label(x, -6.0, str(number), tone="step"))
    return marks


def _title(one: Bin) -> str:
    dot = say("report.dot", plan=plan_text(one.last.plan), rate=rate(one.per_s), wait=percent(one.wait_share))
    return say("report.dot_at", dot=dot, seconds=f"{one.at_s:.0f}")


def _steps_described(bins: tuple[Bin, ...]) -> str:
    """The plans in the order in which they were in force."""
    plans = [plan for plan, _ in groupby(bins, key=lambda one: one.last.plan)]
    return say("report.list").join(plan_text(plan) for plan in plans[:50])


def _table(bins: tuple[Bin, ...]) -> Table:
    rows = tuple(
        (
            f"{one.at_s:.1f}",
            plan_text(one.last.plan),
            rate(one.per_s),
            NONE if one.wait_share is None else percent(one.wait_share),
        )
        for one in bins
    )
    return Table(tuple(say(f"report.{key}") for key in ("axis_time", "plan", "rate", "wait")), rows, words=(0, 1))
