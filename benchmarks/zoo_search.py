"""How a search went, from the records that the loader itself wrote into its run folder (`keepfed.events`, one JSON line each).

Changes of plan are counted where windows show them, and not where moves are reported: a move is reported once it is judged,
while the way back to the best plan, and a second look at it, are changes of plan as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Search:
    """From the first `iter()` until the plan settled for the first time."""

    settled: bool
    seconds: float | None
    """Until it settled; None if it did not."""
    windows: int
    """Measured until then."""
    batches: int
    """Delivered in them."""
    moves: int
    """Changes of plan until then."""
    plan: tuple[int, int] | None
    """Workers and prefetch factor that it settled on, or had at the end."""
    limited_by: str
    later_moves: int
    """Changes of plan after that, as far as the run was watched: to no workers at an epoch's end, or after a change of load."""
    later_s: float | None
    """Until it had settled for the last time; None if it did not."""
    predictions: tuple[tuple[float, float], ...]
    """Batches per second that the model had predicted for a plan, and those that were then measured."""


def records_in(folder: Path) -> list[Record]:
    """Every record of the run, in the order of time; a half line at the end of a file waits."""
    found = []
    for file in sorted(folder.glob("events-*.jsonl")):
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        found += [json.loads(line) for line in whole.split("\n") if line]
    return sorted(found, key=lambda record: record["time_s"])


def search_in(records: Sequence[Record], began_s: float) -> Search:
    """The first search of the only loader of a program whose first `iter()` was at `began_s` (unix seconds)."""
    settlings = [record for record in records if record["event"] == "settled"]
    settled = settlings[0] if settlings else None
    until = records if settled is None else records[: records.index(settled)]
    windows = windows_of(until)
    return Search(
        settled=settled is not None,
        seconds=None if settled is None else settled["time_s"] - began_s,
        windows=len(windows),
        batches=sum(window["batches"] for window in windows),
        moves=changes_of_plan(windows),
        plan=_plan(settled or (windows[-1] if windows else None)),
        limited_by="" if settled is None else settled["limited_by"],
        later_moves=changes_of_plan(windows_of(records)) - changes_of_plan(windows),
        later_s=settlings[-1]["time_s"] - began_s if settlings else None,
        predictions=tuple(predictions_in(until)),
    )


def windows_of(records: Iterable[Record]) -> list[Record]:
    """The windows among them."""
    return [record for record in records if record["event"] == "window"]


def changes_of_plan(windows: Sequence[Record]) -> int:
    """How often the plan changed between these windows."""
    return sum(before["plan"] != after["plan"] for before, after in pairwise(windows))


def predictions_in(records: Iterable[Record]) -> list[tuple[float, float]]:
    """What was predicted for the plans that were judged, and what was measured."""
    judged = (record for record in records if record["event"] == "moved")
    pairs = ((record.get("predicted_batches_per_s") or 0.0, record["batches_per_s"]) for record in judged)
    return [(predicted, measured) for predicted, measured in pairs if predicted > 0 and measured > 0]


def _plan(record: Record | None) -> tuple[int, int] | None:
    return None if record is None else (record["plan"]["num_workers"], record["plan"]["prefetch_factor"])
