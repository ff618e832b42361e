"""What could be tried from here, and what limits the loop if nothing more is: the proposing half of the controller.

    now (measured) ─▶ Costs ─▶ the model's throughput of any plan ─▶ candidates, best first ─▶ controller.py tries and judges

More workers where the step starves and the model sees a gain; deeper prefetch where the supply is enough on average and
single slow batches are the trouble; fewer workers where the model sees no loss. The model is wrong where it has seen one side
only (a disk that is saturated looks like a slow one), so that every refutation is remembered and narrows what is proposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from keepfed.plan import Plan
from keepfed.policy.cost import ENOUGH, Bounds, Costs, fit, memory_of, predict, workers_needed
from keepfed.policy.decision import Limit
from keepfed.policy.evidence import Estimate, Evidence

BURSTY = 0.85
"""Workers busier than this are the limit themselves; less busy ones that still starve the step deliver in bursts."""

ALWAYS_BUSY = 0.95
"""The same where more workers are out of the question."""

TAKEN = 0.97
"""From this busy share of the cores on, more workers are not even tried."""

OWN = 0.9
"""Below this share of the cores for the program itself, others have the rest, and more workers get a larger share."""

WORTH = 0.01
"""A gain below this is not worth a move, and a loss below it does not speak against fewer workers."""

LEAST_WORKER_BYTES = 5e7
"""A worker is never cheaper than this: a process that has imported torch."""

Aim = Literal["more", "deeper", "prefetch", "fewer", "zero"]
"""More workers, more of them with deeper prefetch, deeper prefetch, fewer workers, or none (at an epoch's end)."""


@dataclass(slots=True)
class Findings:
    """What has been learnt since the load last changed."""

    moves_left: int
    windows: int = 0
    """Windows seen in this search."""
    inadequate: int = -1
    """Largest number of workers that was too few."""
    no_more: bool = False
    """More workers were tried and brought nothing."""
    knee_refuted: bool = False
    """Fewer workers at a saturated source were tried and did lose."""
    closing: bool = False
    """The search is over: at most the way back to the incumbent is left."""
    step_cpu_s: float = math.inf
    """CPU seconds per batch that the step was seen to need when cores were free; more than that is other people's work."""
    judged: dict[Plan, float] = field(default_factory=dict)
    """Plans that have been judged, and the seconds that a worker took per batch then."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan worth trying."""

    plan: Plan
    """The plan."""

    aim: Aim
    """What it is tried for."""

    predicted: float
    """Batches a second that the model expects of it."""

    gain: float
    """How many times as much that is as what the model expects of the present plan."""


class Outlook:
    """The view from one plan, at one moment of a search."""

    def __init__(self, now: Estimate, evidence: Evidence, findings: Findings, bounds: Bounds) -> None:
        """`now`: the incumbent, as it is at present; `bounds`: what may be chosen in mid-epoch."""
        self._now, self._evidence, self._findings, self._bounds = now, evidence, findings, bounds
        self._costs = self._costs_seen()

    def _costs_seen(self) -> Costs:
        """What the model is told; at a saturated source, the times of when few workers were there, and its limit."""
        costs = self._now.costs(self._bounds.cores, self._findings.step_cpu_s)
        if self.saturated() and not self._now.contended(self._bounds.cores):
            return replace(costs, fetch_s=self._quickest_fetch(), source_per_s=self._now.batches_per_s)
        return costs

    def predicted(self, plan: Plan) -> float:
        """Batches a second that the model expects of a plan."""
        return predict(plan, self._costs, self._bounds.cores).batches_per_s

    # ---------------------------------------------------------------------------------------------- plans worth trying

    def candidates(self) -> list[Candidate]:
        """Plans worth trying, best first."""
        starved = self._now.starving > max(WORTH, 0.5 * self._evidence.band())
        found: list[Candidate | None] = self._for_the_starving() if starved else []
        found.append(self._fewer(starved=starved))
        if self._findings.inadequate > 0:
            low = self._evidence.of(replace(self._now.plan, num_workers=self._findings.inadequate))
            if low is not None and low.utilisation < BURSTY:
                deeper = replace(low.plan, prefetch_factor=2 * low.plan.prefetch_factor)
                found.insert(-1, Outlook(low, self._evidence, self._findings, self._bounds)._candidate(deeper))
        return [candidate for candidate in found if candidate is not None]

    def _for_the_starving(self) -> list[Candidate | None]:
        """What the model wants first; then, since it may have missed something, one step in the direction that is open."""
        now, crowded = self._now, self._now.contended(self._bounds.cores)
        beyond_knee = self.saturated() and self._knee() < now.plan.num_workers
        wider = not (self._findings.no_more or beyond_knee or self.short_of_cores())
        found = [self._modelled(self._bounds.max_workers if wider else now.plan.num_workers)]
        if wider and now.utilisation > BURSTY:
            found.append(self._candidate(replace(now.plan, num_workers=now.plan.num_workers + 1)))
        if now.utilisation < (BURSTY if wider else ALWAYS_BUSY) and not crowded and now.plan.num_workers:
            found.append(self._candidate(replace(now.plan, prefetch_factor=2 * now.plan.prefetch_factor)))
        return found

    def _modelled(self, most: int) -> Candidate | None:
        """The cheapest plan with up to `most` workers that is as good as the best by the model."""
        now = self._now.plan
        deeper = self._leanest_of([now.prefetch_factor << doublings for doublings in range(5)], most)
        shallower = self._leanest_of([factor for factor in (4, 2, 1) if factor < now.prefetch_factor], most)
        best = max([*deeper.values(), *shallower.values()], default=0.0)
        if best < (1 + WORTH) * self.predicted(now):
            return None
        # Less prefetch than now makes room for workers where memory is scarce; to save a few batches it is not worth a move.
        good = [plan for plan, rate in deeper.items() if rate >= ENOUGH * best]
        good = good or [plan for plan, rate in shallower.items() if rate >= ENOUGH * best]
        return self._candidate(min(good, key=self._price))

    def _leanest_of(self, factors: list[int], most: int) -> dict[Plan, float]:
        """For each prefetch the fewest workers that do, and what the model expects of them."""
        plans = [plan for factor in factors if (plan := self._leanest(factor, most)) is not None]
        return {plan: self.predicted(plan) for plan in plans}

    def _price(self, plan: Plan) -> tuple[float, int]:
        """What a plan takes from the host: workers and batches in preparation are both paid in memory."""
        now = self._now
        return memory_of(plan, now.batch_bytes, max(now.worker_bytes, LEAST_WORKER_BYTES))[0], plan.prefetch_factor

    def _leanest(self, prefetch: int, most: int) -> Plan | None:
        """The fewest workers with this prefetch that bring what any number of them brings; None where not one fits."""
        now, bounds = self._now, self._bounds
        for workers in range(most, 0, -1):
            plan = Plan(workers, prefetch)
            if fit(plan, bounds, now.batch_bytes, now.worker_bytes) == plan:
                needed = workers_needed(self._costs, bounds.cores, prefetch, workers)
                return Plan(max(needed, bounds.min_workers), prefetch)
        return None

    def _candidate(self, plan: Plan) -> Candidate | None:
        now = self._now
        wanted = plan
        plan = fit(plan, self._bounds, now.batch_bytes, now.worker_bytes)
        if plan == now.plan or (plan != wanted and plan <= now.plan):
            return None
        gain = self.predicted(plan) / max(1e-9, self.predicted(now.plan))
        return Candidate(plan, _aim(now.plan, plan), self.predicted(plan), gain)

    def _fewer(self, *, starved: bool) -> Candidate | None:
        """As few workers as may still do."""
        now, inadequate = self._now, self._findings.inadequate
        workers = self._fewest_that_may_do(starved=starved)
        if workers <= inadequate:
            workers = (inadequate + now.plan.num_workers) // 2
        workers = max(self._bounds.min_workers, inadequate + 1, workers)
        if workers >= now.plan.num_workers:
            return None
        return self._candidate(replace(now.plan, num_workers=workers))

    def _fewest_that_may_do(self, *, starved: bool) -> int:
        now, cores = self._now, self._bounds.cores
        computing = max(1, math.ceil(now.worker_cores() - 0.02))
        if now.contended(cores) and not self.saturated():
            # How long a worker would take if nobody else wanted the cores is not known: its CPU seconds at least.
            # One more than they keep cores busy: while one waits for its sample or its turn, another computes.
            return max(computing + 1, self._without_loss())
        if not starved or (now.plan.num_workers and now.utilisation < BURSTY):
            if self._bounds.min_workers == 0 and self.does_without_workers():
                return 0
            return max(1, math.ceil(now.busy_workers - 0.02), self._without_loss())
        if self.saturated():
            return self._knee()
        if self.short_of_cores():
            return computing
        if self._findings.no_more:
            return max(computing, now.plan.num_workers // 2)
        return now.plan.num_workers

    def _without_loss(self) -> int:
        """The fewest workers that lose nothing, as the model sees it."""
        now = self._now.plan
        return workers_needed(self._costs, self._bounds.cores, now.prefetch_factor, now.num_workers)

    def does_without_workers(self) -> bool:
        """Whether the training process might as well make its batches itself, as the model sees it."""
        return self.predicted(Plan(0)) >= (1 - WORTH) * self._now.batches_per_s

    def without_workers(self) -> Candidate:
        """No workers, from an epoch's end on."""
        plan = replace(self._now.plan, num_workers=0)
        rate = self.predicted(plan)
        return Candidate(plan, "zero", rate, rate / max(1e-9, self.predicted(self._now.plan)))

    # ------------------------------------------------------------------------------------------------ what is the limit

    def _quickest_fetch(self) -> float:
        """Seconds per batch in a worker when few of them were at work."""
        now = self._now
        rows = [
            self._evidence.of(plan) for plan in self._evidence.plans() if 0 < plan.num_workers < now.plan.num_workers
        ]
        return min([row.fetch_s for row in rows if row is not None and row.fetch_s > 0], default=now.fetch_s)

    def _knee(self) -> int:
        """Workers that would bring as much, if each were as quick as where there were few."""
        return max(1, math.ceil(self._now.batches_per_s * self._quickest_fetch() - 0.02))

    def saturated(self) -> bool:
        """Whether workers only get in each other's way: each takes much longer than when there were fewer."""
        now = self._now
        quicker = now.fetch_s > 1.3 * self._quickest_fetch()
        return not self._findings.knee_refuted and now.utilisation > BURSTY and quicker

    def short_of_cores(self) -> bool:
        """Whether the cores are taken, by work of this program that more workers would only add to."""
        now, cores = self._now, self._bounds.cores
        share = now.worker_cores() / cores
        if now.host_busy is None:
            return share > BURSTY
        own = now.batches_per_s * (now.fetch_cpu_s + self._costs.other_cpu_s) / cores
        return now.host_busy >= TAKEN and share > 0.25 and own > OWN

    def limit(self) -> tuple[Limit, str]:
        """What limits the loop under this plan, if it is the one chosen, and the sentence that says so."""
        now, bounds, findings = self._now, self._bounds, self._findings
        contended = now.contended(bounds.cores)
        if self.short_of_cores() or (contended and now.worker_cores() > 0.25 * bounds.cores):
            return "cores", "limit_cores"
        if now.starving <= self._evidence.band():
            return "step", "limit_step"
        if now.plan.num_workers and now.utilisation < BURSTY:
            return "unknown", "limit_bursts"
        if findings.no_more or findings.inadequate >= 0 or self.saturated():
            if now.fetch_cpu_s < 0.5 * now.fetch_s and not contended:
                return "io", "limit_io"
            return ("cores", "limit_cores") if contended else ("unknown", "limit_unknown")
        wider = replace(now.plan, num_workers=now.plan.num_workers + 1)
        if bounds.clamp(wider).num_workers == now.plan.num_workers:
            return ("memory", "limit_memory") if bounds.short_of_memory else ("workers", "limit_workers")
        if fit(wider, bounds, now.batch_bytes, now.worker_bytes).num_workers <= now.plan.num_workers:
            return "memory", "limit_memory"
        return "unknown", "limit_unknown"


def _aim(now: Plan, plan: Plan) -> Aim:
    if plan.num_workers > now.num_workers:
        return "more" if plan.prefetch_factor <= now.prefetch_factor else "deeper"
    return "prefetch" if plan.prefetch_factor > now.prefetch_factor else "fewer"
