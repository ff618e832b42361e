"""What a running loader reports: frozen records, one line of JSON each.

They are written by the process that trains and read by the launcher, the report and later views. A record that a reader
does not know is skipped, so that older readers live with newer writers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from keepfed.plan import LoaderId, Plan


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all records; `name` is the "event" key of the line."""

    name: ClassVar[str] = ""

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types, with its name under "event"."""
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """A process armed itself: it is about to iterate its first DataLoader."""

    name: ClassVar[str] = "joined"
    executable: str
    """The interpreter, as sys.executable."""
    python: str
    """Its version, "3.11.7"."""
    torch: str
    """torch's version."""
    rank: int
    """RANK of the process, 0 without a launcher."""
    local_rank: int
    """LOCAL_RANK of the process, 0 without a launcher."""
    cuda: bool
    """Whether the process had begun to use CUDA when it joined (asking whether it could would begin it)."""


@dataclass(frozen=True, slots=True)
class LoaderSeen(Event):
    """A loader is iterated for the first time in this process."""

    name: ClassVar[str] = "loader"
    loader: LoaderId
    """Which loader."""
    batch_size: int | None
    """Samples per batch as the program asks for; None without automatic batching."""
    asked: Plan
    """What the program asks for."""
    used: Plan
    """What is used at the start."""
    source: str
    """Where `used` comes from: "program", "plan", "exact", "first-guess" or "rank" (another rank decides)."""
    handled: bool
    """False when torch's own iterator runs this loader."""
    reason: str
    """Why torch's own iterator runs it, in words; empty when handled."""
    note: str = ""
    """Anything that the reader should know of this choice, in words."""


@dataclass(frozen=True, slots=True)
class Window(Event):
    """One measured stretch of training under one plan."""

    name: ClassVar[str] = "window"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan in force during the whole window."""
    batches: int
    """Batches that the program received."""
    elapsed_s: float
    """Wall time between the first and the last of them, gaps (evaluation, checkpoints) left out."""
    wait_s: float
    """Part of it spent waiting in `next()`."""
    stall_s: float | None
    """Part of it in which the GPU idled because of that wait; None off CUDA."""
    rss_bytes: int
    """Private memory of the workers plus the transport's memory."""
    fetch_s: float = 0.0
    """Wall seconds that workers took for the batches that they finished in it, summed."""
    fetch_cpu_s: float = 0.0
    """CPU seconds of them."""


@dataclass(frozen=True, slots=True)
class Breakdown(Event):
    """Where the workers' time went in one window: sums over the batches that they made in it."""

    name: ClassVar[str] = "breakdown"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan in force."""
    batches: int
    """Batches that workers made."""
    wall_s: float
    """Wall seconds from task to message."""
    cpu_s: float
    """CPU seconds of them."""
    collate_s: float
    """Part of `wall_s` in the collate function, which may write to shared memory directly."""
    copy_s: float
    """Part of it copying and describing what did not lie in shared memory yet."""
    room_s: float
    """Part of it waiting for memory that was in the program's hands."""
    trainer_cpu_s: float
    """CPU seconds of the training process per batch that it received, all its threads."""
    queued_s: float | None = None
    """Seconds in which workers could have computed and had no core, summed; None where that is not known (yet)."""


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """The plan of a loader was changed, or a change was judged."""

    name: ClassVar[str] = "moved"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan that was tried."""
    batches_per_s: float
    """Throughput measured under it; 0 when it could not be measured."""
    wait_share: float
    """Share of the time spent waiting in `next()` under it, 0 to 1."""
    kept: bool
    """Whether it became the incumbent."""
    reason: str
    """Why it was tried and what came of it, in words."""
    predicted_batches_per_s: float = 0.0
    """Throughput that the model had expected of it, before it was tried; 0 when it had said nothing."""


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """The controller has finished exploring this loader (and from here on only follows changes of load)."""

    name: ClassVar[str] = "settled"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan chosen."""
    batches_per_s: float
    """Throughput under it."""
    wait_share: float
    """Share of the time spent waiting under it."""
    before: Plan
    """The plan it started from."""
    before_batches_per_s: float
    """Throughput under that one."""
    before_wait_share: float
    """Share of the time spent waiting under that one."""
    limited_by: str
    """What limits it now: step, cores, memory, io, workers or unknown."""
    reason: str
    """The same in words."""
    stall_share: float | None
    """Share of the time in which the GPU idled for want of data; None off CUDA."""
    seconds: float
    """How long the exploration took."""


@dataclass(frozen=True, slots=True)
class Surveyed(Event):
    """What a loader that has settled could still gain; comes before its `Settled`, in `tune` only."""

    name: ClassVar[str] = "surveyed"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan that it settled on."""
    ready_batches: int
    """Batches that were made ahead, so that the steps on them had to wait for nothing; 0 where that was not possible."""
    ready_s: float
    """What these steps took, `next()` included; on CUDA on the GPU."""
    ready_wait_s: float
    """Seconds in `next()` for them: taking over a ready batch."""
    cores: float = 0.0
    """CPU cores that the program may use; 0 when unknown."""
    probe: dict[str, Any] | None = None
    """What a child found that timed single samples (loader/probe.py); None where it found nothing."""


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """A loader will report no more: the process ends or the loader is gone."""

    name: ClassVar[str] = "ended"
    loader: LoaderId
    """Which loader."""
    plan: Plan
    """The plan in force at the end."""
    batches: int
    """Batches delivered in all."""
    elapsed_s: float
    """Seconds since its first batch."""
    wait_s: float
    """Seconds of them spent waiting."""


@dataclass(frozen=True, slots=True)
class Note(Event):
    """One sentence for the user that belongs to no other record."""

    name: ClassVar[str] = "note"
    text: str
    """The sentence, in the reader's language."""


KINDS: dict[str, type[Event]] = {
    kind.name: kind for kind in (Joined, LoaderSeen, Window, Breakdown, Moved, Settled, Surveyed, Ended, Note)
}


def from_json(line: dict[str, Any]) -> Event | None:
    """The record of a parsed line; None for a kind that this version does not know.

    Raises KeyError or TypeError for a line of a known kind that lacks a field.
    """
    kind = KINDS.get(str(line.get("event")))
    if kind is None:
        return None
    values = {field.name: line[field.name] for field in fields(kind) if field.name in line}
    for name in ("plan", "asked", "used", "before"):
        if name in values:
            values[name] = Plan(**values[name])
    if "loader" in values:
        values["loader"] = LoaderId(**values["loader"])
    return kind(**values)
