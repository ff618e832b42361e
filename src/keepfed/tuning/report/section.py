"""One loader on the page: what was found, the numbers before and after, its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, plan_text, rate, seconds_text, short_time, size
from keepfed.tuning.report.factors import finals, offers
from keepfed.tuning.report.headline import loader_sentence
from keepfed.tuning.report.marks import Figure, Table
from keepfed.tuning.report.path import judged
from keepfed.tuning.report.phases import phases
from keepfed.tuning.report.prediction import prediction
from keepfed.tuning.report.records import Loader, Point
from keepfed.tuning.report.throughput import throughput
from keepfed.tuning.report.timeline import timeline

_MOST_MOVES = 100
"""Moves in the list of a loader."""

_MOST_LIFTS = 20
"""Sentences about what would lift the limit."""


@dataclass(frozen=True, slots=True)
class Section:
    """One loader on the page."""

    anchor: str
    """Where links to it lead."""

    name: str
    """The loader."""

    sentence: str
    """What was found for it; empty where the headline has said it."""

    details: tuple[tuple[str, str], ...]
    """What else is to be said in a line each: label and words."""

    before_after: Table | None
    """The two plans."""

    lifts: tuple[str, ...]
    """What would lift the limit."""

    figures: tuple[Figure, ...]
    """The pictures."""

    moves: Table | None
    """The path in words."""


def section_of(loader: Loader, anchor: str, *, headed: bool, most_bins: int) -> Section:
    """Everything about one loader. `headed`: the headline of the page has said its sentence; `most_bins`: dots over time."""
    figures = (
        throughput(loader),
        finals(loader),
        timeline(loader, most_bins),
        prediction(loader),
        phases(loader),
        offers(loader),
    )
    return Section(
        anchor,
        loader.name,
        "" if headed else loader_sentence(loader),
        _details(loader),
        _before_after(loader),
        loader.lifts[:_MOST_LIFTS],
        tuple(figure for figure in figures if figure is not None),
        _moves(loader),
    )


def _details(loader: Loader) -> tuple[tuple[str, str], ...]:
    limit = loader.reason or say(f"tune_report.limit_{loader.limited_by}")
    state = "tune_report.state_settled" if loader.settled else "tune_report.state_unsettled"
    known = {
        "report.why": loader.why,
        "report.limit": limit if loader.settled else "",
        "report.search": "" if loader.seconds is None else say(state, seconds=seconds_text(loader.seconds)),
        "report.batch": "" if loader.batch_size is None else say("report.n_samples", count=loader.batch_size),
        "report.dataset": loader.dataset,
        "report.built": loader.site,
    }
    return tuple((say(key), text) for key, text in known.items() if text)


def _before_after(loader: Loader) -> Table | None:
    before, after = loader.before, loader.after
    if before is None or after is None:
        return None
    measured = {point.plan: point for point in loader.points}
    ends = (before, after)
    memory = [size(int(_same(point, measured).memory_bytes or 0)) for point in ends]
    cpu = [_cpu(_same(point, measured)) for point in ends]
    lines = {
        "report.workers": [str(point.plan.num_workers) for point in ends],
        "report.prefetch": [_prefetch(point.plan) for point in ends],
        "report.rate": [rate(point.per_s) for point in ends],
        "report.wait": [percent(point.wait_share) for point in ends],
        "report.memory": memory,
        "report.cpu_per_batch": cpu,
        "report.gpu_idle": [NONE, percent(loader.stall_share)],
    }
    rows = tuple((say(key), *cells) for key, cells in lines.items() if set(cells) != {NONE})
    after_key = "tune_report.after" if loader.settled else "tune_report.best_so_far"
    if before.plan == after.plan:
        return Table(("", say("report.measured")), tuple((row[0], row[2]) for row in rows))
    return Table(("", say("tune_report.before" if loader.asked else "offline.first_guess"), say(after_key)), rows)


def _same(point: Point, measured: Mapping[Plan, Point]) -> Point:
    return measured.get(point.plan, point)


def _prefetch(plan: Plan) -> str:
    return str(plan.prefetch_factor) if plan.num_workers else NONE


def _cpu(point: Point) -> str:
    return NONE if point.cpu_s_per_batch is None else short_time(point.cpu_s_per_batch)


def _moves(loader: Loader) -> Table | None:
    moves = judged(loader)[:_MOST_MOVES]
    if not moves:
        return None
    head = tuple(say(f"report.{key}") for key in ("move", "plan", "verdict", "rate", "wait", "reason"))
    rows = tuple(
        (
            str(place),
            plan_text(move.point.plan),
            say("report.kept" if move.kept else "report.dropped"),
            rate(move.point.per_s),
            percent(move.point.wait_share),
            move.reason or NONE,
        )
        for place, move in enumerate(moves, 1)
    )
    return Table(head, rows, words=(0, 1, 2, 5))
