"""What a program and everything below it takes from the host: memory, CPU seconds, reading, GPU.

Sums over a tree are lower bounds, each for another reason, and the worst mistakes are made in the other direction:

- Memory is summed as PSS, in which a page that n processes share counts 1/n in each. The sum of RSS would count the
  trainer's own memory once per forked worker: 8 workers of a trainer of 10 GB "take" 90 GB. The peak is the highest of the
  samples; what came and went between two of them is missed.
- CPU seconds of a process that has ended are in its parent, if that waited for it; so the sum over the living, their waited-for
  children included, only grows, and at the end the kernel's own account of our children (getrusage(2), RUSAGE_CHILDREN) holds the
  tree. A process whose parent did not wait for it (workers of a trainer that was killed, daemons) comes to us on Linux
  (`adoption.py`); elsewhere it is missed after its last sample.
- The walk through the page tables costs the kernel about 30 ms per GB, on cores that the program wants itself. So samples are
  spaced by what they cost, to stay below 2 % of one core.

Sources: proc(5) (smaps_rollup, stat: cutime, io), getrusage(2), NVML API reference guide (nvmlUtilization_t).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psutil

from keepfed.host.gpu import Gpu, Gpus, read_gpus

COST_SHARE = 0.01
"""Most of one core that looking at the CPU seconds may take, and that looking at the memory may take."""

FIRST_S, LATER_S = 0.1, 1.0
"""Seconds between samples: short at the beginning, so that a program of two seconds is seen at all."""

_KINDS = ("pss", "uss", "rss")
"""What memory is told in, from the best to the worst."""


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU seconds at one moment."""

    at_s: float
    """On our clock."""

    cpu_s: float
    """Taken by the tree so far."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a whole run took."""

    cpu_s: float
    """CPU seconds of the tree, start-up and end included."""

    cpu: tuple[CpuSample, ...]
    """The same over time."""

    peak_bytes: int
    """Most memory at one moment; 0 when it ended before the first look."""

    memory_kind: str
    """What `peak_bytes` is a sum of: "pss", "uss" (where PSS is not to be had) or "rss" (counts shared pages again and again)."""

    read_bytes: int | None
    """Bytes that came from storage and not from the page cache; None where the kernel does not tell."""

    gpu: tuple[tuple[float, float], ...]
    """Time and share (0 to 1) in which the GPU that it uses ran a kernel; empty without one."""


def cpu_between(samples: Sequence[CpuSample], from_s: float, to_s: float) -> float | None:
    """CPU seconds between two moments, in straight lines between samples, which must cover half of the time or more."""
    if len(samples) < 2:
        return None
    first_s, last_s = max(from_s, samples[0].at_s), min(to_s, samples[-1].at_s)
    if last_s <= first_s or last_s - first_s < 0.5 * (to_s - from_s):
        return None
    return (_cpu_at(samples, last_s) - _cpu_at(samples, first_s)) * (to_s - from_s) / (last_s - first_s)


def _cpu_at(samples: Sequence[CpuSample], at_s: float) -> float:
    """Between the first and the last sample."""
    one, other = next((one, other) for one, other in pairwise(samples) if one.at_s <= at_s <= other.at_s)
    return one.cpu_s + (other.cpu_s - one.cpu_s) * (at_s - one.at_s) / max(1e-9, other.at_s - one.at_s)


