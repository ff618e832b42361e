"""The values of a sweep: a bar each for what they are compared by, and all that was measured beside it."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, rate, seconds_text, short_time, size, unit_text
from keepfed.tuning.report.axes import Axis, from_zero, rates_axis, tick_text
from keepfed.tuning.report.marks import ROW_HEIGHT, Bar, Figure, Key, Line, Mark, Row, Table, Tick
from keepfed.tuning.report.records import Sweep, Trial

MOST_ROWS = 100
"""Bars that are drawn; a sweep of more values says so in the caption."""


def sweep(found: Sweep) -> Figure:
    """A bar per value: as long as its rate, or as its epoch or run where values are compared by these."""
    shown = found.trials[:MOST_ROWS]
    unit = unit_text(next((trial.unit for trial in shown if trial.rate), "")) if found.compared_by == "rate" else "s"
    axis = _axis(found, shown)
    repeated = any(trial.low is not None for trial in shown) and found.compared_by == "rate"
    return Figure(
        "sweep",
        say("report.sweep"),
        _caption(found, len(shown), repeated=repeated),
        rows=tuple(_row(found, trial, axis) for trial in shown),
        row_ticks=tuple(Tick(axis.at(value), tick_text(value)) for value in axis.ticks),
        row_unit=unit,
        keys=(Key("runs", "line", say("report.key_runs")),) if repeated else (),
        table=_table(shown),
    )


def _length(found: Sweep, trial: Trial) -> float | None:
    if found.compared_by == "rate":
        return trial.rate
    return trial.epoch_s if found.compared_by == "epoch" else trial.seconds


def _axis(found: Sweep, trials: tuple[Trial, ...]) -> Axis:
    lengths = [_length(found, trial) or 0.0 for trial in trials]
    if found.compared_by != "rate":
        return from_zero(max(lengths))
    return rates_axis(lengths, (trial.high or 0.0 for trial in trials))


def _caption(found: Sweep, shown: int, *, repeated: bool) -> str:
    caption = say(f"report.sweep_by_{found.compared_by}")
    if found.band is not None:
        band = say("sweep.note_repeated" if repeated else "sweep.note_single", band=percent(found.band))
        caption = say("report.and_then", first=caption, second=band)
    if shown < len(found.trials):
        caption = say("report.first_of", caption=caption, shown=shown, count=len(found.trials))
    return caption


def _row(found: Sweep, trial: Trial, axis: Axis) -> Row:
    length = None if trial.failed else _length(found, trial)
    if not length:
        return Row(trial.value, _what(trial), ())
    said = f"{rate(length)} {unit_text(trial.unit)}" if found.compared_by == "rate" else seconds_text(length)
    if trial.value in found.equal and len(found.equal) > 1:
        said = f"≈ {said}"
    tone = "chosen" if trial is found.chosen else "measured"
    marks: list[Mark] = [Bar(0.0, 2.0, axis.at(length), ROW_HEIGHT - 4, tone, said)]
    if found.compared_by == "rate" and trial.low is not None and trial.high is not None:
        middle = ROW_HEIGHT / 2
        marks.append(Line(axis.at(trial.low), middle, axis.at(axis.cut(trial.high)), middle, "runs"))
    return Row(trial.value, said, tuple(marks))


def _what(trial: Trial) -> str:
    """What became of a value that has no bar."""
    if trial.how == "not-started":
        return say("sweep.what_not_started")
    if trial.how == "interrupted":
        return say("sweep.cell_interrupted")
    return say("report.exit_code", code=trial.exit_code) if trial.failed else say("report.no_rate")


def _table(trials: tuple[Trial, ...]) -> Table:
    keys = ("value", "sweep_rate", "epoch", "run", "cpu_seconds", "cpu_per_batch", "peak_memory", "gpu_busy", "exit")
    rows = tuple(
        (
            trial.value,
            f"{rate(trial.rate)} {unit_text(trial.unit)}" if trial.rate else NONE,
            NONE if trial.epoch_s is None else seconds_text(trial.epoch_s),
            NONE if trial.seconds is None else seconds_text(trial.seconds),
            NONE if trial.cpu_s is None else rate(trial.cpu_s),
            NONE if trial.cpu_s_per_batch is None else short_time(trial.cpu_s_per_batch),
            size(int(trial.peak_pss_bytes or 0)),
            percent(trial.gpu_busy),
            NONE if trial.exit_code is None else str(trial.exit_code),
        )
        for trial in trials
    )
    return Table(tuple(say(f"report.{key}") for key in keys), rows)
