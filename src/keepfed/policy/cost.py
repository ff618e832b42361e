"""What a plan costs and brings: throughput, memory and shared memory of a `Plan`, predicted from what was measured.

Rules of thumb (cores minus one, four per GPU, half the memory) know neither the step nor the samples. This model knows a
few measured numbers, how unevenly the samples' times are distributed, and the ceilings of the host. It proposes where to go,
so that a few confirmed moves suffice. It never decides; its prediction is kept beside what was then measured.

    Costs ─▶ how much do workers and step slow each other down on the cores?  (`crowding`)
          ─▶ a few hundred batches with those times, played through           (pipeline.py)
          ─▶ no more than the cores and the source of the samples give        Prediction
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keepfed.plan import Plan
from keepfed.policy.pipeline import throughput

ENOUGH = 0.99
"""Workers are planned for this share of the best throughput that the model sees for any number of them."""

UNKNOWN_SPREAD = (0.7, 0.9, 1.1, 1.3)
"""How the times of batches are taken to be distributed until some were measured: at a spread of zero the mean demand would
look like enough, and then any variation starves the step."""

MEMORY_SHARE = 0.9
"""A plan is proposed only when it is predicted to fit into this share of the memory; the rest is for outliers."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a plan for one loader may use; the limits of the host divided among its ranks and loaders."""

    min_workers: int
    """Fewest workers that may be chosen."""

    max_workers: int
    """Most workers that may be chosen."""

    cores: float
    """CPU cores that the program may use, fractions included."""

    memory_bytes: float
    """Memory available to this loader: private memory of its workers and batches in preparation."""

    max_prefetch: int = 16
    """Largest prefetch factor that may be chosen."""

    max_outstanding: int = 1024
    """Largest workers x prefetch: how far ahead of the program the sampler is read."""

    zero_allowed: bool = False
    """Whether loading in the training process itself may be chosen for a program that did not ask for it."""

    short_of_memory: bool = False
    """Whether `max_workers` and `max_prefetch` are what memory has room for at present, and not what was allowed."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers:
            raise ValueError(
                f"min_workers={self.min_workers}, max_workers={self.max_workers}: expected 0 <= min <= max"
            )
        if self.cores <= 0 or self.max_prefetch < 1 or self.max_outstanding < 1:
            raise ValueError(f"expected positive cores, max_prefetch and max_outstanding, got {self}")

    def clamp(self, plan: Plan) -> Plan:
        """The nearest plan inside the counts (memory is another question, see `fit`)."""
        most = max(self.min_workers, min(self.max_workers, self.max_outstanding))
        workers = min(max(plan.num_workers, self.min_workers), most)
        prefetch = min(plan.prefetch_factor, self.max_prefetch, self.max_outstanding // max(1, workers))
        return Plan(workers, max(1, prefetch))


@dataclass(frozen=True, slots=True)
class Costs:
    """What one batch was measured to cost, on cores that nobody else wants."""

    step_s: float
    """Seconds of the training loop per batch without starving; wall time."""

    fetch_s: float
    """Seconds per batch inside a worker; wall time."""

    fetch_cpu_s: float
    """CPU seconds of them."""

    other_cpu_s: float
    """CPU seconds per batch spent outside the workers, at most what the step can have used; 0 when unknown."""

    batch_bytes: float
    """Bytes of one batch in transport."""

    worker_bytes: float
    """Private memory of one worker."""

    host_s: float | None = None
    """Seconds per batch in which the training process itself is busy, without starving and without taking batches over,
    where the step runs asynchronously on another device; None: it is busy for the whole step."""

    take_s: float = 0.0
    """Part of `step_s` that goes into taking over a ready batch from a worker; 0 when unknown."""

    spread: tuple[float, ...] = UNKNOWN_SPREAD
    """How the seconds per batch are distributed: means of equal groups, relative to the mean of all (see pipeline.py)."""

    others: float = 0.0
    """Threads of other programs that compute all the time."""

    source_per_s: float = math.inf
    """Batches a second at which workers only queue for the source of the samples (disk, network)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan is expected to bring and to need."""

    batches_per_s: float
    """Throughput of the whole training loop."""

    memory_bytes: float
    """Private memory of the workers plus the batches in preparation."""

    shared_bytes: float
    """The batches in preparation alone: what lies in shared memory."""

    limited_by: str
    """What the throughput is nearest to: that of the step, the cores, the source, or the workers as they fetch."""


def predict(plan: Plan, costs: Costs, cores: float) -> Prediction:
    """The model: batches played through workers and step, within what cores and source give."""
    memory, shared = memory_of(plan, costs.batch_bytes, costs.worker_bytes)
    cpu_s = costs.fetch_cpu_s + costs.other_cpu_s
    by_cores = cores / cpu_s if cpu_s > 0 else math.inf
    by_step = 1 / max(costs.step_s - (0.0 if plan.num_workers else costs.take_s), 1e-9)
    if plan.num_workers == 0:
        host_s = costs.step_s - costs.take_s if costs.host_s is None else costs.host_s
        by_hand = min(by_step, 1 / max(host_s + costs.fetch_s, 1e-9))
        rates = {"step" if costs.fetch_s < costs.step_s else "workers": by_hand, "cores": by_cores}
    else:
        rates = {
            "step": by_step,
            "cores": by_cores,
            "source": costs.source_per_s,
            "workers": _played(plan, costs, cores),
        }
    limit = min(rates, key=rates.__getitem__)
    # A step that is fed is the limit, though it was played through with the workers.
    limit = "step" if limit == "workers" and plan.num_workers and rates[limit] >= ENOUGH * by_step else limit
    return Prediction(min(rates.values()), memory, shared, limit)


def _played(plan: Plan, costs: Costs, cores: float) -> float:
    slower_fetch, slower_step = ((1 + slower) / 2 for slower in crowding(plan.num_workers, costs, cores))
    fetch_s = max(1e-9, costs.fetch_s + costs.fetch_cpu_s * (slower_fetch - 1))
    step_s = costs.step_s + min(costs.step_s, costs.other_cpu_s) * (slower_step - 1)
    times = [fetch_s * share for share in costs.spread]
    return throughput(plan.num_workers, plan.prefetch_factor, times, step_s)


def crowding(workers: int, costs: Costs, cores: float) -> tuple[float, float]:
    """How many times slower workers and step compute than on cores of their own.

    Whoever computes shares the cores evenly with all that want to compute at that moment; how many those are depends in turn
    on how slow everybody is, so that the answer is approached in a few rounds (as in mean value analysis of queues).
    """
    slower_fetch = slower_step = 1.0
    if workers + max(1.0, costs.other_cpu_s / max(costs.step_s, 1e-9)) + costs.others <= cores:
        return slower_fetch, slower_step
    for _ in range(_ROUNDS):
        fetch_s = costs.fetch_s + costs.fetch_cpu_s * (slower_fetch - 1)
        step_s = costs.step_s + min(costs.step_s, costs.other_cpu_s) * (slower_step - 1)
        rate = min(workers / max(fetch_s, 1e-9), 1 / max(step_s, 1e-9), costs.source_per_s)
        computing = min(1.0, rate * costs.fetch_cpu_s * slower_fetch / workers)
        stepping = rate * costs.other_cpu_s * slower_step
        slower_fetch = (slower_fetch + _slower(workers - 1, computing, stepping + costs.others, cores)) / 2
        slower_step = (slower_step + _slower(workers, computing, costs.others, cores)) / 2
    return slower_fetch, slower_step


_ROUNDS = 12


def _slower(rivals: int, computing: float, always: float, cores: float) -> float:
    """Mean of (all who compute) / cores, at least 1, where each rival computes for this share of its time."""
    chance, slower = (1 - computing) ** rivals, 0.0
    if computing >= 1 or chance <= 0:
        return max(1.0, (1 + rivals * computing + always) / cores)
    for count in range(rivals + 1):
        slower += chance * max(1.0, (1 + count + always) / cores)
        chance *= (rivals - count) / (count + 1) * computing / (1 - computing)
    return slower


def memory_of(plan: Plan, batch_bytes: float, worker_bytes: float) -> tuple[float, float]:
    """Bytes that a plan needs: in all, and in shared memory (every batch in preparation, and one being used)."""
    shared = (plan.num_workers * plan.prefetch_factor + 1) * batch_bytes
    return shared + plan.num_workers * worker_bytes, shared


def workers_needed(costs: Costs, cores: float, prefetch: int = 2, most: int = 1024) -> int:
    """The fewest workers that give `ENOUGH` of what any number up to `most` would give; 1 at least.

    The mean number at work is the rate times the seconds that each batch takes (Little's law): fewer cannot be enough.
    """
    ceiling = min(1 / max(costs.step_s, 1e-9), costs.source_per_s)
    if (cpu_s := costs.fetch_cpu_s + costs.other_cpu_s) > 0:
        ceiling = min(ceiling, cores / cpu_s)
    fewest = max(1, math.ceil(ENOUGH * ceiling * costs.fetch_s - 1e-9))
    most = max(1, min(most, 2 * fewest + 8))
    goal = ENOUGH * predict(Plan(most, prefetch), costs, cores).batches_per_s
    fewest = min(fewest, most)
    while fewest < most:
        middle = (fewest + most) // 2
        if predict(Plan(middle, prefetch), costs, cores).batches_per_s >= goal:
            most = middle
        else:
            fewest = middle + 1
    return fewest


def fit(plan: Plan, bounds: Bounds, batch_bytes: float, worker_bytes: float, share: float = MEMORY_SHARE) -> Plan:
    """The nearest plan inside all bounds, memory included: prefetch goes first, then workers (down to the fewest)."""
    plan = bounds.clamp(plan)
    while memory_of(plan, batch_bytes, worker_bytes)[0] > share * bounds.memory_bytes:
        if plan.prefetch_factor > 1:
            plan = replace(plan, prefetch_factor=plan.prefetch_factor - 1)
        elif plan.num_workers > max(1, bounds.min_workers):
            plan = replace(plan, num_workers=plan.num_workers - 1)
        else:
            break
    return plan
