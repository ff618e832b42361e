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

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, plan_text, rate, seconds_text, short_time, size
from keepfed.tuning.report.axes import Axis, Plane, around, rates_axis, tick_text
from keepfed.tuning.report.marks import Dot, Figure, Key, Label, Line, Mark, Panel, Table, Tick
from keepfed.tuning.report.path import curves, drawn_curves, is_walked, judged, path, shape_of, tone_of
from keepfed.tuning.report.records import Loader, Point

HEIGHT = 240.0


def throughput(loader: Loader) -> Figure | None:
    """The figure; None where fewer than two plans were measured, which are no curve."""
    if len(loader.points) < 2:
        return None
    workers = [point.plan.num_workers for point in loader.points]
    across = around(min(workers), max(workers))
    walked = is_walked(loader)
    panels = (_rates(loader, across, walked=walked), _waits(loader, across))
    return Figure(
        "throughput",
        say("report.throughput"),
        _caption(loader, walked=walked),
        panels=tuple(panel for panel in panels if panel.marks),
        keys=_keys(loader, walked=walked),
        table=_table(loader.points),
        beside=True,
    )


def _caption(loader: Loader, *, walked: bool) -> str:
    caption = say("report.throughput_caption")
    if walked:
        caption = say("report.and_then", first=caption, second=say("report.path_caption"))
    if loader.stall_share is not None:
        idle = say("report.gpu_caption", idle=percent(loader.stall_share))
        caption = say("report.and_then", first=caption, second=idle)
    return caption


# ----------------------------------------------------------------------------------------------------------- the two plots


def _rates(loader: Loader, across: Axis, *, walked: bool) -> Panel:
    up = rates_axis((point.per_s for point in loader.points), (point.high or 0.0 for point in loader.points))
    plane = Plane(across, up, HEIGHT)
    series = () if walked else curves(loader.points)
    marks = path(loader, plane) if walked else drawn_curves(series, plane)
    for point in _named_last(loader):
        marks += _interval(loader, point, plane)
        marks.append(_dot(loader, point, plane, point.per_s))
    if not series:
        marks += _other_prefetch(loader, plane)
    named = [(point, rate(point.per_s), plane.y(point.per_s)) for point in _named(loader)]
    return Panel(
        say("report.axis_rate"),
        HEIGHT,
        _worker_ticks(across),
        tuple(Tick(plane.y(value), tick_text(value)) for value in up.ticks),
        (*marks, *_labels(named, plane)),
        say("report.axis_workers"),
        say("report.list").join(_title(point) for point in loader.points),
    )


def _waits(loader: Loader, across: Axis) -> Panel:
    plane = Plane(across, Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)), HEIGHT)
    known = [(point, point.wait_share) for point in _named_last(loader) if point.wait_share is not None]
    marks = [_dot(loader, point, plane, share) for point, share in known]
    named = [(point, percent(share), plane.y(share)) for point, share in known if point in _named(loader)]
    said = (say("report.dot_wait", plan=plan_text(point.plan), wait=percent(share)) for point, share in known)
    return Panel(
        say("report.axis_wait"),
        HEIGHT,
        _worker_ticks(across),
        tuple(Tick(plane.y(value), percent(value)) for value in plane.up.ticks),
        (*marks, *_labels(named, plane)),
        say("report.axis_workers"),
        say("report.list").join(said),
    )


def _dot(loader: Loader, point: Point, plane: Plane, value: float) -> Dot:
    tone = tone_of(loader, point.plan)
    return Dot(plane.x(point.plan.num_workers), plane.y(value), tone, _title(point), shape_of(tone))


def _interval(loader: Loader, point: Point, plane: Plane) -> list[Mark]:
    if point.low is None or point.high is None:
        return []
    x = plane.x(point.plan.num_workers)
    return [Line(x, plane.y(point.low), x, plane.y(point.high), f"{tone_of(loader, point.plan)} range")]


def _title(point: Point) -> str:
    title = say("report.dot", plan=plan_text(point.plan), rate=rate(point.per_s), wait=percent(point.wait_share))
    if point.low is None or point.high is None:
        return title
    return say("report.dot_range", dot=title, low=rate(point.low), high=rate(point.high))


def _other_prefetch(loader: Loader, plane: Plane) -> list[Label]:
    """Names the plans that share their number of workers with another one and have not the prefetch factor of the choice."""
    usual = loader.after.plan.prefetch_factor if loader.after else Plan(0).prefetch_factor
    workers = Counter(point.plan.num_workers for point in loader.points)
    labels = []
    for point in loader.points:
        if workers[point.plan.num_workers] > 1 and point.plan.prefetch_factor != usual:
            x = plane.x(point.plan.num_workers)
            name = say("report.series", prefetch=point.plan.prefetch_factor)
            anchor, aside = ("end", -9.0) if x > 80 else ("start", 9.0)
            labels.append(Label(x, plane.y(point.per_s) + 4, name, anchor, aside))
    return labels


def _named(loader: Loader) -> list[Point]:
    """The points that carry their number: the start and the choice. The others have it in the table."""
    return [point for point in loader.points if tone_of(loader, point.plan) in {"start", "chosen"}]


def _named_last(loader: Loader) -> list[Point]:
    """All points, so that those of the start and the choice lie on top."""
    return sorted(loader.points, key=lambda point: point in _named(loader))


def _labels(named: list[tuple[Point, str, float]], plane: Plane) -> list[Label]:
    """Above their points; the lower of two that are close stands below."""
    places = [(plane.x(point.plan.num_workers), y, text) for point, text, y in named]
    labels = []
    for x, y, text in places:
        crowded = any(abs(x - other) < 25 and 0 <= y - height < 20 for other, height, _ in places if other != x)
        above = y > 24 and not crowded
        # There is room at the right end of a plot; at the left one the numbers of the axis begin.
        anchor, aside = ("start", 7.0) if x < 8 else ("middle", 0.0)
        labels.append(Label(x, y - 12 if above else y + 22, text, anchor, aside, tone="value"))
    return labels


def _worker_ticks(across: Axis) -> tuple[Tick, ...]:
    return tuple(Tick(across.at(value), tick_text(value)) for value in across.ticks)


# ----------------------------------------------------------------------------------------------------- legend and numbers


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
        kept = {move.kept for move in judged(loader)}
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
            NONE if point.cpu_s_per_batch is None else short_time(point.cpu_s_per_batch),
        )
        for point in points
    )
    return Table(tuple(say(f"report.{key}") for key in keys), rows)
