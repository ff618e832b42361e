"""All loaders in one table, in the order of their sections."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import NONE, arrow, percent, rate
from keepfed.tuning.report.headline import gain_text
from keepfed.tuning.report.marks import Table
from keepfed.tuning.report.records import Loader

_MOST_ROWS = 250
"""Loaders that are named; the page says how many stand without pictures."""


def overview(loaders: tuple[Loader, ...]) -> Table:
    """A row per loader."""
    head = tuple(say(f"report.{key}") for key in ("loader", "state", "workers", "rate", "gain", "wait"))
    rows = tuple(_row(loader) for loader in loaders[:_MOST_ROWS])
    return Table(head, rows, words=(0, 1))


def _row(loader: Loader) -> tuple[str, ...]:
    before, after = loader.before, loader.after
    state = say("report.settled" if loader.settled else "report.unsettled")
    name = loader.name if len(loader.name) <= 120 else f"…{loader.name[-119:]}"
    if before is None or after is None:
        return (name, state, NONE, NONE, NONE, NONE)
    gain = gain_text(before, after)
    return (
        name,
        state,
        arrow(str(before.plan.num_workers), str(after.plan.num_workers)),
        arrow(rate(before.per_s), rate(after.per_s)),
        f"{gain}×" if gain else NONE,
        arrow(percent(before.wait_share), percent(after.wait_share)),
    )
