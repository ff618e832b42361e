"""What a page is made of: frozen records of one document. Whatever the document does not say is None, empty or left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepfed.plan import Plan


@dataclass(frozen=True, slots=True)
class Point:
    """One plan and what it brought, over all windows in which it was in force."""

    plan: Plan
    """The plan."""

    per_s: float
    """Batches per second of the whole training step."""

    low: float | None = None
    """Lower end of the 95 % interval of `per_s`; None with a single window."""

    high: float | None = None
    """Its upper end."""

    wait_share: float | None = None
    """Share of the time that the program waited for data."""

    windows: int | None = None
    """Windows that were measured."""

    seconds: float | None = None
    """How long they took."""

    memory_bytes: float | None = None
    """Memory of workers and transport."""

    cpu_s_per_batch: float | None = None
    """CPU seconds that a batch took."""

    predicted_per_s: float | None = None
    """What was predicted for the plan before it was tried."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One window of the search."""

    at_s: float
    """When, in seconds from the start of the search."""

    plan: Plan
    """The plan that was in force."""

    per_s: float
    """Batches per second in it."""

    wait_share: float | None
    """Share of it that the program waited for data."""


@dataclass(frozen=True, slots=True)
class Move:
    """One plan that was tried."""

    point: Point
    """The plan and what was measured of it when it was judged."""

    kept: bool
    """Whether it was kept."""

    reason: str
    """Why it was tried and what came of it."""

    at_s: float | None
    """When, in seconds from the start of the search."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Where a batch's time goes inside a worker: mean seconds per batch."""

    seconds: tuple[tuple[str, float], ...]
    """Name of the phase and its time, in the order in which a batch passes them: the access to the dataset, "access" as a
    whole, "fetch" without transforms, "rest" without decoding either; "decode", "transform", "collate", "copy"."""

    cpu_s: float | None
    """CPU seconds of all of them; the rest was waiting."""

    queued_s: float | None
    """Seconds of it in which a worker could have computed and had no core."""

    batches: int | None
    """Batches that were timed."""


@dataclass(frozen=True, slots=True)
class Factor:
    """How many times faster something was in fresh processes, measured in pairs."""

    factor: float
    """Median of the pairs."""

    low: float | None
    """Lower end of its 95 % interval."""

    high: float | None
    """Its upper end."""

    plan: Plan | None
    """The plan that it is about; None for a change."""

    per_s: float | None
    """Batches per second of the plan."""

    wait_share: float | None
    """Share of waiting under it."""

    text: str
    """The change, as it would be written."""

    faster: bool
    """Whether the change is offered."""


@dataclass(frozen=True, slots=True)
class Loader:
    """One loader of the program."""

    dataset: str
    """Class of its dataset."""

    site: str
    """Where the program builds it."""

    ordinal: int
    """Tells apart loaders of one site and class."""

    batch_size: int | None
    """Samples per batch."""

    before: Point | None
    """What the program asked for, or the first guess for a dataset without one."""

    after: Point | None
    """What was chosen, or the best so far."""

    limited_by: str
    """What limits it now, one word."""

    reason: str
    """The same as a sentence; empty in documents that have none."""

    settled: bool
    """Whether the search is over."""

    stall_share: float | None
    """Share of the time that the GPU idles for want of data."""

    seconds: float | None
    """How long the search took."""

    points: tuple[Point, ...]
    """Every plan that was measured, fewest workers first."""

    timeline: tuple[Moment, ...]
    """The windows in order of time."""

    moves: tuple[Move, ...]
    """The plans tried, in order; none for a search that measures all of them, where no plan led to the next."""

    why: str
    """Why the plan was chosen: the reason of the last move that was kept."""

    phases: Phases | None
    """Where a batch's time goes."""

    finals: tuple[Factor, ...]
    """The finalists of an exhaustive search in fresh processes."""

    offers: tuple[Factor, ...]
    """Changes that were tried in fresh processes."""

    lifts: tuple[str, ...]
    """What would lift the limit, as sentences."""

    @property
    def asked(self) -> bool:
        """Whether a line of a program asks for `before`: `site` names it; for a dataset it names the function that makes it."""
        return re.search(r":\d+$", self.site) is not None

    @property
    def name(self) -> str:
        """As the table in the terminal names it: "train.py:41 PhotoFolder"."""
        name = f"{self.site} {self.dataset.rpartition('.')[2]}".strip() or "?"
        return f"{name} #{self.ordinal + 1}" if self.ordinal else name


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of a sweep; of several runs the medians."""

    value: str
    """The value that took the place of {}."""

    how: str
    """What became of it: "measured", "no-rate", "failed", "not-started", "interrupted"; empty where it is not said."""

    exit_code: int | None
    """Exit code; also of a run that was stopped when enough was known."""

    rate: float | None
    """What is counted, per second; None if the run told none."""

    low: float | None
    """Rate of the slowest of several runs; None for a single one."""

    high: float | None
    """Rate of the fastest of them."""

    unit: str
    """What is counted: "it"."""

    epoch_s: float | None
    """Seconds of an epoch."""

    seconds: float | None
    """How long the run took, or until it was stopped."""

    cpu_s: float | None
    """CPU seconds of all its processes."""

    cpu_s_per_batch: float | None
    """The same per iteration, in the steady part."""

    peak_pss_bytes: float | None
    """Most memory that its processes took together."""

    gpu_busy: float | None
    """Share of the time that the GPU was busy."""

    @property
    def failed(self) -> bool:
        """Whether there is no run of it to be compared."""
        return self.how in {"failed", "not-started", "interrupted"} or (not self.how and bool(self.exit_code))


@dataclass(frozen=True, slots=True)
class Sweep:
    """All values of a sweep, and what was chosen."""

    trials: tuple[Trial, ...]
    """The values, in the order given."""

    best: str
    """The value to take; empty if there is none."""

    equal: tuple[str, ...]
    """The values that cannot be told from the fastest."""

    compared_by: str
    """"rate", "epoch" or "seconds"."""

    band: float | None
    """Relative difference below which values are equal."""

    @property
    def chosen(self) -> Trial | None:
        """The trial of `best`."""
        return next((trial for trial in self.trials if trial.value == self.best and not trial.failed), None)


@dataclass(frozen=True, slots=True)
class Document:
    """All of it."""

    alone: bool
    """Whether a dataset was measured without a step: the numbers are the loader's own maximum."""

    host: Mapping[str, Any]
    """The machine, as it stands in the document."""

    loaders: tuple[Loader, ...]
    """The measured loaders, the one with the longest search first."""

    sweep: Sweep | None
    """The values of a sweep; None for other searches."""
