"""From single batches to windows that may be compared: what the loop did under one plan, and nothing else.

Single steps lie: logging, gradient accumulation and asynchronous GPU work make their times bimodal, so that a median of
steps says nothing; only whole windows are compared. Windows lie too when they contain something else: an evaluation or
a checkpoint (a gap), the start of an epoch (workers begin empty), the first steps (kernels being compiled or chosen),
or batches that were prepared under the previous plan. Those are left out here, so that the controller need not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from keepfed.plan import Plan
from keepfed.policy.pipeline import groups_of

GAP = 5.0
"""A step this many times longer than the window's median is no step: evaluation, checkpoint, a suspended process."""

LONGEST_BEAT_S = 5.0
"""A longer step is a gap even when it comes every k batches: an evaluation, not a line of the log."""

WARM_BLOCK = 4
"""Step times are called stable when the median of a block of this many is no longer falling."""

WARM_UP_S = 10.0
"""Training seconds after which step times are taken as they are, stable or not."""

MOST_TIMES = 1024
"""Batches of a window whose single times are kept until it is closed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One window of training under one plan."""

    plan: Plan
    """The plan in force during the whole window."""

    now_s: float
    """Monotonic clock at its end."""

    batches: int
    """Batches that the program received."""

    elapsed_s: float
    """Wall time in which it received them, gaps left out."""

    wait_s: float
    """Part of it spent in `next()`."""

    stall_s: float | None = None
    """Part of it in which the GPU idled because of that wait; None off CUDA.

    With asynchronous GPU work the host's wait is not the stall (a loop bound by the GPU may spend nearly all of its
    time in `next()` while the GPU idles one per cent), so that this one counts where it is known.
    """

    take_s: float = 0.0
    """Median seconds in `next()` of one batch: while workers have time to spare, what taking over a ready batch costs."""

    fetched: int = 0
    """Batches that workers finished in the window."""

    fetch_s: float = 0.0
    """Wall seconds that they took inside the workers, summed."""

    fetch_cpu_s: float = 0.0
    """CPU seconds of them, summed."""

    fetch_times_s: tuple[float, ...] = ()
    """How the wall seconds per batch were distributed: means of equally large groups of the sorted times, some dozens."""

    batch_bytes: float = 0.0
    """Bytes of one batch in transport."""

    worker_bytes: float = 0.0
    """Private memory of one worker."""

    host_busy: float | None = None
    """Busy share of the usable cores, by anyone, 0 to 1; None when unknown."""

    all_warm: bool = True
    """Whether every live worker had delivered at least 3 batches since the last change when the window began."""

    @property
    def starve_s(self) -> float:
        """Seconds lost for want of data: the GPU's idle time where it is known, else the wait.

        The GPU does not idle for longer than the program waits; what is reported beyond that comes from waits that belong to
        no window (workers that start with an epoch), since the GPU's answers arrive late.
        """
        return min(self.elapsed_s, self.wait_s, math.inf if self.stall_s is None else self.stall_s)


