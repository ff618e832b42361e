"""The values of a sweep: one bar each, and all that was measured beside it."""

from __future__ import annotations

from collections.abc import Callable

from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, rate, seconds_text, size
from keepfed.tuning.report.axes import from_zero, tick_text
from keepfed.tuning.report.marks import ROW_HEIGHT, Bar, Figure, Row, Table, Tick
from keepfed.tuning.report.records import Trial

MOST_ROWS = 100
"""Bars that are drawn; a sweep of more values is named in the caption."""


def fastest(trials: tuple[Trial, ...]) -> Trial | None:
    """The value with the highest rate of the runs that did not fail; None if no run told one."""
    told = [trial for trial in trials if trial.rate and trial.exit_code in {None, 0}]
    return max(told, key=lambda trial: trial.rate or 0.0, default=None)


def sweep(trials: tuple[Trial, ...]) -> Figure | None:
    """A bar per value as long as its rate, or as its run where no run told a rate."""
    shown = trials[:MOST_ROWS]
    if not shown:
        return None
    if any(trial.rate for trial in shown):
        rows, ticks = _bars(shown, lambda trial: trial.rate, lambda trial: f"{rate(trial.rate or 0.0)} {trial.unit}")
        caption, unit = say("report.sweep_caption"), next(trial.unit for trial in shown if trial.rate)
    else:
        rows, ticks = _bars(shown, lambda trial: trial.seconds, lambda trial: seconds_text(trial.seconds or 0.0))
        caption, unit = say("report.sweep_seconds_caption"), say("report.seconds")
    if len(trials) > len(shown):
        caption = say("report.first_of", caption=caption, shown=len(shown), count=len(trials))
    return Figure("sweep", say("report.sweep"), caption, rows=rows, row_ticks=ticks, row_unit=unit, table=_table(shown))


def _bars(
    trials: tuple[Trial, ...], length: Callable[[Trial], float | None], text: Callable[[Trial], str]
) -> tuple[tuple[Row, ...], tuple[Tick, ...]]:
    axis = from_zero(max(length(trial) or 0.0 for trial in trials))
    best = fastest(trials)
    rows = []
    for trial in trials:
        value, tone = length(trial), "chosen" if trial is best else "measured"
        bars = (Bar(0.0, 2.0, axis.at(value), ROW_HEIGHT - 4, tone, text(trial)),) if value else ()
        parts = [text(trial) if value else say("report.no_rate"), _failed(trial)]
        rows.append(Row(trial.value, say("report.list").join(part for part in parts if part), bars))
    return tuple(rows), tuple(Tick(axis.at(value), tick_text(value)) for value in axis.ticks)


def _failed(trial: Trial) -> str:
    return "" if trial.exit_code in {None, 0} else say("report.exit_code", code=trial.exit_code)


def _table(trials: tuple[Trial, ...]) -> Table:
    keys = ("value", "sweep_rate", "seconds", "cpu_seconds", "peak_memory", "gpu_busy", "exit", "how")
    rows = tuple(
        (
            trial.value,
            f"{rate(trial.rate)} {trial.unit}".strip() if trial.rate else NONE,
            NONE if trial.seconds is None else rate(trial.seconds),
            NONE if trial.cpu_s is None else rate(trial.cpu_s),
            size(int(trial.peak_pss_bytes or 0)),
            percent(trial.gpu_busy),
            NONE if trial.exit_code is None else str(trial.exit_code),
            trial.how or NONE,
        )
        for trial in trials
    )
    return Table(tuple(say(f"report.{key}") for key in keys), rows, words=(0, 7))
