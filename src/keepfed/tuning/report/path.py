"""What each plan was to the search, and the way that the search took through the plans."""

from __future__ import annotations

from itertools import groupby

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.report.axes import Plane
from keepfed.tuning.report.marks import Label, Line, Mark, Trace
from keepfed.tuning.report.records import Loader, Move, Point

MOST_STEPS = 12
"""A path of more moves than this is a tangle; the timeline and the list of moves have it."""

_MOST_SERIES = 6
"""Lines of more prefetch factors than this cannot be told apart; then there are only points."""

_LINE = 14.0
"""Height of a line of small text, in pixels."""


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


def judged(loader: Loader) -> list[Move]:
    """The moves that came to a measurement, in order: their places in this list are their numbers on the page, from 1."""
    return [move for move in loader.moves if move.point.per_s > 0]


def is_walked(loader: Loader) -> bool:
    """Whether there is a path that can be drawn."""
    return 0 < len(judged(loader)) <= MOST_STEPS


def path(loader: Loader, plane: Plane) -> list[Mark]:
    """From the plan in force to each plan tried; what was not kept is left again."""
    marks: list[Mark] = []
    numbers: dict[Plan, list[str]] = {}
    measured = {point.plan: point for point in loader.points}
    here = loader.before
    for number, move in enumerate(judged(loader), 1):
        there = measured.get(move.point.plan, move.point)
        numbers.setdefault(there.plan, []).append(str(number))
        if here is not None and here.plan != there.plan:
            marks.append(_step(measured.get(here.plan, here), there, plane, kept=move.kept))
        if move.kept:
            here = there
    return [*marks, *_numbers(numbers, measured, plane)]


def _step(here: Point, there: Point, plane: Plane, *, kept: bool) -> Line:
    start, end = ((plane.x(point.plan.num_workers), plane.y(point.per_s)) for point in (here, there))
    return Line(*start, *end, "path" if kept else "path-dropped")


def _numbers(numbers: dict[Plan, list[str]], measured: dict[Plan, Point], plane: Plane) -> list[Label]:
    """Below the point and its interval."""
    return [
        Label(plane.x(plan.num_workers), plane.y(point.low or point.per_s) + 20, ", ".join(tried), tone="step")
        for plan, tried in numbers.items()
        if (point := measured.get(plan))
    ]


def curves(points: tuple[Point, ...]) -> tuple[tuple[Point, ...], ...]:
    """The points by prefetch factor, where each of them was tried with several numbers of workers."""
    ordered = sorted(points, key=lambda point: (point.plan.prefetch_factor, point.plan.num_workers))
    groups = [tuple(group) for _, group in groupby(ordered, key=lambda point: point.plan.prefetch_factor)]
    found = tuple(group for group in groups if len(group) > 1)
    return found if len(found) <= _MOST_SERIES else ()


def drawn_curves(series: tuple[tuple[Point, ...], ...], plane: Plane) -> list[Mark]:
    """A line per prefetch factor, named at its right end; names that would lie on each other are pushed apart."""
    marks: list[Mark] = []
    lowest = -_LINE
    for points in sorted(series, key=lambda points: -points[-1].per_s):
        places = tuple((plane.x(point.plan.num_workers), plane.y(point.per_s)) for point in points)
        lowest = max(lowest + _LINE, places[-1][1] + 4)
        name = say("report.series", prefetch=points[-1].plan.prefetch_factor)
        marks += [Trace(places, "series"), Label(places[-1][0], lowest, name, "start", 10, "series")]
    return marks
