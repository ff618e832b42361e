"""What has been measured per plan, how noisy it is, and whether one plan is better than another.

Two plans are compared in one of two ways. Where the cores are not contended, a step lasts as long under either plan, and
their throughputs are as the shares of time not lost to waiting: a ratio in which the host's own slow drifts cancel.
Where workers and step share busy cores, throughput itself counts, noise and all, but for one thing that is certain:

    cycle = step + wait         fewer / more = (step under more / step under fewer) x (1 - wait under fewer) / (1 - wait under more)
                                                └── at least 1: fewer workers take no core from the step

So what fewer workers lose beyond the shares is the host's doing (a neighbour came while they were measured), and so is
what more workers gain beyond them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from keepfed.plan import Plan
from keepfed.policy.cost import UNKNOWN_SPREAD, Costs
from keepfed.policy.pipeline import groups_of
from keepfed.policy.window import Observation

KEPT_WINDOWS = 6
"""Windows remembered per plan: enough to average, few enough to forget a page cache that was cold."""

NOMINAL_BAND = 0.02
"""Plans within 2 % of the best are as good as the best; the cheapest of them wins."""

WIDEST_BAND = 0.05
"""On a noisy host nothing finer than 5 % is told apart: two cores, torch against itself: -2.7 % to +2.9 %."""

BUSY = 0.92
"""From this busy share on, the cores are called contended: the rest is lost to scheduling."""

CONTRADICTION, CROWDED_DOUBT = 3.0, 1.0
"""Standard errors between throughput and shares of waiting from which on only throughput counts; and on busy cores, where
fewer workers may well have made the step faster."""

_PRIOR_NOISE = 0.02
_PRIOR_WINDOWS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Windows of one plan taken together."""

    plan: Plan
    """The plan."""

    windows: int
    """How many windows."""

    batches_per_s: float
    """Throughput of the whole loop."""

    wait_share: float
    """Share of the time spent in `next()`."""

    starve_share: float
    """Share of the time lost for want of data: the GPU's where it is known, else `wait_share`."""

    stall_share: float | None
    """The GPU's share; None off CUDA."""

    take_s: float
    """Seconds that a typical batch spends in `next()`."""

    fetch_s: float
    """Seconds per batch inside a worker."""

    fetch_cpu_s: float
    """CPU seconds of them."""

    batch_bytes: float
    """Bytes of one batch."""

    worker_bytes: float
    """Private memory of one worker."""

    host_busy: float | None
    """Busy share of the cores; None when unknown."""

    spread: tuple[float, ...] = UNKNOWN_SPREAD
    """How seconds per batch are distributed, relative to their mean."""

    @property
    def step_s(self) -> float:
        """Seconds of the loop per batch without starving."""
        return max(1e-9, (1 - self.starve_share) / self.batches_per_s)

    @property
    def busy_workers(self) -> float:
        """Mean number of workers at work (Little's law)."""
        return self.batches_per_s * self.fetch_s

    @property
    def starving(self) -> float:
        """The part of `starve_share` that faster loading could save.

        Taking over a batch that is ready has a price of its own. Where workers are idle most of the time most batches
        are ready, and only what single ones take beyond the typical wait is for want of data. Besides, while the step
        starves at least one worker is at work: workers that are hardly ever at work cannot be what it waits for.
        """
        if self.plan.num_workers == 0 or self.fetch_s <= 0:
            return self.starve_share
        return min(max(0.0, self.starve_share - self._price), self.busy_workers)

    @property
    def _price(self) -> float:
        """Share of the time that goes into taking over batches that are ready, as far as it can be told."""
        if self.plan.num_workers == 0 or self.utilisation >= 0.5 or self.stall_share is not None:
            return 0.0
        return min(self.starve_share, self.take_s * self.batches_per_s)

    @property
    def utilisation(self) -> float:
        """Share of their time in which the workers are at work, 0 to 1; without workers, of what could be done meanwhile."""
        return min(1.0, self.busy_workers / self.plan.num_workers) if self.plan.num_workers else 1.0

    def worker_cores(self) -> float:
        """Cores that the workers keep busy."""
        return self.batches_per_s * self.fetch_cpu_s

    def contended(self, cores: float) -> bool:
        """Whether workers and step may be taking cores from each other."""
        if self.host_busy is None:
            return self.worker_cores() > 0.5 * cores
        return self.host_busy >= BUSY

    def costs(self, cores: float, step_cpu_s: float = math.inf) -> Costs:
        """The numbers that the model wants; seconds as they would be on cores of their own.

        `step_cpu_s`: more CPU seconds per batch than these the step does not need, whoever else is seen on the cores.

        A worker that is always at work takes `workers / rate` seconds per batch whatever it reports: what happens
        between two of its batches (sending, scheduling) belongs to its cycle.
        """
        rate, workers = self.batches_per_s, self.plan.num_workers
        fetch_s = self.fetch_s
        if workers and self.starving > NOMINAL_BAND and self.utilisation > 0.85:
            fetch_s = max(fetch_s, workers / rate)
        used_s = 0.0 if self.host_busy is None else self.host_busy * cores / rate
        fetch_cpu_s = self.fetch_cpu_s
        if workers == 0 and fetch_cpu_s == 0:
            # Nobody measured it: as much of what was used as the fetching took of the time.
            fetch_cpu_s = min(fetch_s, used_s * self.starve_share)
        # What scales with the rate is the step's own work, done while the loop is not waiting; the rest is other people's.
        step_cpu_s = min(step_cpu_s, cores * (1 - self.wait_share) / rate)
        other_cpu_s = min(step_cpu_s, max(0.0, used_s - fetch_cpu_s))
        others = max(0.0, (used_s - fetch_cpu_s - other_cpu_s) * rate)
        step_s = max(1e-9, (1 - self.starving) / rate)
        costs = Costs(
            step_s,
            fetch_s,
            fetch_cpu_s,
            other_cpu_s,
            self.batch_bytes,
            self.worker_bytes,
            host_s=None if self.stall_share is None else (1 - self.wait_share) / rate,
            take_s=self._price / rate,
            spread=self.spread,
            others=others,
        )
        if workers == 0 or not self.contended(cores):
            return costs
        # On cores that everybody wants, so much of the time is explained by the queue for them, and the rest is the work's own.
        queue = (self.busy_workers + (1 - self.wait_share) + others) / cores
        return replace(
            costs,
            fetch_s=_alone(fetch_s, fetch_cpu_s, queue),
            step_s=max(step_s / max(1.0, queue), step_s - other_cpu_s * max(0.0, queue - 1)),
        )


