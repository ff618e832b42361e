"""What was learned about each loader of a program: the records that table, files and reports are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keepfed.plan import LoaderId, Plan
from keepfed.profile import Measured
from keepfed.tuning.phases import Phases
from keepfed.tuning.whatif import WhatIf

SCHEMA = "keepfed.tune/1"
MINOR_SHARE = 0.1
"""A loader that takes less than this part of the measured time (a short evaluation) decides nothing."""


@dataclass(frozen=True, slots=True)
class Move:
    """One plan that was tried on the running program."""

    tried: Measured
    """The plan, and what it brought."""

    kept: bool
    """Whether it was kept."""

    reason: str
    """Why it was tried and what came of it, in words."""

    predicted_batches_per_s: float = 0.0
    """What the model had expected of it before; 0 when it had said nothing."""

    at_s: float = 0.0
    """When it was judged, in seconds since the loader was first heard of."""

    def to_json(self) -> dict[str, Any]:
        """One flat object with the keys of `Measured`, and "kept", "reason", "predicted_batches_per_s" and "at_s"."""
        return {
            **self.tried.to_json(),
            "kept": self.kept,
            "reason": self.reason,
            "predicted_batches_per_s": _number(self.predicted_batches_per_s),
            "at_s": round(self.at_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """One window of the training, as the timeline shows it."""

    at_s: float
    """When it ended, in seconds since the loader was first heard of."""

    measured: Measured
    """The plan in force, and what it brought."""

    def to_json(self) -> dict[str, Any]:
        """One flat object with the keys of `Measured` and "at_s"."""
        return {"at_s": round(self.at_s, 1), **self.measured.to_json()}


@dataclass(frozen=True, slots=True)
class Point:
    """All that was measured of one plan, taken together."""

    measured: Measured
    """The plan, and what it brought in the mean."""

    low: float | None
    """Lower end of the 95 % interval of its batches per second; None where one window is all there is."""

    high: float | None
    """Its upper end."""

    windows: int
    """Windows it was measured in."""

    seconds: float
    """Time covered by them."""

    memory_bytes: int
    """Memory of workers and transport at the most."""

    cpu_s_per_batch: float
    """CPU seconds that workers took per batch; 0 when unknown."""

    predicted_batches_per_s: float
    """What the model had expected of it before it was tried; 0 when it had said nothing."""

    def to_json(self) -> dict[str, Any]:
        """One flat object with the keys of `Measured` and these."""
        return {
            **self.measured.to_json(),
            "low": _number(self.low),
            "high": _number(self.high),
            "windows": self.windows,
            "seconds": round(self.seconds, 1),
            "memory_bytes": self.memory_bytes,
            "cpu_s_per_batch": round(self.cpu_s_per_batch, 6),
            "predicted_batches_per_s": _number(self.predicted_batches_per_s),
        }


def _number(value: float | None) -> float | None:
    """A measured number for JSON; null for none, and for the 0 of what was never said."""
    return round(value, 4) if value else None


@dataclass(frozen=True, slots=True)
class LoaderResult:
    """What was learned about one loader."""

    loader: LoaderId
    """Which loader."""

    batch_size: int | None
    """Samples per batch; None without automatic batching."""

    asked: Plan | None
    """What the program asks for; None if the report of it was lost."""

    before: Measured | None
    """The plan at the start and what it brought; None if nothing was measured."""

    after: Measured | None
    """The best plan so far and what it brought; None if nothing was measured."""

    moves: tuple[Move, ...]
    """The plans tried, in order."""

    settled: bool
    """Whether the search is over."""

    limited_by: str
    """What limits the program now: step, cores, memory, io, workers or unknown."""

    reason: str
    """The same in words; empty when not settled."""

    stall_share_before: float | None
    """Share of the time that the GPU idled for want of data at the start; None off CUDA."""

    stall_share: float | None
    """The same now."""

    memory_before_bytes: int | None
    """Memory of workers and transport at the start; None if not measured."""

    memory_bytes: int | None
    """The same now."""

    seconds: float
    """How long the search took, or has taken so far."""

    measured_s: float
    """Time covered by measurements."""

    processes: int
    """Processes that iterate this loader (ranks of this host)."""

    ended: bool
    """Whether the loader will report no more."""

    handled: bool
    """False when torch's own iterator runs it."""

    left_because: str
    """Why torch's own iterator runs it, in words."""

    note: str
    """What else the program's side has to say about it."""

    points: tuple[Point, ...] = ()
    """Every plan that was measured, fewest workers first."""

    timeline: tuple[Moment, ...] = ()
    """Its windows, in order."""

    phases: Phases | None = None
    """Where the time of a batch goes inside a worker under the best plan; None if no worker made any."""

    what_if: tuple[WhatIf, ...] = ()
    """What would lift the limit, greatest gain first; empty before it has settled."""

    @property
    def measured(self) -> bool:
        """Whether anything at all was measured."""
        return self.before is not None

    def to_json(self, *, timeline: bool = True) -> dict[str, Any]:
        """The object that `tune --json` writes for a loader; the history does without its windows. Only for measured ones."""
        if self.before is None or self.after is None:
            raise ValueError(f"{self.loader} was not measured")
        return {
            "dataset": self.loader.dataset,
            "site": self.loader.site,
            "ordinal": self.loader.ordinal,
            "batch_size": self.batch_size,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "limited_by": self.limited_by,
            "reason": self.reason,
            "moves": [move.to_json() for move in self.moves],
            "settled": self.settled,
            "stall_share": None if self.stall_share is None else round(self.stall_share, 4),
            "seconds": round(self.seconds, 1),
            "points": [point.to_json() for point in self.points],
            **({"timeline": [moment.to_json() for moment in self.timeline]} if timeline else {}),
            **({} if self.phases is None else {"phases": self.phases.to_json()}),
            **({"what_if": [sentence.to_json() for sentence in self.what_if]} if self.what_if else {}),
        }


def counting(results: tuple[LoaderResult, ...]) -> tuple[LoaderResult, ...]:
    """The measured loaders that decide about the end and the exit code: all but those with a minor share of the time."""
    measured = [result for result in results if result.measured]
    total_s = sum(result.measured_s for result in measured)
    return tuple(result for result in measured if result.settled or share_of(result, total_s) >= MINOR_SHARE)


def share_of(result: LoaderResult, total_s: float) -> float:
    """Part of the measured time that one loader takes; 1 while nothing can be said."""
    return result.measured_s / total_s if total_s > 0 else 1.0


def document(results: Iterable[LoaderResult], host: Mapping[str, Any], *, search: str = "online") -> dict[str, Any]:
    """The document of `tune --json`: the measured loaders on this host, and how their plans were searched for."""
    return {
        "schema": SCHEMA,
        "host": dict(host),
        "search": search,
        "loaders": [result.to_json() for result in results if result.measured],
    }
