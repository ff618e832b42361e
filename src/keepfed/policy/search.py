"""The exhaustive search: every plan of a grid on the running program, in laps, until the best ones are told apart.

For those who want to see the whole curve, or to check what the online controller found with its few moves. It stands where
the controller stands: one window in, at most one change of plan out. It measures each plan several times over (`race.py`),
which takes minutes instead of half a minute, and predicts nothing.

    lap, window by window ─→ lap over ─┬─ open, laps left: another lap with those that are still in the race
                                       └─ decided ─→ the cheapest within the noise band of the best ─→ Settled ─→ follow
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from keepfed.plan import Plan
from keepfed.policy.controller import KEPT_MOVES, Controller
from keepfed.policy.cost import Bounds, fit
from keepfed.policy.decision import Decision, JudgedMove, Limit, Move, Settled, counts, hold, why
from keepfed.policy.evidence import Estimate, estimate
from keepfed.policy.race import Race
from keepfed.policy.window import Observation

WORKERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of workers that are tried: closer together where one more makes a difference."""

PREFETCH = (2, 4)
"""Prefetch factors that are tried: torch's default, and twice as much. The program's own is tried as well."""

FEWEST_LAPS = 2
"""To and fro: only then does a steady drift cancel."""

MOST_LAPS = 6
"""Laps after which the cheapest plan that may be as good as the best is taken."""

NOT_THERE = 4
"""Windows of another plan after which the plan asked for is given up: its processes could not be had."""


def grid(start: Plan, bounds: Bounds) -> list[Plan]:
    """The plans to try: the program's own first, then from few workers to many, so that workers are added one by one."""
    zero = [0] if start.num_workers == 0 or bounds.zero_allowed else []
    workers = {*zero, *WORKERS, bounds.max_workers, start.num_workers}
    plans = {
        bounds.clamp(Plan(count, prefetch)) for count in workers for prefetch in {*PREFETCH, start.prefetch_factor}
    }
    plans = {plan if plan.num_workers else Plan(0, start.prefetch_factor) for plan in plans}
    return [start, *sorted(plans - {start})]