def _alone(busy_s: float, cpu_s: float, queue: float) -> float:
    """Seconds without a queue of so many per core; what is a third more than the queue explains is taken for waiting."""
    explained_s = cpu_s * max(1.0, queue)
    return max(1e-9, cpu_s if busy_s < 1.3 * explained_s else busy_s - explained_s + cpu_s)


def estimate(plan: Plan, windows: Iterable[Observation]) -> Estimate:
    """All windows of one plan as one: sums over sums, so that long windows weigh more."""
    rows = list(windows)
    batches = max(1, sum(row.batches for row in rows))
    elapsed_s = max(1e-9, sum(row.elapsed_s for row in rows))
    fetched = sum(row.fetched for row in rows)
    wait_s = sum(min(row.wait_s, row.elapsed_s) for row in rows)
    busy = [row.host_busy for row in rows if row.host_busy is not None]
    stalls = [row.stall_s for row in rows if row.stall_s is not None]
    in_process = plan.num_workers == 0 and fetched == 0
    return Estimate(
        plan,
        len(rows),
        batches_per_s=batches / elapsed_s,
        wait_share=wait_s / elapsed_s,
        starve_share=min(1.0, sum(row.starve_s for row in rows) / elapsed_s),
        stall_share=min(1.0, sum(stalls) / elapsed_s) if stalls else None,
        take_s=sum(row.take_s * row.batches for row in rows) / batches,
        fetch_s=wait_s / batches if in_process else sum(row.fetch_s for row in rows) / max(1, fetched),
        fetch_cpu_s=sum(row.fetch_cpu_s for row in rows) / max(1, fetched),
        batch_bytes=max(row.batch_bytes for row in rows),
        worker_bytes=max(row.worker_bytes for row in rows),
        host_busy=sum(busy) / len(busy) if busy else None,
        spread=_spread(rows),
    )


def _spread(rows: list[Observation]) -> tuple[float, ...]:
    times = [time_s for row in rows for time_s in row.fetch_times_s]
    mean = sum(times) / len(times) if times else 0.0
    return groups_of([time_s / mean for time_s in times]) if mean > 0 else UNKNOWN_SPREAD


