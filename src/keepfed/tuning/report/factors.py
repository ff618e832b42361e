"""What fresh processes have said: how many times faster each plan, or each change, was than the one it was paired with."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, plan_text, rate
from keepfed.tuning.report.axes import Axis, rates_axis, tick_text
from keepfed.tuning.report.marks import ROW_HEIGHT, Dot, Figure, Key, Line, Mark, Row, Table, Tick
from keepfed.tuning.report.records import Factor, Loader


def finals(loader: Loader) -> Figure | None:
    """The finalists of an exhaustive search against the plan that it had chosen; None where there was no final."""
    found = loader.finals
    if not found:
        return None
    chosen = loader.after.plan if loader.after else None
    labels = [NONE if final.plan is None else plan_text(final.plan) for final in found]
    tones = ["chosen" if final.plan == chosen else "measured" for final in found]
    head = tuple(say(f"report.{key}") for key in ("plan", "factor", "range", "rate", "wait"))
    rows = tuple(
        (label, f"{final.factor:.2f}×", _range(final), _rate(final), percent(final.wait_share))
        for label, final in zip(labels, found, strict=True)
    )
    return _figure("finals", labels, found, tones, Table(head, rows))


def offers(loader: Loader) -> Figure | None:
    """Changes that were tried one at a time and not switched on; None where none was."""
    found = loader.offers
    if not found:
        return None
    labels = [offer.text for offer in found]
    tones = ["chosen" if offer.faster else "measured" for offer in found]
    head = tuple(say(f"report.{key}") for key in ("change", "factor", "range", "verdict"))
    rows = tuple((offer.text, f"{offer.factor:.2f}×", _range(offer), _verdict(offer)) for offer in found)
    return _figure("offers", labels, found, tones, Table(head, rows, words=(0, 3)))


def _figure(name: str, labels: list[str], found: tuple[Factor, ...], tones: list[str], table: Table) -> Figure:
    axis = rates_axis((one.factor for one in found), (one.high or 0.0 for one in found))
    rows = [
        Row(label, _said(one), _marks(one, tone, axis)) for label, one, tone in zip(labels, found, tones, strict=True)
    ]
    return Figure(
        name,
        say(f"report.{name}"),
        say(f"report.{name}_caption"),
        rows=tuple(rows),
        row_ticks=tuple(Tick(axis.at(value), f"{tick_text(value)}×") for value in axis.ticks),
        row_unit=say("report.times_as_fast"),
        keys=(Key("measured range", "line", say("report.range")), Key("axis", "upright", say("report.key_equal"))),
        table=table,
    )


def _marks(one: Factor, tone: str, axis: Axis) -> tuple[Mark, ...]:
    middle = ROW_HEIGHT / 2
    marks: list[Mark] = [Line(axis.at(1.0), 0.0, axis.at(1.0), ROW_HEIGHT, "axis")]
    if one.low is not None and one.high is not None:
        marks.append(Line(axis.at(one.low), middle, axis.at(axis.cut(one.high)), middle, f"{tone} range"))
    return (*marks, Dot(axis.at(one.factor), middle, tone, _said(one)))


def _said(one: Factor) -> str:
    factor = f"{one.factor:.2f}×"
    if one.low is not None and one.high is not None:
        factor = say("offline.factor", factor=f"{one.factor:.2f}", low=f"{one.low:.2f}", high=f"{one.high:.2f}")
    if one.plan is None:
        return say("report.list").join((_verdict(one), factor))
    return factor if one.per_s is None else say("report.list").join((_rate(one), factor))


def _verdict(one: Factor) -> str:
    return say("offline.faster" if one.faster else "offline.no_faster")


def _rate(one: Factor) -> str:
    return NONE if one.per_s is None else say("offline.batches_per_s", rate=rate(one.per_s))


def _range(one: Factor) -> str:
    return NONE if one.low is None or one.high is None else f"{one.low:.2f} – {one.high:.2f}"