class WindowBuilder:
    """Collects the batches of one loader into windows.

    The owner calls `delivered` at every return of `next()` and, when that returns True, `close`. `epoch_started` is
    called when an iterator is made and `changed` when another plan has come into force; epochs shorter than a window
    are accumulated.
    """

    def __init__(self, plan: Plan, *, min_s: float = 2.0, min_batches: int = 8, max_s: float = 12.0) -> None:
        """Windows last at least `min_s` and `min_batches`, or `max_s` (on CUDA use 3 s and 30: the host runs ahead).

        They also hold twice the batches that `plan` keeps in preparation: behind one slow batch all the others become
        ready and are then taken at once, and a window of such a burst alone would be far too fast.
        """
        self._min_s, self._min_batches, self._max_s = min_s, min_batches, max_s
        self._plan = plan
        self._last_s: float | None = None
        self._warm_up: list[float] | None = []
        self.gaps = 0
        """Gaps left out so far."""
        self.gap_s = 0.0
        """Seconds of them."""
        self._stock = 0
        """Batches that were in preparation when the plan last changed, until they are delivered."""
        self._rhythm = _Rhythm()
        self._start_over()

    def _start_over(self) -> None:
        self._cycles: list[tuple[float, float, int]] = []
        self._elapsed_s = 0.0
        self._stall_s: float | None = None
        self._fetched, self._fetch_s, self._fetch_cpu_s = 0, 0.0, 0.0
        self._fetch_times_s: list[float] = []
        self._all_warm = True

    def epoch_started(self) -> None:
        """The next batch is the first of an epoch: what lies before it, and its own wait, belong to no window."""
        self._last_s = None

    def changed(self, plan: Plan) -> None:
        """Another plan is in force: what was collected under the old one must not be mixed with it.

        What had been prepared under the old one is delivered first, and stays in one window, the first.
        """
        self._stock = self._plan.num_workers * self._plan.prefetch_factor
        self._plan = plan
        self._start_over()

    def fetched(self, fetch_s: float, cpu_s: float) -> None:
        """A worker finished a batch, in `fetch_s` of wall and `cpu_s` of CPU time."""
        self._fetched += 1
        self._fetch_s += fetch_s
        self._fetch_cpu_s += cpu_s
        if len(self._fetch_times_s) < MOST_TIMES:
            self._fetch_times_s.append(fetch_s)

    def stalled(self, stall_s: float) -> None:
        """The GPU idled for `stall_s` before a batch (0.0 counts: it says that stalls are being measured)."""
        self._stall_s = (self._stall_s or 0.0) + stall_s

    def delivered(self, now_s: float, wait_s: float, *, all_warm: bool = True) -> bool:
        """`next()` returned at `now_s` after `wait_s`; True when a window is ready to be closed."""
        last_s, self._last_s = self._last_s, now_s
        if last_s is None:
            return False
        cycle_s = max(0.0, now_s - last_s)
        wait_s = min(wait_s, cycle_s)
        if self._warm_up is not None:
            if self._warming(self._warm_up, cycle_s - wait_s, cycle_s):
                return False
            self._start_over()
            return False
        if not self._cycles:
            self._all_warm = all_warm
        self._cycles.append((cycle_s, wait_s, self._rhythm.tick()))
        self._elapsed_s += cycle_s
        return self._due()

    def _due(self) -> bool:
        if self._elapsed_s < self._min_s:
            return False  # asked after every batch
        batches = max(self._min_batches, 2 * self._plan.num_workers * self._plan.prefetch_factor)
        enough = len(self._cycles) >= batches and self._elapsed_s >= self._min_s
        overdue = self._elapsed_s >= self._max_s and len(self._cycles) > 2
        return (enough or overdue) and len(self._cycles) >= self._stock

    def _warming(self, steps: list[float], step_s: float, cycle_s: float) -> bool:
        """Whether step times are still falling (compilation, choosing kernels)."""
        steps.append(step_s)
        self._elapsed_s += cycle_s
        if len(steps) >= 2 * WARM_BLOCK:
            before, now = steps[-2 * WARM_BLOCK : -WARM_BLOCK], steps[-WARM_BLOCK:]
            if median(now) >= 0.8 * median(before) or self._elapsed_s > WARM_UP_S:
                self._warm_up = None
        elif len(steps) > 2 and self._elapsed_s > WARM_UP_S:
            self._warm_up = None
        return self._warm_up is not None

    def close(
        self,
        now_s: float,
        *,
        batch_bytes: float = 0.0,
        worker_bytes: float = 0.0,
        host_busy: float | None = None,
    ) -> Observation | None:
        """The window as an observation, or None when too little was left of it without its gaps (it goes on then)."""
        self._leave_out_gaps()
        if not self._due() or not self._cycles:
            return None
        observation = Observation(
            self._plan,
            now_s,
            batches=len(self._cycles),
            elapsed_s=self._elapsed_s,
            wait_s=sum(wait_s for _, wait_s, _ in self._cycles),
            stall_s=self._stall_s,
            take_s=median(wait_s for _, wait_s, _ in self._cycles),
            fetched=self._fetched,
            fetch_s=self._fetch_s,
            fetch_cpu_s=self._fetch_cpu_s,
            fetch_times_s=groups_of(self._fetch_times_s or self._in_process_s()),
            batch_bytes=batch_bytes,
            worker_bytes=worker_bytes,
            host_busy=host_busy,
            all_warm=self._all_warm,
        )
        self._stock = 0
        self._start_over()
        return observation

    def _in_process_s(self) -> list[float]:
        """Without workers the waits are the fetches."""
        return [wait_s for _, wait_s, _ in self._cycles[:MOST_TIMES]] if self._plan.num_workers == 0 else []

    def _leave_out_gaps(self) -> None:
        typical_s = median(cycle_s - wait_s for cycle_s, wait_s, _ in self._cycles) if self._cycles else 0.0
        mean_s = self._elapsed_s / max(1, len(self._cycles))
        limit_s = GAP * max(typical_s, 0.01 * self._min_s)
        long = [(c, w, at) for c, w, at in self._cycles if c - w > max(limit_s, mean_s)]
        # A long gap alone may be what makes a window of few batches due, so that one is always left out.
        if not long or len(long) > max(1, len(self._cycles) // 8):
            return
        beat = self._rhythm.recurs([at for _, _, at in long], len(self._cycles))
        if beat and max(cycle_s for cycle_s, _, _ in long) <= LONGEST_BEAT_S:
            return
        self.gaps += len(long)
        self.gap_s += sum(cycle_s for cycle_s, _, _ in long)
        gone = {at for _, _, at in long}
        self._cycles = [cycle for cycle in self._cycles if cycle[2] not in gone]
        self._elapsed_s = sum(cycle_s for cycle_s, _, _ in self._cycles)


class _Rhythm:
    """Tells a gap from a beat: logging or accumulating every k batches makes long steps that belong to the training."""

    def __init__(self) -> None:
        self._at = 0
        self._long: list[int] = []

    def tick(self) -> int:
        self._at += 1
        return self._at

    def recurs(self, long: list[int], window: int) -> bool:
        """Whether the long steps at these batch numbers continue a beat, short enough for every window to hold one."""
        self._long = sorted({*self._long, *long})[-4:]
        distances = [b - a for a, b in pairwise(self._long)]
        return len(distances) == 3 and max(distances) - min(distances) <= 1 and max(distances) <= window
