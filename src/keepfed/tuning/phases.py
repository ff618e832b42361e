"""Where a batch's time goes inside a worker: the reports of all windows of one plan, as means per batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keepfed.events import Breakdown
from keepfed.text import say
from keepfed.tuning.numbers import percent, short_time


@dataclass(frozen=True, slots=True)
class Phases:
    """Mean seconds per batch inside a worker, measured while all of them worked."""

    batches: int
    """Batches measured."""

    fetch_s: float
    """In the dataset: reading, decoding, transforming."""

    collate_s: float
    """In the collate function, which writes tensors straight into shared memory where it can."""

    copy_s: float
    """Bringing into shared memory what collation did not write there."""

    cpu_s: float
    """CPU time of all three."""

    trainer_cpu_s: float
    """CPU time of the training process per batch."""

    transform_s: float | None = None
    """Part of `fetch_s` in the dataset's transform; None where that cannot be told. Timed on samples of their own."""

    @property
    def work_s(self) -> float:
        """All three together."""
        return self.fetch_s + self.collate_s + self.copy_s

    @property
    def waited_s(self) -> float:
        """The part of it in which the worker did not compute: it waited, for storage, network or a core."""
        return max(0.0, self.work_s - self.cpu_s)

    def to_json(self) -> dict[str, Any]:
        """The object "phases" of `tune --json`."""
        parts = {"fetch_s": self.fetch_s, "collate_s": self.collate_s, "copy_s": self.copy_s, "cpu_s": self.cpu_s}
        own = None if self.transform_s is None else round(self.transform_s, 6)
        return {
            **{name: round(value, 6) for name, value in parts.items()},
            "transform_s": own,
            "trainer_cpu_s": round(self.trainer_cpu_s, 6),
            "batches": self.batches,
        }


def mean_phases(reports: Iterable[Breakdown]) -> Phases | None:
    """The means over these windows; None where no worker made anything."""
    found = list(reports)
    batches = sum(report.batches for report in found)
    if not batches:
        return None

    def mean(name: str) -> float:
        return max(0.0, sum(float(getattr(report, name)) for report in found) / batches)

    fetch_s = max(0.0, mean("wall_s") - mean("collate_s") - mean("copy_s") - mean("room_s"))
    own_s = sum(report.trainer_cpu_s * report.batches for report in found) / batches
    return Phases(batches, fetch_s, mean("collate_s"), mean("copy_s"), mean("cpu_s"), own_s)


def phases_text(phases: Phases) -> str:
    """In words: "152 ms in a worker: dataset 92%, collate 7%, copy 1%"."""
    work_s = max(phases.work_s, 1e-9)
    parts = [("fetch", phases.fetch_s), ("collate", phases.collate_s), ("copy", phases.copy_s)]
    said = (say(f"lift.phase_{name}", share=percent(seconds / work_s)) for name, seconds in parts)
    return say("lift.phases", time=short_time(work_s), parts=say("tune_report.list").join(said))
