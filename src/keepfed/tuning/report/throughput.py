"""Throughput and waiting against the number of workers, with the path that the search took through them.

```
 ▲ batches/s                ● chosen
 │          1 ●────────── 2 ●┈┈┈┈┈┈┈┈○ 3     solid: kept, dashed: tried and not kept
 │           ╱
 │  start ■─╱
 └────────────────────────────────────▶ workers
```
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, plan_text, rate, seconds_text, size
from keepfed.tuning.report.axes import Axis, around, rates_axis, tick_text
from keepfed.tuning.report.marks import Dot, Figure, Key, Label, Line, Mark, Panel, Table, Tick, Trace
from keepfed.tuning.report.reading import Loader, Move, Point

HEIGHT = 240.0
_LINE = 14.0
"""Height of a line of small text."""

MOST_STEPS = 12
"""A path of more moves than this is a tangle; the timeline and the list of moves have it."""

MOST_SERIES = 6
"""Lines of more prefetch factors than this cannot be told apart; then there are only points."""


def throughput(loader: Loader, search: str) -> Figure | None:
    """The figure; None where fewer than two plans were measured, which are no curve."""
    points = loader.points
    if len(points) < 2:
        return None
    workers = [point.plan.num_workers for point in points]
    across = around(min(workers), max(workers))
    walked = bool(_judged(loader)) and len(_judged(loader)) <= MOST_STEPS and search != "exhaustive"
    series = () if walked else _series(points)
    panels = (_rates(loader, across, series, walked=walked), _waits(loader, across))
    caption = say("report.throughput_caption")
    if walked:
        caption = say("report.and_then", first=caption, second=say("report.path_caption"))
    return Figure(
        "throughput",
        say("report.throughput"),
        caption,
        panels=tuple(panel for panel in panels if panel.marks),
        keys=_keys(loader, walked=walked),
        table=_table(points),
        beside=True,
    )


def tone_of(loader: Loader, plan: Plan) -> str:
    """What a plan is in this search: chosen, start, dropped, or just measured."""
    if loader.after and plan == loader.after.plan:
        return "chosen"
    if loader.before and plan == loader.before.plan:
        return "start"
    return "dropped" if plan in {move.point.plan for move in loader.moves if not move.kept} else "measured"


def shape_of(tone: str) -> str:
    """Circles are plans of the search, the square is where it began."""
    return "square" if tone == "start" else "circle"


def _judged(loader: Loader) -> list[Move]:
    return [move for move in loader.moves if move.point.per_s > 0]


# ----------------------------------------------------------------------------------------------------------- the two plots


def _rates(loader: Loader, across: Axis, series: tuple[tuple[Point, ...], ...], *, walked: bool) -> Panel:
    up = rates_axis((point.per_s for point in loader.points), (point.high or 0.0 for point in loader.points))
    marks = _curves(series, across, up)
    if walked:
        marks += _path(loader, across, up)
    for point in loader.points:
        x = across.at(point.plan.num_workers)
        if point.low is not None and point.high is not None:
            ends = _down(up, point.low), _down(up, up.cut(point.high))
            marks.append(Line(x, ends[0], x, ends[1], f"{tone_of(loader, point.plan)} range"))
        marks.append(_dot(loader, point, x, _down(up, point.per_s)))
        if not series and point.plan in _other_prefetch(loader):
            name = say("report.series", prefetch=point.plan.prefetch_factor)
            anchor, aside = ("end", -9.0) if x > 80 else ("start", 9.0)
            marks.append(Label(x, _down(up, point.per_s) + 4, name, anchor, aside))
    named = [(across.at(point.plan.num_workers), _down(up, point.per_s), rate(point.per_s)) for point in _named(loader)]
    return Panel(
        say("report.axis_rate"),
        HEIGHT,
        _worker_ticks(across),
        tuple(Tick(_down(up, value), tick_text(value)) for value in up.ticks),
        (*marks, *_labels(named)),
        say("report.axis_workers"),
        _described(loader),
    )


def _waits(loader: Loader, across: Axis) -> Panel:
    known = [point for point in loader.points if point.wait_share is not None]
    up = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    marks = [_dot(loader, one, across.at(one.plan.num_workers), _down(up, one.wait_share or 0.0)) for one in known]
    named = [
        (across.at(point.plan.num_workers), _down(up, point.wait_share or 0.0), percent(point.wait_share))
        for point in _named(loader)
        if point.wait_share is not None
    ]
    said = (say("report.dot_wait", plan=plan_text(one.plan), wait=percent(one.wait_share)) for one in known)
    return Panel(
        say("report.axis_wait"),
        HEIGHT,
        _worker_ticks(across),
        tuple(Tick(_down(up, value), percent(value)) for value in up.ticks),
        (*marks, *_labels(named)),
        say("report.axis_workers"),
        say("report.list").join(said),
    )


def _dot(loader: Loader, point: Point, x: float, y: float) -> Dot:
    tone = tone_of(loader, point.plan)
    return Dot(x, y, tone, _title(point), shape_of(tone))


def _title(point: Point) -> str:
    title = say("report.dot", plan=plan_text(point.plan), rate=rate(point.per_s), wait=percent(point.wait_share))
    if point.low is None or point.high is None:
        return title
    return say("report.dot_range", dot=title, low=rate(point.low), high=rate(point.high))


def _described(loader: Loader) -> str:
    return say("report.list").join(_title(point) for point in loader.points)


def _named(loader: Loader) -> list[Point]:
    """The points that carry their number: the start and the choice. The others have it in the table."""
    return [point for point in loader.points if tone_of(loader, point.plan) in {"start", "chosen"}]


def _other_prefetch(loader: Loader) -> set[Plan]:
    """The plans that share their number of workers with another one and do not have the prefetch factor of the choice."""
    usual = loader.after.plan.prefetch_factor if loader.after else 2
    workers = Counter(point.plan.num_workers for point in loader.points)
    plans = (point.plan for point in loader.points)
    return {plan for plan in plans if workers[plan.num_workers] > 1 and plan.prefetch_factor != usual}


def _labels(named: list[tuple[float, float, str]]) -> list[Label]:
    """Above their points; the lower of two that are close stands below."""
    labels = []
    for x, y, text in named:
        crowded = any(
            abs(x - x2) < 25 and 0 <= y - y2 < 20 for x2, y2, text2 in named if (x2, y2, text2) != (x, y, text)
        )
        above = y > 24 and not crowded
        labels.append(Label(x, y - 12 if above else y + 22, text, _anchor(x), tone="value"))
    return labels


def _anchor(x: float) -> str:
    return "start" if x < 8 else "end" if x > 92 else "middle"


def _down(up: Axis, value: float) -> float:
    return HEIGHT * (1 - up.at(value) / 100)


def _worker_ticks(across: Axis) -> tuple[Tick, ...]:
    return tuple(Tick(across.at(value), f"{value:.0f}") for value in across.ticks)


# ------------------------------------------------------------------------------------------------------ the path, the curves


def _path(loader: Loader, across: Axis, up: Axis) -> list[Mark]:
    """From the plan in force to each plan tried; what was not kept is left again."""
    marks: list[Mark] = []
    numbers: dict[Plan, list[str]] = {}
    measured = {point.plan: point for point in loader.points}
    here = loader.before
    for number, move in enumerate(_judged(loader), 1):
        there = measured.get(move.point.plan, move.point)
        numbers.setdefault(there.plan, []).append(str(number))
        if here is not None and here.plan != there.plan:
            here = measured.get(here.plan, here)
            tone = "path" if move.kept else "path-dropped"
            ends = (across.at(here.plan.num_workers), _down(up, here.per_s))
            marks.append(Line(*ends, across.at(there.plan.num_workers), _down(up, there.per_s), tone))
        if move.kept:
            here = there
    for plan, tried in numbers.items():
        point = measured.get(plan)
        if point is not None:
            low = _down(up, min(point.per_s, point.low or point.per_s))
            marks.append(Label(across.at(plan.num_workers), low + 20, ", ".join(tried), tone="step"))
    return marks


def _series(points: tuple[Point, ...]) -> tuple[tuple[Point, ...], ...]:
    """The points by prefetch factor, where each of them was tried with several numbers of workers."""
    ordered = sorted(points, key=lambda point: (point.plan.prefetch_factor, point.plan.num_workers))
    groups = [tuple(group) for _, group in groupby(ordered, key=lambda point: point.plan.prefetch_factor)]
    curves = tuple(group for group in groups if len(group) > 1)
    return curves if len(curves) <= MOST_SERIES else ()


def _curves(series: tuple[tuple[Point, ...], ...], across: Axis, up: Axis) -> list[Mark]:
    """A line per prefetch factor, named at its right end; names that would lie on each other are pushed apart."""
    marks: list[Mark] = []
    floor = -_LINE
    for points in sorted(series, key=lambda points: -points[-1].per_s):
        places = tuple((across.at(point.plan.num_workers), _down(up, point.per_s)) for point in points)
        floor = max(floor + _LINE, places[-1][1] + 4)
        name = say("report.series", prefetch=points[-1].plan.prefetch_factor)
        marks += [Trace(places, "series"), Label(places[-1][0], floor, name, "start", 10, "series")]
    return marks


def _keys(loader: Loader, *, walked: bool) -> tuple[Key, ...]:
    tones = {tone_of(loader, point.plan) for point in loader.points}
    chosen = "report.key_chosen" if loader.settled else "report.key_best"
    words = {
        "start": "report.key_start",
        "chosen": chosen,
        "measured": "report.key_measured",
        "dropped": "report.key_dropped",
    }
    keys = [Key(tone, shape_of(tone), say(key)) for tone, key in words.items() if tone in tones]
    if any(point.low is not None for point in loader.points):
        keys.append(Key("measured range", "upright", say("report.key_range")))
    if walked:
        kept = {move.kept for move in _judged(loader)}
        keys += [Key("path", "line", say("report.key_path"))] if True in kept else []
        keys += [Key("path-dropped", "dashed", say("report.key_path_dropped"))] if False in kept else []
    return tuple(keys)


def _table(points: tuple[Point, ...]) -> Table:
    keys = ("plan", "rate", "range", "wait", "windows", "measured_for", "memory", "cpu_per_batch")
    rows = tuple(
        (
            plan_text(point.plan),
            rate(point.per_s),
            NONE if point.low is None or point.high is None else f"{rate(point.low)} – {rate(point.high)}",
            percent(point.wait_share),
            NONE if point.windows is None else str(point.windows),
            NONE if point.seconds is None else seconds_text(point.seconds),
            size(int(point.memory_bytes or 0)),
            NONE if point.cpu_s_per_batch is None else say("report.n_seconds", seconds=rate(point.cpu_s_per_batch)),
        )
        for point in points
    )
    return Table(tuple(say(f"report.{key}") for key in keys), rows)
