"""Whether a /dev/shm is large enough for a loader, whether its batches travel through it at all, and what can be done.

    needed = num_workers × (prefetch_factor + 1) × bytes of one batch

Each worker may be `prefetch_factor` batches ahead, and one batch per worker is in the program's hands or on its way to a GPU.
Where nobody has measured a batch, a table of sizes stands in that people have got along with; it is said to be one.

Not all batches take this way. torch moves tensors (of workers, in either of its sharing strategies) through /dev/shm; without
workers nothing travels; NumPy arrays and lists go through pipes; keepfed's own loader uses memory files, which no limit of
/dev/shm binds. Sources: torch.multiprocessing "Sharing strategies", torch.utils.data (prefetch_factor), pytorch#5040,
docker run --shm-size (default 64 MB), Kubernetes "emptyDir" (medium: Memory counts against the memory limit).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

DEFAULT_CONTAINER_BYTES = 64 * MIB
"""What Docker, Podman and containerd give a container that asks for nothing."""
_FULL_SHARE = 0.95


class Travel(StrEnum):
    """Which way the batches take."""

    SEEN = "seen"
    """Through /dev/shm: torch's segments were seen there."""
    LIKELY = "likely"
    """Through /dev/shm, if the batches are tensors, as those of the default collate are."""
    NO_WORKERS = "no_workers"
    """Nowhere: without workers a batch stays in the process that made it."""
    KEEPFED = "keepfed"
    """Through memory files of keepfed's loader."""
    PIPES = "pipes"
    """Another way, as it seems: workers are there, and none of them holds a segment of torch."""
    UNKNOWN = "unknown"
    """Nobody knows how many workers there are."""


class Verdict(StrEnum):
    """What to think of a /dev/shm."""

    ENOUGH = "enough"
    TOO_SMALL = "too_small"
    """Smaller than what is needed."""
    FULL = "full"
    """Large enough, and taken by something else."""
    NO_INODES = "no_inodes"
    """Bytes are free, and no file can be added."""
    MISSING = "missing"
    """There is none."""
    NOT_NEEDED = "not_needed"
    """The batches take another way."""
    UNKNOWN = "unknown"
    """Its size could not be read."""

    @property
    def bad(self) -> bool:
        """Whether something has to be done."""
        return self in (Verdict.TOO_SMALL, Verdict.FULL, Verdict.NO_INODES, Verdict.MISSING)


class Setting(StrEnum):
    """Where the program runs, which decides what can be done."""

    HOST = "host"
    CONTAINER = "container"
    """Docker's or Podman's."""
    COMPOSE = "compose"
    KUBERNETES = "kubernetes"
    FILES = "files"
    """Settings in files; nothing runs."""


@dataclass(frozen=True, slots=True)
class Loading:
    """What is known of the loaders."""

    num_workers: int | None
    """Workers of all loaders alive at once; None when unknown."""
    prefetch_factor: int | None = None
    """Batches that each may be ahead; None when unknown (torch's default is 2)."""
    batch_bytes: int | None = None
    """Bytes of one batch; None when unknown."""
    largest_tensor_bytes: int | None = None
    """The largest of torch's segments that were seen: a batch has at least as much."""
    gpus: int = 1
    """GPUs, each with a training process of its own, where that is known."""
    keepfed_seen: bool = False
    """Whether memory files of keepfed's loader were seen."""
    workers_without: bool = False
    """Whether workers were looked at, and none of them holds anything of torch's."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of a /dev/shm."""

    there: bool
    """Whether there is one."""
    size_bytes: int | None = None
    """Its size."""
    used_bytes: int | None = None
    """Bytes in use."""
    loaders_bytes: int = 0
    """The part of it that the loaders in question hold themselves, which is no loss to them."""
    inodes_left: int | None = None
    """Files that can be added; None when there is no limit."""
    memory_bytes: int | None = None
    """The memory limit, which its pages count against; None when there is none."""


@dataclass(frozen=True, slots=True)
class Need:
    """How much is needed, and how that is known."""

    bytes: int
    """What the batches in flight take."""
    num_workers: int | None
    """Of the loaders."""
    prefetch_factor: int
    """As given, else torch's default."""
    batch_bytes: int | None
    """As given, else the largest tensor that was seen."""
    source: str
    """"computed" (from a batch that was given), "seen" (at least so much: from the largest tensor that travelled), "table" or
    "none"."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to think, and what to do."""

    verdict: Verdict
    """In a word."""
    travel: Travel
    """Which way the batches take."""
    need: Need
    """What they take there."""
    suggested_bytes: int
    """A size that is enough, as one writes it; 0 where none is needed."""
    memory_too: bool
    """Whether the memory limit is too low for what is suggested."""
    ways: tuple[str, ...]
    """What can be done, the best first: keys of the locales, `shm.way_*`."""