class Evidence:
    """The windows of one load, by plan."""

    def __init__(self, cores: float) -> None:
        """`cores`: what the program may use."""
        self.cores = cores
        self._windows: dict[Plan, deque[Observation]] = {}

    def add(self, window: Observation) -> None:
        """One more window; the oldest of its plan is forgotten."""
        self._windows.setdefault(window.plan, deque(maxlen=KEPT_WINDOWS)).append(window)

    def forget(self) -> None:
        """The load has changed: nothing measured so far says anything any more."""
        self._windows.clear()

    def drop(self, plan: Plan) -> None:
        """What was measured of a plan is out of date."""
        self._windows.pop(plan, None)

    def drifted(self, plan: Plan, newest: int) -> bool:
        """Whether the newest windows of a plan differ from its older ones by more than noise (a cache became warm)."""
        windows = list(self._windows.get(plan, ()))
        if not 0 < newest < len(windows):
            return False
        older, newer = windows[:-newest], windows[-newest:]
        others = [list(rows) for other, rows in self._windows.items() if other != plan]
        noise = _scatter([*others, older, newer], _rate) * math.sqrt(1 / len(older) + 1 / len(newer))
        change = math.log(estimate(plan, newer).batches_per_s / estimate(plan, older).batches_per_s)
        return abs(change) > 2 * noise

    def keep_newest(self, plan: Plan, newest: int, *, beside: Plan) -> None:
        """Forget what was measured before the drift: all but the newest windows of `plan`, and those of `beside`."""
        kept = {beside: self._windows[beside]} if beside in self._windows else {}
        kept[plan] = deque(list(self._windows[plan])[-newest:], maxlen=KEPT_WINDOWS)
        self._windows = kept

    def plans(self) -> list[Plan]:
        """Plans with at least one window."""
        return list(self._windows)

    def of(self, plan: Plan) -> Estimate | None:
        """What is known of a plan, if anything."""
        windows = self._windows.get(plan)
        return estimate(plan, windows) if windows else None

    def present(self, plan: Plan) -> Estimate | None:
        """What a plan is like now: without its older windows when samples have become much cheaper or dearer since."""
        windows = list(self._windows.get(plan, ()))
        if not windows:
            return None
        whole, recent = estimate(plan, windows), estimate(plan, windows[-2:])
        return recent if _differ(recent.fetch_s, whole.fetch_s, 0.25) else whole

    def steady(self, plan: Plan) -> bool:
        """Whether the newest window says the same about the samples as those before it."""
        windows = list(self._windows.get(plan, ()))
        whole = estimate(plan, windows) if windows else None
        return whole is not None and not _differ(estimate(plan, windows[-1:]).fetch_s, whole.fetch_s, 0.08)

    def noise(self, value: Callable[[Estimate], float]) -> float:
        """Relative scatter of single windows around their plan's mean, pooled over plans, with a weak prior."""
        return _scatter(self._windows.values(), value)

    def band(self) -> float:
        """How far below the best still counts as the best: 2 %, on a noisy host up to 5 %.

        0.7 is the error of a ratio of two means of four windows each, in units of one window's noise.
        """
        return min(WIDEST_BAND, max(NOMINAL_BAND, 0.7 * self.noise(_rate)))

    def compare(self, one: Estimate, other: Estimate) -> tuple[float, float]:
        """How many times faster `one` is, and the standard error of that ratio.

        By the shares of waiting where they can be trusted. Without workers the fetching is part of the wait, so that the
        bound holds there too; where the waits scatter more than the throughput (a device that the host waits for in
        `next()` all the time), the shares say nothing.
        """
        by_rate = one.batches_per_s / other.batches_per_s
        rate_noise, share_noise = self.noise(_rate), self.noise(_fed)
        windows = math.sqrt(1 / one.windows + 1 / other.windows)
        rate_error = rate_noise * windows * by_rate
        fed, other_fed = _fed(one), _fed(other)
        if min(fed, other_fed) <= 0 or share_noise > 1.1 * rate_noise:
            return by_rate, rate_error
        by_share = fed / other_fed
        crowded = one.contended(self.cores) or other.contended(self.cores)
        faster = (by_rate - by_share) / rate_error
        if _asks_less(one.plan, other.plan):
            believed = faster <= (CROWDED_DOUBT if crowded else CONTRADICTION)
        elif _asks_less(other.plan, one.plan):
            believed = -faster <= (CROWDED_DOUBT if crowded else CONTRADICTION)
        else:
            believed = not crowded and abs(faster) <= CONTRADICTION
        return (by_share, share_noise * windows * by_share) if believed else (by_rate, rate_error)


def _asks_less(one: Plan, other: Plan) -> bool:
    """Whether a plan asks the host for nothing that another does not ask for too: under it, a step is no slower."""
    return one.num_workers <= other.num_workers and one.prefetch_factor <= other.prefetch_factor


def _scatter(groups: Iterable[Iterable[Observation]], value: Callable[[Estimate], float]) -> float:
    squares, degrees = _PRIOR_WINDOWS * _PRIOR_NOISE**2, float(_PRIOR_WINDOWS)
    for windows in groups:
        logs = [math.log(max(1e-9, value(estimate(window.plan, [window])))) for window in windows]
        mean = sum(logs) / len(logs)
        squares += sum((log - mean) ** 2 for log in logs)
        degrees += len(logs) - 1
    return math.sqrt(squares / degrees)


def _differ(one: float, other: float, share: float) -> bool:
    return abs(math.log(max(one, 1e-9) / max(other, 1e-9))) > share


def _rate(row: Estimate) -> float:
    return row.batches_per_s


def _fed(row: Estimate) -> float:
    return 1 - row.starve_share
