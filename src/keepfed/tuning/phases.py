"""Where a batch's time goes inside a worker: the reports of all windows of one plan, as means per batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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

    queued_s: float | None = None
    """Seconds in which a worker could have computed and had no core; None where the kernel does not say."""

    transform_s: float | None = None
    """Part of `fetch_s` in the dataset's transform, decoding left out; None where that cannot be told."""

    decode_s: float | None = None
    """Part of `fetch_s` in a decoder that we know; None where none was called."""

    @property
    def work_s(self) -> float:
        """All three together."""
        return self.fetch_s + self.collate_s + self.copy_s

    @property
    def waited_s(self) -> float:
        """The part of it in which the worker neither computed nor wanted a core: it waited for storage or network."""
        return max(0.0, self.work_s - self.cpu_s - (self.queued_s or 0.0))

    @property
    def rest_s(self) -> float:
        """The part of `fetch_s` that is neither decoding nor the transform, as far as those can be told."""
        return max(0.0, self.fetch_s - (self.transform_s or 0.0) - (self.decode_s or 0.0))

    def split(self, sample: Mapping[str, Any]) -> Phases:
        """The same with the dataset's part divided as in `sample`: seconds of single samples, timed in a child."""
        whole_s = sample.get("sample_s") or 0.0

        def part(name: str) -> float | None:
            seconds = sample.get(name)
            return None if seconds is None or whole_s <= 0 else self.fetch_s * min(1.0, float(seconds) / whole_s)

        return replace(self, transform_s=part("transform_s"), decode_s=part("decode_s"))

    def to_json(self) -> dict[str, Any]:
        """The object "phases" of `tune --json`: its "fetch_s" is without the transform, and "decode_s" a part of that."""
        parts = {
            "fetch_s": max(0.0, self.fetch_s - (self.transform_s or 0.0)),
            "decode_s": self.decode_s,
            "transform_s": self.transform_s,
            "collate_s": self.collate_s,
            "copy_s": self.copy_s,
            "cpu_s": self.cpu_s,
            "queued_s": self.queued_s,
            "trainer_cpu_s": self.trainer_cpu_s,
        }
        return {
            **{name: None if value is None else round(value, 6) for name, value in parts.items()},
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
    known = [(report.queued_s, report.batches) for report in found if report.queued_s is not None]
    queued_s = sum(seconds for seconds, _ in known) / max(1, sum(count for _, count in known)) if known else None
    return Phases(batches, fetch_s, mean("collate_s"), mean("copy_s"), mean("cpu_s"), own_s, queued_s)


def phases_text(phases: Phases) -> str:
    """In words: "152 ms in a worker: dataset 21%; decode 71%; collate 7%; copy 1%"."""
    work_s = max(phases.work_s, 1e-9)
    parts = {
        "fetch": phases.rest_s,
        "decode": phases.decode_s,
        "transform": phases.transform_s,
        "collate": phases.collate_s,
        "copy": phases.copy_s,
    }
    told = {name: seconds / work_s for name, seconds in parts.items() if seconds is not None}
    said = (say(f"lift.phase_{name}", share=percent(share)) for name, share in told.items())
    return say("lift.phases", time=short_time(work_s), parts=say("tune_report.list").join(said))