def judge(loading: Loading, room: Room, setting: Setting) -> Judgement:
    """Judge a /dev/shm by what is known."""
    travel = travel_of(loading)
    need = need_of(loading, travel)
    verdict = _verdict(travel, need, room)
    suggested = _rounded(need.bytes) if need.bytes else 0
    memory_too = bool(suggested and room.memory_bytes is not None and suggested > room.memory_bytes)
    ways = _ways(verdict, setting) if verdict.bad else ()
    return Judgement(verdict, travel, need, suggested, memory_too, ways)


def travel_of(loading: Loading) -> Travel:
    """Which way the batches take."""
    if loading.largest_tensor_bytes is not None:
        return Travel.SEEN
    if loading.keepfed_seen:
        return Travel.KEEPFED
    if loading.workers_without and loading.num_workers:
        return Travel.PIPES
    if loading.num_workers is None:
        return Travel.UNKNOWN
    return Travel.LIKELY if loading.num_workers else Travel.NO_WORKERS


def need_of(loading: Loading, travel: Travel) -> Need:
    """How much the batches in flight take."""
    prefetch = 2 if loading.prefetch_factor is None else loading.prefetch_factor
    workers = loading.num_workers
    if travel in (Travel.NO_WORKERS, Travel.KEEPFED):
        return Need(0, workers, prefetch, loading.batch_bytes, "none")
    batch = loading.largest_tensor_bytes if loading.batch_bytes is None else loading.batch_bytes
    if batch is not None and workers:
        source = "seen" if loading.batch_bytes is None else "computed"
        return Need(workers * (prefetch + 1) * batch, workers, prefetch, batch, source)
    return Need(table_bytes(workers, loading.gpus), workers, prefetch, loading.batch_bytes, "table")


def table_bytes(num_workers: int | None, gpus: int = 1) -> int:
    """What others have got along with: nothing is measured here.

    64 to 512 MB without workers, 2 GB for up to four, 4 GB for more or for large models, 8 GB for several GPUs.
    """
    if gpus > 1:
        return 8 * GIB
    if num_workers is None:
        return 2 * GIB
    if num_workers == 0:
        return 64 * MIB
    return 2 * GIB if num_workers <= 4 else 4 * GIB


def as_docker_writes(size: int) -> str:
    """A size as `--shm-size` takes it, exactly: 2g, 512m, 1536m, or plain bytes."""
    for unit, letter in ((GIB, "g"), (MIB, "m"), (KIB, "k")):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def _verdict(travel: Travel, need: Need, room: Room) -> Verdict:
    if travel in (Travel.NO_WORKERS, Travel.KEEPFED):
        return Verdict.NOT_NEEDED
    if not room.there:
        return Verdict.MISSING
    if room.size_bytes is None:
        return Verdict.UNKNOWN
    if room.size_bytes < need.bytes:
        # What is reckoned for tensors says little of a program that seems to move none.
        return Verdict.NOT_NEEDED if travel is Travel.PIPES else Verdict.TOO_SMALL
    if room.inodes_left is not None and room.inodes_left < 1:
        return Verdict.NO_INODES
    if room.used_bytes is not None:
        others = max(0, room.used_bytes - room.loaders_bytes)
        if room.size_bytes - others < need.bytes or room.used_bytes >= _FULL_SHARE * room.size_bytes:
            return Verdict.FULL
    return Verdict.ENOUGH


def _ways(verdict: Verdict, setting: Setting) -> tuple[str, ...]:
    first = ("end_holders",) if verdict in (Verdict.FULL, Verdict.NO_INODES) else ()
    larger = {
        Setting.HOST: ("remount",),
        Setting.CONTAINER: ("recreate", "docker_run", "ipc_host"),
        Setting.COMPOSE: ("compose", "ipc_host"),
        Setting.KUBERNETES: ("kubernetes",),
        Setting.FILES: ("set", "docker_run", "compose", "kubernetes", "ipc_host"),
    }[setting]
    return (*first, *larger, "less_in_flight", "keepfed_loader")


def _rounded(size: int) -> int:
    """The next size that one would write: a power of two up to a gigabyte, then whole gigabytes."""
    if size > GIB:
        return -(-size // GIB) * GIB
    power = DEFAULT_CONTAINER_BYTES
    while power < size:
        power *= 2
    return power
