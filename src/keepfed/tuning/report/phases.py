"""Where a sample's time goes inside a worker: a bar per phase, none of them stacked, all from zero."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, short_time
from keepfed.tuning.report.axes import Axis, from_zero, tick_text
from keepfed.tuning.report.marks import ROW_HEIGHT, Bar, Figure, Row, Table, Tick
from keepfed.tuning.report.records import Loader, Phases


def phases(loader: Loader) -> Figure | None:
    """The figure; None where no times were taken inside the workers."""
    known = loader.phases
    if known is None:
        return None
    total_s = sum(seconds for _, seconds in known.seconds)
    axis = from_zero(max(seconds for _, seconds in known.seconds))
    rows, cells = [], []
    for name, seconds in known.seconds:
        label, share = say(f"report.phase_{name}"), percent(seconds / total_s)
        sample = short_time(seconds / loader.batch_size) if loader.batch_size else NONE
        key = "report.in_batch_and_sample" if loader.batch_size else "report.in_batch"
        said = say(key, batch=short_time(seconds), sample=sample, share=share)
        rows.append(Row(label, said, (Bar(0.0, 2.0, axis.at(seconds), ROW_HEIGHT - 4, "measured", said),)))
        cells.append((label, short_time(seconds), sample, share))
    head = tuple(say(f"report.{key}") for key in ("phase", "per_batch", "per_sample", "share"))
    return Figure(
        "phases",
        say("report.phases"),
        _caption(known, total_s),
        rows=tuple(rows),
        row_ticks=_ticks(axis),
        row_unit=say("report.per_batch"),
        table=Table(head, tuple(cells)),
    )


def _caption(known: Phases, total_s: float) -> str:
    caption = say("report.phases_caption", total=short_time(total_s), count=known.batches or NONE)
    if known.cpu_s is None:
        return caption
    idle_s = max(0.0, total_s - known.cpu_s)
    queued_s = min(idle_s, known.queued_s or 0.0)  # counted for the whole worker, so it may be more than that
    key = "report.phases_cpu" if known.queued_s is None else "report.phases_queued"
    parts = {"cpu": known.cpu_s, "queued": queued_s, "waited": idle_s - queued_s}
    said = say(key, **{name: short_time(seconds) if seconds else "0 s" for name, seconds in parts.items()})
    return say("report.and_then", first=caption, second=said)


def _ticks(axis: Axis) -> tuple[Tick, ...]:
    """All in the unit that fits the end of the axis."""
    factor, unit = (1.0, "s") if axis.high >= 1 else (1e3, "ms") if axis.high >= 1e-3 else (1e6, "µs")
    return tuple(Tick(axis.at(value), f"{tick_text(value * factor)} {unit}") for value in axis.ticks)
