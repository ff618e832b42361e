"""Where a worker's time goes, batch by batch, while it works at full speed.

    task ──▶ dataset ──▶ collate ──▶ copy into shared memory ──▶ sent
      begun      │    within()  │                       │
                 └── fetch ─────┘── collate ── copy ────┘        less what it waited for a free slot: that is the program's

A profiler inside workers would change what it measures, and a sample fetched by hand in a quiet process says nothing of 12
workers that share a disk and a memory bus. So every batch brings three more numbers along; reading the clock twice more costs
a tenth of a microsecond. What collation by the slot writes needs no copy afterwards: then that part is nearly nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from keepfed.events import Breakdown
from keepfed.host.queueing import queued_s
from keepfed.plan import LoaderId
from keepfed.policy.window import Observation

Parts = tuple[float, float, float]
"""Seconds of one batch in collate, in the copy, and waiting for a free slot."""


class Stopwatch:
    """The worker's own: when the batch in hand came to which part."""

    __slots__ = ("_room_before_s", "began_cpu_s", "began_s", "fetched_s", "room_s", "sending_s")

    def __init__(self) -> None:
        self.began_s = self.began_cpu_s = self.fetched_s = self.sending_s = 0.0
        self.room_s = self._room_before_s = 0.0

    def begin(self) -> None:
        """A batch begins, in the dataset."""
        self.room_s = self._room_before_s = self.fetched_s = 0.0
        self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()

    def fetched(self) -> None:
        """Its samples are there: it is collated from here on."""
        self.fetched_s = time.perf_counter()

    def made(self) -> None:
        """It is made: what remains is to put it where it travels."""
        self.sending_s, self._room_before_s = time.perf_counter(), self.room_s

    def waited(self, seconds: float) -> None:
        """All slots were with the program for so long."""
        self.room_s += seconds

    def read(self) -> tuple[float, float, Parts]:
        """Wall and CPU seconds of the whole batch up to now, and the parts of them; the rest was spent in the dataset.

        Where a dataset's items are whole batches, nothing says when collation began: then it counts as the dataset's.
        """
        now_s, cpu_s = time.perf_counter(), time.process_time()
        copy_s = now_s - self.sending_s - (self.room_s - self._room_before_s)
        collate_s = self.sending_s - self.fetched_s - self._room_before_s if self.fetched_s else 0.0
        return now_s - self.began_s, cpu_s - self.began_cpu_s, (collate_s, copy_s, self.room_s)


class PhaseSums:
    """The trainer's side: the same of all workers, added up from one window to the next."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forget what was added up: it was made under another plan, or told already."""
        self._queued_s: dict[int, float] = {}
        self._batches = 0
        self._wall_s = self._cpu_s = self._collate_s = self._copy_s = self._room_s = 0.0
        self._since_s, self._since_cpu_s = time.monotonic(), time.process_time()

    def _stood_in_queue(self, now: dict[int, float], workers: int) -> float | None:
        """Seconds of all workers since the last window; those of new ones are taken to be like the others'."""
        known = [now[pid] - self._queued_s[pid] for pid in now if pid in self._queued_s]
        return sum(known) * workers / len(known) if known else None

    def add(self, wall_s: float, cpu_s: float, parts: Parts) -> None:
        """A worker finished a batch."""
        self._batches += 1
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        collate_s, copy_s, room_s = parts
        self._collate_s += collate_s
        self._copy_s += copy_s
        self._room_s += room_s

    def breakdown(self, loader: LoaderId, window: Observation, pids: Sequence[int]) -> Breakdown:
        """What was added up since the last window, with what this process itself computed per batch meanwhile.

        `pids` are the workers: how long they stood in the queue for a core is known from their second window on.
        """
        queued = {pid: seconds for pid in pids if (seconds := queued_s(pid)) is not None}
        span_s = max(1e-9, time.monotonic() - self._since_s)
        own_cores = (time.process_time() - self._since_cpu_s) / span_s
        found = Breakdown(
            loader,
            window.plan,
            self._batches,
            self._wall_s,
            self._cpu_s,
            self._collate_s,
            self._copy_s,
            self._room_s,
            own_cores * window.elapsed_s / max(1, window.batches),
            self._stood_in_queue(queued, len(pids)),
        )
        self.start_over()
        self._queued_s = queued
        return found
