"""What a plan costs and brings: throughput, memory and shared memory of a `Plan`, predicted from what was measured.

Rules of thumb (cores minus one, four per GPU, half the memory) know neither the step nor the samples. This model knows
five measured numbers and three ceilings, and is used for one thing: to make the first guess land near the answer, so
that a few confirmed moves suffice. It never decides; its prediction is kept beside what was then measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keepfed.plan import Plan

SPARE = 1.15
"""Workers are planned for this much more than the mean demand: at exactly the mean, any variation starves the step."""

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
    """What one batch was measured to cost, under one plan."""

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
    """Which term of the model is the smallest: step, cores, or workers (waiting for them to fetch)."""


def predict(plan: Plan, costs: Costs, cores: float) -> Prediction:
    """The model: the slowest of the step, the workers together, and the cores that both share."""
    memory, shared = memory_of(plan, costs.batch_bytes, costs.worker_bytes)
    cpu_s = costs.fetch_cpu_s + costs.other_cpu_s
    by_cores = cores / cpu_s if cpu_s > 0 else math.inf
    if plan.num_workers == 0:
        rate = 1 / max(costs.step_s + costs.fetch_s, 1e-9)
        return Prediction(min(rate, by_cores), memory, shared, "step" if costs.fetch_s < costs.step_s else "workers")
    rates = {
        "step": 1 / max(costs.step_s, 1e-9),
        "cores": by_cores,
        "workers": plan.num_workers / max(costs.fetch_s, 1e-9),
    }
    limit = min(rates, key=rates.__getitem__)
    return Prediction(rates[limit], memory, shared, limit)


def memory_of(plan: Plan, batch_bytes: float, worker_bytes: float) -> tuple[float, float]:
    """Bytes that a plan needs: in all, and in shared memory (every batch in preparation, and one being used)."""
    shared = (plan.num_workers * plan.prefetch_factor + 1) * batch_bytes
    return shared + plan.num_workers * worker_bytes, shared


def workers_needed(costs: Costs, cores: float) -> int:
    """How many workers feed the step, or as much of it as the cores allow, with some to spare.

    Seconds per batch in a worker over seconds per batch of the best reachable loop (Little's law: the mean number of
    workers at work is the rate times the time that each batch takes).
    """
    best = predict(Plan(1024), costs, cores).batches_per_s
    return max(1, math.ceil(best * costs.fetch_s * SPARE - 1e-9))


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