class TreeWatch:
    """Looks at the tree below one process, now and then."""

    def __init__(
        self, pid: int, clock: Callable[[], float] = time.monotonic, gpus: Callable[[], Gpus] | None = read_gpus
    ) -> None:
        """`gpus` None: this host has none, so it need not be asked again and again."""
        self._clock, self._gpus = clock, gpus
        self._began_s = clock()
        self._cpu_due_s = self._memory_due_s = self._began_s
        self._ended_before_s = _waited_for_s()
        self._cpu: list[CpuSample] = []
        self._gpu: list[tuple[float, float]] = []
        self._peak_bytes, self._kind = 0, "pss"
        self._read_bytes: int | None = None
        self.seen: set[psutil.Process] = set()
        """What was seen in the tree and was alive at the last look: what outlives the program is found by this."""
        try:
            self._root: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._root = None

    def look(self) -> None:
        """Take the samples that are due: CPU seconds often, memory as seldom as it is dear."""
        now_s = self._clock()
        if now_s < min(self._cpu_due_s, self._memory_due_s):
            return
        pause_s = min(LATER_S, FIRST_S + 0.1 * (now_s - self._began_s))
        began_cpu_s = time.thread_time()
        living = self._living()
        self._add_cpu(living, now_s)
        self._add_gpu(living, now_s)
        cost_s = time.thread_time() - began_cpu_s
        self._cpu_due_s = now_s + max(pause_s, cost_s / COST_SHARE)
        if now_s >= self._memory_due_s:
            self._add_memory(living)
            cost_s = time.thread_time() - began_cpu_s
            self._memory_due_s = now_s + max(pause_s, cost_s / COST_SHARE)

    def look_at_last(self) -> None:
        """Take a sample of CPU seconds now: the program is about to be stopped."""
        self._add_cpu(self._living(), self._clock())

    def _living(self) -> list[psutil.Process]:
        """The tree now, and what was in it and has lost its parent."""
        try:
            if self._root is not None:
                self.seen |= {self._root, *self._root.children(recursive=True)}
        except psutil.Error:
            pass
        self.seen = {process for process in self.seen if _lives(process)}  # workers come and go with every epoch
        return list(self.seen)

    def _add_cpu(self, living: list[psutil.Process], at_s: float) -> None:
        total_s = sum(_cpu_s(process) for process in living)
        before_s = self._cpu[-1].cpu_s if self._cpu else 0.0
        self._cpu.append(CpuSample(at_s, max(before_s, total_s)))

    def _add_memory(self, living: list[psutil.Process]) -> None:
        sizes = [_memory(process) for process in living]
        total = sum(size for _, size in sizes)
        self._peak_bytes = max(self._peak_bytes, total)
        self._kind = max([self._kind, *(kind for kind, size in sizes if size)], key=_KINDS.index)
        read = [number for process in living if (number := _read_from_storage(process)) is not None]
        if read:
            self._read_bytes = max(self._read_bytes or 0, sum(read))

    def _add_gpu(self, living: list[psutil.Process], at_s: float) -> None:
        if self._gpus is None:
            return
        share = busy_share(self._gpus().gpus, {process.pid for process in living})
        if share is not None:
            self._gpu.append((at_s, share))

    def usage(self) -> Usage:
        """What was seen. To be asked when the program has ended and was waited for."""
        seen_s = self._cpu[-1].cpu_s if self._cpu else 0.0
        return Usage(
            cpu_s=max(seen_s, _waited_for_s() - self._ended_before_s),
            cpu=tuple(self._cpu),
            peak_bytes=self._peak_bytes,
            memory_kind=self._kind,
            read_bytes=self._read_bytes,
            gpu=tuple(self._gpu),
        )


def busy_share(gpus: Iterable[Gpu], pids: set[int]) -> float | None:
    """How busy the GPUs of these processes are, in the mean; the busiest of all where the driver does not say whose they are.

    Inside a container the driver's process ids are the host's, and name nobody here.
    """
    known = [gpu for gpu in gpus if gpu.utilisation is not None]
    own = [gpu for gpu in known if any(process.pid in pids for process in gpu.processes or ())]
    if own:
        return sum(gpu.utilisation or 0.0 for gpu in own) / len(own)
    return max((gpu.utilisation or 0.0 for gpu in known), default=None)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _cpu_s(process: psutil.Process) -> float:
    """Of a process and of those below it that it has waited for."""
    try:
        times: Any = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(
        times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    )


def _memory(process: psutil.Process) -> tuple[str, int]:
    try:
        full: Any = process.memory_full_info()
    except psutil.AccessDenied:
        full = None
    except psutil.Error:
        return "pss", 0
    for kind in ("pss", "uss"):
        if size := getattr(full, kind, 0):
            return kind, int(size)
    try:
        return "rss", int(process.memory_info().rss)
    except psutil.Error:
        return "pss", 0


def _read_from_storage(process: psutil.Process) -> int | None:
    """Linux adds the numbers of waited-for children to their parent's, as with CPU time. Elsewhere it means other things."""
    if sys.platform != "linux":
        return None
    try:
        return int(process.io_counters().read_bytes)
    except (psutil.Error, OSError):
        return None


def _waited_for_s() -> float:
    """CPU seconds of all children that this process has waited for, and of theirs; 0 where the kernel keeps no account."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime
