"""A measured stretch of training: batches by the clock, and CPU seconds of the process with everything below it.

A stretch is interrupted between two epochs: what it takes to begin one is another question. CPU seconds come from
clock_gettime(2) of each process, exact to the nanosecond, where /proc/PID/stat counts hundredths; a process that has ended has
none any more, so no plan may change within a stretch.
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
    cpu_s: float = 0.0
    _from: tuple[int, float, float] | None = field(default=None, repr=False)

    def begin(self, batch: int) -> None:
        """From here on it counts."""
        self._from = batch, time.perf_counter(), tree_cpu_s()

    def end(self, batch: int) -> None:
        """Until here."""
        if self._from is not None:
            self.batches += batch - self._from[0]
            self.seconds += time.perf_counter() - self._from[1]
            self.cpu_s += tree_cpu_s() - self._from[2]
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

    def found(self) -> dict[str, float]:
        """As it is written."""
        return {"batches": self.batches, "seconds": self.seconds, "cpu_s": self.cpu_s}


def tree_cpu_s() -> float:
    """CPU seconds of this process and of everything below it."""
    return time.process_time() + sum(map(cpu_s_of, pids_below()))


def pids_below() -> list[int]:
    """Every process that came from this one and lives."""
    return [child.pid for child in psutil.Process().children(recursive=True)]


def cpu_s_of(pid: int) -> float:
    """CPU seconds of another process of ours; 0.0 when it has just ended."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it
    return 0.0
