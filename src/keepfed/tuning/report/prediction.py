"""What was predicted for each plan before it was tried, beside what was then measured."""

from __future__ import annotations

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import plan_text, rate
from keepfed.tuning.report.axes import rates_axis, tick_text
from keepfed.tuning.report.marks import ROW_HEIGHT, Dot, Figure, Key, Line, Mark, Row, Table, Tick
from keepfed.tuning.report.records import Loader, Point

MOST_ROWS = 60
"""Plans that are drawn, those with the largest errors first to stay."""


def prediction(loader: Loader) -> Figure | None:
    """A row per plan of which both are known; None without any."""
    pairs = [(point, guess) for point in loader.points if point.per_s > 0 and (guess := _guess(loader, point))]
    if not pairs:
        return None
    worst = sorted(pairs, key=lambda pair: -abs(_error(*pair)))[:MOST_ROWS]
    shown = [pair for pair in pairs if pair in worst]
    axis = rates_axis((max(point.per_s, guess) for point, guess in shown), (point.high or 0.0 for point, _ in shown))
    middle = ROW_HEIGHT / 2
    rows = []
    for point, guess in shown:
        marks: list[Mark] = [Line(axis.at(guess), middle, axis.at(point.per_s), middle, "gap")]
        if point.low is not None and point.high is not None:
            marks.append(Line(axis.at(point.low), middle, axis.at(axis.cut(point.high)), middle, "measured range"))
        said = _said(point, guess)
        marks.append(Dot(axis.at(point.per_s), middle, "measured", said))
        marks.append(Dot(axis.at(guess), middle, "predicted", said, "diamond"))
        rows.append(Row(plan_text(point.plan), said, tuple(marks)))
    mean = sum(abs(_error(*pair)) for pair in pairs) / len(pairs)
    return Figure(
        "prediction",
        say("report.prediction"),
        say("report.prediction_caption", error=f"{mean:.0%}", count=len(pairs)),
        rows=tuple(rows),
        row_ticks=tuple(Tick(axis.at(value), tick_text(value)) for value in axis.ticks),
        row_unit=say("report.axis_rate"),
        keys=(
            Key("measured", "circle", say("report.key_measured")),
            Key("predicted", "diamond", say("report.key_predicted")),
        ),
        table=_table(pairs),
    )


def _guess(loader: Loader, point: Point) -> float | None:
    """The prediction that stands at the point, or else at the first move that tried its plan."""
    if point.predicted_per_s:
        return point.predicted_per_s
    return _of_moves(loader).get(point.plan)


def _of_moves(loader: Loader) -> dict[Plan, float]:
    return {
        move.point.plan: move.point.predicted_per_s for move in reversed(loader.moves) if move.point.predicted_per_s
    }


def _error(point: Point, guess: float) -> float:
    return (guess - point.per_s) / point.per_s


def _signed(error: float) -> str:
    """With a minus sign as wide as the plus."""
    return f"{error:+.0%}".replace("-", "\u2212")


def _said(point: Point, guess: float) -> str:
    return say(
        "report.predicted_measured",
        predicted=rate(guess),
        measured=rate(point.per_s),
        error=_signed(_error(point, guess)),
    )


def _table(pairs: list[tuple[Point, float]]) -> Table:
    head = tuple(say(f"report.{key}") for key in ("plan", "predicted", "measured", "error"))
    rows = tuple(
        (plan_text(point.plan), rate(guess), rate(point.per_s), _signed(_error(point, guess))) for point, guess in pairs
    )
    return Table(head, rows)
