"""A measured stretch of training: batches by the clock, and CPU seconds of the process with everything below it.

A stretch is interrupted between two epochs: what it takes to begin one is another question. CPU seconds come from
clock_gettime(2) of each process, exact to the nanosecond, where /proc/PID/stat counts hundredths; a process that has ended has
none any more, so that those of a stretch in which a plan changed are unknown.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil


@dataclass(slots=True)
class Stretch:
    """What was measured so far, over stretches within epochs."""

    batches: int = 0
    seconds: float = 0.0
    cpu_s: float | None = 0.0
    """None: a process ended meanwhile."""
    _from: tuple[int, float, dict[int, float]] | None = field(default=None, repr=False)

    def begin(self, batch: int) -> None:
        """From here on it counts."""
        self._from = batch, time.perf_counter(), tree_cpu_s()

    def end(self, batch: int) -> None:
        """Until here."""
        if self._from is None:
            return
        since, began_s, before = self._from
        self.batches += batch - since
        self.seconds += time.perf_counter() - began_s
        after = tree_cpu_s()
        if self.cpu_s is None or before.keys() - after.keys():
            self.cpu_s = None
        else:
            self.cpu_s += sum(spent_s - before.get(pid, 0.0) for pid, spent_s in after.items())
        self._from = None

    @property
    def begun(self) -> bool:
        """Whether it counts now."""
        return self._from is not None

    def batches_by(self, batch: int) -> int:
        """Batches measured by now."""
        return self.batches + (0 if self._from is None else batch - self._from[0])

    def lasts(self) -> float:
        """Seconds measured by now."""
        return self.seconds + (0.0 if self._from is None else time.perf_counter() - self._from[1])

    def found(self) -> dict[str, float | None]:
        """As it is written."""
        return {"batches": self.batches, "seconds": self.seconds, "cpu_s": self.cpu_s}


def tree_cpu_s() -> dict[int, float]:
    """CPU seconds of this process and of everything below it, by pid."""
    return {0: time.process_time()} | {pid: cpu_s_of(pid) for pid in pids_below()}


def pids_below() -> list[int]:
    """Every process that came from this one and lives."""
    return [child.pid for child in psutil.Process().children(recursive=True)]


def cpu_s_of(pid: int) -> float:
    """CPU seconds of another process of ours; 0.0 when it has just ended."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it
    return 0.0
