"""Where a sample's time goes inside a worker: a bar per phase, none of them stacked, all from zero."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import NONE
from keepfed.tuning.report.axes import from_zero
from keepfed.tuning.report.durations import duration_ticks, short_duration
from keepfed.tuning.report.marks import ROW_HEIGHT, Bar, Figure, Row, Table
from keepfed.tuning.report.records import Loader


def phases(loader: Loader) -> Figure | None:
    """The figure; None where no times were taken inside the workers."""
    known = loader.phases
    if known is None:
        return None
    total = sum(seconds for _, seconds in known.seconds)
    axis = from_zero(max(seconds for _, seconds in known.seconds))
    whole_access = "transform" not in dict(known.seconds)
    rows, cells = [], []
    for name, seconds in known.seconds:
        label = say("report.phase_access" if name == "fetch" and whole_access else f"report.phase_{name}")
        said = _said(seconds, seconds / total, loader.batch_size)
        rows.append(Row(label, said, (Bar(0.0, 2.0, axis.at(seconds), ROW_HEIGHT - 4, "measured", said),)))
        per_sample = short_duration(seconds / loader.batch_size) if loader.batch_size else NONE
        cells.append((label, short_duration(seconds), per_sample, f"{seconds / total:.1%}"))
    caption = say("report.phases_caption", total=short_duration(total), count=known.batches or NONE)
    head = tuple(say(f"report.{key}") for key in ("phase", "per_batch", "per_sample", "share"))
    return Figure(
        "phases",
        say("report.phases"),
        caption,
        rows=tuple(rows),
        row_ticks=duration_ticks(axis),
        row_unit=say("report.per_batch"),
        table=Table(head, tuple(cells)),
    )


def _said(seconds: float, share: float, batch_size: int | None) -> str:
    if not batch_size:
        return say("report.phase_batch", batch=short_duration(seconds), share=f"{share:.0%}")
    sample = short_duration(seconds / batch_size)
    return say("report.phase_sample", batch=short_duration(seconds), sample=sample, share=f"{share:.0%}")