class Search:
    """Measures every plan of a grid; in every other respect like `Controller`, whose interface it has."""

    def __init__(self, start: Plan, bounds: Bounds) -> None:
        """Starts from `start`, the plan in force."""
        self.bounds = bounds
        self.plan = start
        """The plan that should be in force."""
        self.moves = 0
        """Changes of plan asked for so far."""
        self.log: deque[JudgedMove] = deque(maxlen=KEPT_MOVES)
        """One entry per window measured, in order, and at the end the plan chosen."""
        self.judged = 0
        """Entries that the log has had so far."""
        self.limited_by: Limit = "unknown"
        """What limited the loop when it settled."""
        self._race = Race()
        self._grid = grid(start, bounds)
        self._order = list(self._grid)
        self._lap = self._at = 0
        self._settling = False
        self._not_there = 0
        self._chosen: Plan | None = None
        self._follower: Controller | None = None

    def observe(self, window: Observation) -> Decision:
        """Take in one window; never raises for what a loop may do."""
        if self._follower is not None:
            return self._follow(self._follower, window)
        if window.plan != self.plan:
            return self._not_in_force(window)
        self._not_there = 0
        if not self._fits(self.plan, window):
            return self._strike(window)
        if self._settling or not window.all_warm:
            # The first window after a change eats what had been prepared, or waits for workers to start.
            self._settling = False
            return hold("warming")
        self._race.add(self._lap, window)
        if self._chosen is not None:
            return self._settle(self._chosen)
        self._note(window)
        self._at += 1
        return self._next(window)

    def epoch_ended(self) -> Decision:
        """An epoch is over; a sweep changes its plan between windows alone."""
        return hold("measuring") if self._follower is None else self._follower.epoch_ended()

    def predicted(self, plan: Plan) -> float:
        """Nothing is predicted where everything is measured; once settled, as `Controller` does."""
        return 0.0 if self._follower is None else self._follower.predicted(plan)

    def estimate(self, plan: Plan | None = None) -> Estimate | None:
        """What is known of a plan (of the one in force by default)."""
        known = self._follower.estimate(plan) if self._follower is not None else None
        return known or self._race.of(plan or self.plan)

    # ------------------------------------------------------------------------------------------------- where to go next

    def _next(self, window: Observation) -> Decision:
        """To the next plan of this lap, into another lap, or to the plan chosen."""
        while self._at < len(self._order):
            plan = self._order[self._at]
            if plan == self.plan:  # where a lap turns back
                return hold("measuring")
            if self._fits(plan, window):
                return self._go(plan)
            self._forget(plan)
        self._lap, self._at = self._lap + 1, 0
        self._race.forget_a_cold_lap()
        if self._lap < FEWEST_LAPS or not (self._race.decided() or self._lap >= MOST_LAPS):
            racing = set(self._race.racing()) if self._lap >= FEWEST_LAPS else set(self._race.plans())
            self._order = [plan for plan in reversed(self._order) if plan in racing]
            return self._next(window)
        return self._choose()

    def _go(self, plan: Plan) -> Move:
        self.plan, self._settling = plan, True
        self.moves += 1
        return Move(plan, why("sweep", **counts(plan), lap=self._lap + 1))

    def _choose(self) -> Decision:
        chosen = self._chosen = self._race.choice()
        return self._settle(chosen) if chosen == self.plan else self._go(chosen)

    def _settle(self, chosen: Plan) -> Settled:
        now = self._race.of(chosen)
        assert now is not None
        facts = {"band": self._race.band(), "plans": len(self._race.plans()), "laps": self._lap}
        reason = why("sweep_chosen", **counts(chosen), **facts)
        if len(self._grid) > 1:
            self._log(JudgedMove(chosen, now.batches_per_s, 0.0, now.wait_share, kept=True, reason=reason))
        self._follower = Controller(chosen, self.bounds, mode="follow", wait_share=now.starve_share)
        self.limited_by, key = self._limit(now)
        facts = {"wait_share": now.starve_share, "busy": now.utilisation, "cores": self.bounds.cores}
        return Settled(chosen, self.limited_by, why(key, **counts(chosen), **facts))

    def _limit(self, now: Estimate) -> tuple[Limit, str]:
        """What limits the loop under the plan that was chosen; the whole curve is known."""
        if now.contended(self.bounds.cores) and now.worker_cores() > 0.25 * self.bounds.cores:
            return "cores", "limit_cores"
        if now.starving <= self._race.band():
            return "step", "limit_step"
        most = max(plan.num_workers for plan in self._race.plans())
        if now.plan.num_workers == most >= self.bounds.max_workers:
            return "workers", "limit_workers"
        if now.fetch_cpu_s < 0.5 * now.fetch_s:
            return "io", "limit_io"
        return "unknown", "limit_unknown"

    # ----------------------------------------------------------------------------------------- what may not be measured

    def _not_in_force(self, window: Observation) -> Decision:
        """Windows of the old plan are passed over; a plan that never comes into force is left out."""
        self._not_there += 1
        if self._not_there < NOT_THERE:
            return hold("not_applied", wanted=self.plan.num_workers, present=window.plan.num_workers)
        self._not_there = 0
        return self._strike(window)

    def _strike(self, window: Observation) -> Decision:
        """The plan asked for cannot be had, or fits no longer: go on without it."""
        self._forget(self.plan)
        self.plan, self._settling = window.plan, True
        if self._chosen is None and self._order:
            return self._next(window)
        if self._race.plans():
            return self._choose()
        self._grid = self._order = [fit(self.plan, self._reachable(), window.batch_bytes, window.worker_bytes)]
        self._chosen, self._at = None, 0
        return hold("measuring") if self._order[0] == self.plan else self._go(self._order[0])

    def _forget(self, plan: Plan) -> None:
        self._race.strike(plan)
        self._order = [other for other in self._order if other != plan]

    def _fits(self, plan: Plan, window: Observation) -> bool:
        share = 1.0 if plan == window.plan else 0.9
        return fit(plan, self._reachable(), window.batch_bytes, window.worker_bytes, share=share) == plan

    def _reachable(self) -> Bounds:
        zero = self.bounds.zero_allowed or self._grid[0].num_workers == 0
        fewest = self.bounds.min_workers if zero else max(1, self.bounds.min_workers)
        return replace(self.bounds, min_workers=fewest, max_workers=max(fewest, self.bounds.max_workers))

    # ---------------------------------------------------------------------------------------------- what is said of it

    def _note(self, window: Observation) -> None:
        """One entry per window; kept: the plan is the fastest so far, of several."""
        now = estimate(window.plan, [window])
        leads = len(self._grid) > 1 and self._race.leader() == window.plan
        reason = why("sweep", **counts(window.plan), lap=self._lap + 1)
        self._log(JudgedMove(window.plan, now.batches_per_s, 0.0, now.wait_share, kept=leads, reason=reason))

    def _log(self, move: JudgedMove) -> None:
        self.log.append(move)
        self.judged += 1

    def _follow(self, follower: Controller, window: Observation) -> Decision:
        """Settled: from here on the controller watches for changes of load."""
        follower.bounds, before = self.bounds, follower.judged
        decision = follower.observe(window)
        for move in list(follower.log)[-(follower.judged - before) :] if follower.judged > before else ():
            self._log(move)
        self.plan, self.moves, self.limited_by = (
            follower.plan,
            self.moves + isinstance(decision, Move),
            follower.limited_by,
        )
        return decision
