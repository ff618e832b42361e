"""The exhaustive search: every plan of a grid on the running program, in laps, until the best ones are told apart.

For those who want to see the whole curve, or to check what the online controller found with its few moves. It stands where
the controller stands: one window in, at most one change of plan out. It measures each plan several times over (`race.py`),
which takes minutes instead of half a minute. What the model expected of each is kept beside what was measured; it decides
nothing here.

    lap, window by window ─→ lap over ─┬─ open, laps left: another lap with those that are still in the race
                                       └─ decided ─→ the cheapest within the noise band of the best ─→ Settled ─→ follow
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from keepfed.plan import Plan
from keepfed.policy.controller import KEPT_MOVES, Controller
from keepfed.policy.cost import Bounds, fit, memory_of
from keepfed.policy.decision import Decision, JudgedMove, Limit, Move, Settled, counts, hold, why
from keepfed.policy.evidence import Estimate, Evidence, estimate
from keepfed.policy.outlook import Findings, Outlook
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
    zero = (
        [0] if start.num_workers == 0 else []
    )  # a program that has workers may do without them from an epoch's end only
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
        self._evidence = Evidence(bounds.cores)
        self._predicted: dict[Plan, float] = {}
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
        self._evidence.add(window)
        if self._chosen is not None:
            return self._settle(self._chosen)
        self._note(window)
        self._at += 1
        return self._next(window)

    def estimate(self, plan: Plan | None = None) -> Estimate | None:
        """What is known of a plan (of the one in force by default)."""
        known = self._follower.estimate(plan) if self._follower is not None else None
        return known or self._race.of(plan or self.plan)

    def epoch_ended(self) -> Decision:
        """While the grid is measured nothing special; once settled, as the controller."""
        if self._follower is None:
            return hold("measuring")
        self._follower.bounds = self.bounds
        decision = self._follower.epoch_ended()
        self.plan = self._follower.plan
        return decision

    def predicted(self, plan: Plan) -> float:
        """Batches a second that the model expected of a plan before it was measured; 0.0 where nothing was predicted."""
        known = self._follower.predicted(plan) if self._follower is not None else 0.0
        return known or self._predicted.get(plan, 0.0)

    # ------------------------------------------------------------------------------------------------- where to go next

    def _next(self, window: Observation) -> Decision:
        """To the next plan of this lap, into another lap, or to the plan chosen."""
        while self._at < len(self._order):
            plan = self._order[self._at]
            if plan == self.plan:  # where a lap turns back
                return hold("measuring")
            if self._fits(plan, window):
                self._predict(plan)
                return self._go(plan)
            self._forget(plan)
        if not self._race.plans():
            return self._only_what_fits(window)
        self._lap, self._at = self._lap + 1, 0
        self._race.forget_a_cold_lap()
        if self._lap < FEWEST_LAPS or not (self._race.decided() or self._lap >= MOST_LAPS):
            racing = set(self._race.racing()) if self._lap >= FEWEST_LAPS else set(self._race.plans())
            self._order = [plan for plan in reversed(self._order) if plan in racing]
            return self._next(window)
        return self._choose()

    def _predict(self, plan: Plan) -> None:
        """What the model expects of a plan, from what was measured of the one before."""
        now = self._race.of(self.plan)
        if now is not None and self._race.of(plan) is None:
            outlook = Outlook(now, self._evidence, Findings(0), self._reachable())
            self._predicted[plan] = outlook.predicted(plan)

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
            self._log(
                JudgedMove(chosen, now.batches_per_s, self.predicted(chosen), now.wait_share, kept=True, reason=reason)
            )
        self._follower = Controller(chosen, self.bounds, mode="follow", wait_share=now.starve_share)
        findings = Findings(0, no_more=chosen.num_workers < max(plan.num_workers for plan in self._race.plans()))
        self.limited_by, key = Outlook(now, self._evidence, findings, self._reachable()).limit()
        reason = why(
            key,
            **counts(chosen),
            wait_share=now.starve_share,
            busy=now.utilisation,
            cores=self.bounds.cores,
            memory_mb=memory_of(chosen, now.batch_bytes, now.worker_bytes)[0] / 1e6,
        )
        return Settled(chosen, self.limited_by, reason)

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
        return self._choose() if self._race.plans() else self._only_what_fits(window)

    def _only_what_fits(self, window: Observation) -> Decision:
        """No plan of the grid may be measured: the nearest one that memory leaves is the one to choose."""
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
        fewest = self.bounds.min_workers if self._grid[0].num_workers == 0 else max(1, self.bounds.min_workers)
        return replace(self.bounds, min_workers=fewest, max_workers=max(fewest, self.bounds.max_workers))

    # ---------------------------------------------------------------------------------------------- what is said of it

    def _note(self, window: Observation) -> None:
        """One entry per window; kept: the plan is the fastest so far, of several."""
        now = estimate(window.plan, [window])
        leads = len(self._grid) > 1 and self._race.leader() == window.plan
        reason, expected = why("sweep", **counts(window.plan), lap=self._lap + 1), self.predicted(window.plan)
        self._log(JudgedMove(window.plan, now.batches_per_s, expected, now.wait_share, kept=leads, reason=reason))

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
