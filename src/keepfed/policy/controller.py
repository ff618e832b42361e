"""The online controller: one window in, at most one change of plan out, every one with a reason.

    explore:   measure ─→ propose ─→ Move ─→ (settling) ─→ judge ─┬─ kept: it is the incumbent now ──┐
                  ↑                                               └─ rejected: the incumbent stays ──┤
                  └──────────────────────────────────────────────────────────────────────────────────┘
               nothing left to propose, or no move left ─→ back to the incumbent ─→ Settled
    follow:    watch ─→ the load has changed ─→ explore again, with a fresh allowance of moves

The objective is the fewest workers (CPU-seconds, bytes) whose throughput of the *whole step* lies within the noise band of
the best. A search that climbs one step at a time until it stops paying spends minutes and stops at the first noisy
window; so the first guess comes from the model, in one move, and the rest are confirmations. What looks like progress may
be a page cache that has become warm: a close call is measured A/B/A, and every plan is compared with the best one of
this load, never with its predecessor alone, so that small losses cannot add up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from keepfed.plan import Plan
from keepfed.policy.cost import Bounds, fit, memory_of
from keepfed.policy.decision import Decision, Hold, JudgedMove, Limit, Move, Reason, Settled, counts, hold, why
from keepfed.policy.evidence import Estimate, Evidence
from keepfed.policy.outlook import Aim, Candidate, Findings, Outlook
from keepfed.policy.verdict import Verdict, judge
from keepfed.policy.watch import Watch
from keepfed.policy.window import Observation

__all__ = [
    "Bounds",
    "Controller",
    "Decision",
    "Hold",
    "JudgedMove",
    "Limit",
    "Move",
    "Observation",
    "Reason",
    "Settled",
]

FEWEST_WINDOWS = 2
"""Windows before a plan is judged when the case is clear."""

MOST_WINDOWS = 4
"""Windows after which a close call is decided (by going back to the incumbent once more, if moves are left)."""

PATIENCE = 13
"""Windows of one search after which nothing new is begun: a search that goes on for ever costs more than it finds."""

KEPT_MOVES = 64
"""Judged moves that are remembered."""


@dataclass(slots=True)
class _Trial:
    plan: Plan
    aim: Aim
    predicted: float
    gain: float
    rechecking: bool = False
    """The incumbent is being measured once more, between two looks at the plan (A/B/A)."""


class Controller:
    """Chooses workers and prefetch for one loader.

    `observe` is the only way in. Between a `Move` and the first whole window of a warm loader everything is ignored;
    apply the plan and go on feeding windows. `bounds` may be replaced at any time (memory gets tight, a rank joins).
    """

    def __init__(
        self,
        start: Plan,
        bounds: Bounds,
        *,
        mode: Literal["explore", "follow"] = "explore",
        max_moves: int = 6,
        wait_share: float = 0.0,
    ) -> None:
        """Starts from `start`, the plan in force; `max_moves` changes of plan are allowed per load.

        `follow`: `start` is trusted (it was settled on this host, with `wait_share`), only changes of load are acted on.
        """
        self.bounds = bounds
        self.plan = start
        """The plan that should be in force."""
        self.moves = 0
        """Changes of plan asked for so far."""
        self.log: deque[JudgedMove] = deque(maxlen=KEPT_MOVES)
        """Judged moves, oldest first; the oldest are forgotten."""
        self.judged = 0
        """Moves judged so far, forgotten ones included."""
        self.limited_by: Limit = "unknown"
        """What limited the loop when it last settled."""
        self._start = start
        self._max_moves = max_moves
        self._incumbent = start
        self._evidence = Evidence(bounds.cores)
        self._findings = Findings(max_moves)
        self._predicted: dict[Plan, float] = {}
        self._trial: _Trial | None = None
        self._settled_in: Bounds | None = None
        """The bounds within which the plan was chosen."""
        self._settling = False
        self._windows_here = 0
        self._not_applied = 0
        self._following = mode == "follow"
        self._watch = Watch(wait_share)

    # ------------------------------------------------------------------------------------------------- one window in

    def observe(self, window: Observation) -> Decision:
        """Judge one window; never raises for what a loop may do."""
        if window.plan != self.plan:
            return self._not_in_force(window)
        self._not_applied = 0
        forced = self._into_bounds(window)
        if forced is not None:
            return forced
        self._findings.windows += 1
        if self._settling or not window.all_warm:
            self._settling = False
            return hold("warming")
        self._evidence.add(window)
        self._windows_here += 1
        if self._following:
            return self._follow(window)
        if self._trial is not None:
            return self._judge(self._trial)
        return self._propose()

    def epoch_ended(self) -> Decision:
        """An epoch is over: the moment, and the only one, at which a loader that has workers may be asked to do without.

        Call it before the next epoch begins. A `Move` is to be in force from that epoch's first batch; nothing is said
        here that needs no new epoch.
        """
        allowed = self.bounds.zero_allowed and self.bounds.min_workers == 0 and self.plan.num_workers > 0
        if not allowed or self._trial is not None or self._settling or self.plan != self._incumbent:
            return hold("measuring")
        now = self._evidence.present(self.plan)
        if now is None or now.windows < FEWEST_WINDOWS or self._findings.moves_left < 2:
            return hold("measuring")
        outlook = self._outlook(now)
        if replace(self.plan, num_workers=0) in self._findings.judged or not outlook.does_without_workers():
            return hold("measuring")
        self._following = False
        self._findings.closing = self._findings.closing or self._watch.plan is not None
        return self._try(outlook.without_workers(), now)

    def predicted(self, plan: Plan) -> float:
        """Batches a second that the model expected of a plan before it was measured; 0.0 where nothing was predicted."""
        return self._predicted.get(plan, 0.0)

    def estimate(self, plan: Plan | None = None) -> Estimate | None:
        """What is known of a plan (of the one in force by default) since the load last changed."""
        return self._evidence.of(plan or self.plan)

    def _not_in_force(self, window: Observation) -> Decision:
        """Windows of an old plan are passed over; a plan that never comes into force is given up."""
        self._not_applied += 1
        if self._not_applied < MOST_WINDOWS:
            return hold("not_applied", wanted=self.plan.num_workers, present=window.plan.num_workers)
        self._findings.judged[self.plan] = 0.0
        self._findings.moves_left = 0
        self._trial, self._not_applied, self._settling = None, 0, False
        self.plan = self._incumbent = window.plan
        return hold("measuring")

    def _into_bounds(self, window: Observation) -> Move | None:
        allowed = fit(self.plan, self._reachable(), window.batch_bytes, window.worker_bytes, share=1.0)
        if allowed == self.plan:
            return None
        tight = self._reachable().clamp(self.plan) == self.plan
        if tight:
            allowed = fit(self.plan, self._reachable(), window.batch_bytes, window.worker_bytes)
        self._new_load()
        self._incumbent = allowed
        return self._go(allowed, why("memory" if tight else "bounds", **counts(allowed)), free=True)

    def _reachable(self) -> Bounds:
        """The bounds in mid-epoch: 0 workers only for a program that came from there, or is there."""
        zero = self._start.num_workers == 0 or (self.plan.num_workers == 0 and self.bounds.zero_allowed)
        fewest = self.bounds.min_workers if zero else max(1, self.bounds.min_workers)
        return replace(self.bounds, min_workers=fewest, max_workers=max(fewest, self.bounds.max_workers))

    def _go(self, plan: Plan, reason: Reason, *, free: bool = False) -> Move:
        self.plan = plan
        self.moves += 1
        if not free:
            self._findings.moves_left -= 1
        # Whatever is warm: the first window after a change still eats what had been prepared, or waits for workers to start.
        self._settling, self._windows_here = True, 0
        return Move(plan, reason)

    # ---------------------------------------------------------------------------------------------------- exploring

    def _propose(self) -> Decision:
        """Say where to go next, from the incumbent or from a plan that was just rejected."""
        now = self._evidence.present(self._incumbent)
        if now is None or now.windows < FEWEST_WINDOWS:
            return hold("measuring")
        if self._findings.moves_left >= 2 and self._findings.windows < PATIENCE and not self._findings.closing:
            for candidate in self._outlook(now).candidates():
                if candidate.plan != self.plan and self._worth_a_look(candidate.plan, now):
                    return self._try(candidate, now)
        if self.plan != self._incumbent:
            self._findings.closing = True
            return self._go(self._incumbent, why("back", **counts(self._incumbent)))
        early = self._findings.windows < PATIENCE and self._windows_here < MOST_WINDOWS
        if early and not self._evidence.steady(self._incumbent):
            return hold("measuring")
        self._findings.closing = True
        return self._settle(now)

    def _worth_a_look(self, plan: Plan, now: Estimate) -> bool:
        """Not judged yet, or judged when samples were much dearer (the page cache has become warm since)."""
        then = self._findings.judged.get(plan)
        return then is None or now.fetch_s < 0.6 * then

    def _outlook(self, now: Estimate) -> Outlook:
        return Outlook(now, self._evidence, self._findings, self._reachable())

    def _try(self, candidate: Candidate, now: Estimate) -> Move:
        self._evidence.drop(candidate.plan)
        self._trial = _Trial(candidate.plan, candidate.aim, candidate.predicted, candidate.gain)
        self._predicted[candidate.plan] = candidate.predicted
        reason = why(
            self._sentence(candidate, now),
            **counts(candidate.plan),
            before=now.plan.num_workers,
            prefetch_before=now.plan.prefetch_factor,
            wait_share=now.starve_share,
            busy=now.busy_workers,
            computing=now.worker_cores(),
            cores=self.bounds.cores,
            fetch_ms=1e3 * now.fetch_s,
        )
        return self._go(candidate.plan, reason)

    def _sentence(self, candidate: Candidate, now: Estimate) -> str:
        """Which sentence says why: fewer workers than are at work cannot be tried for idle ones."""
        if now.plan.num_workers == 0:
            return "first"
        if candidate.aim != "fewer" or candidate.plan.num_workers >= now.busy_workers - 0.05:
            return candidate.aim
        return "fewer_crowded" if now.contended(self.bounds.cores) else "fewer_queueing"

    # ------------------------------------------------------------------------------------------------------ judging

    def _judge(self, trial: _Trial) -> Decision:
        here, incumbent = self._evidence.present(trial.plan), self._evidence.present(self._incumbent)
        if here is None or incumbent is None or self._windows_here < FEWEST_WINDOWS:
            return hold("measuring")
        if trial.rechecking and self._evidence.drifted(self._incumbent, self._windows_here):
            self._evidence.keep_newest(self._incumbent, self._windows_here, beside=trial.plan)
            incumbent = self._evidence.of(self._incumbent) or incumbent
        verdict = judge(here, incumbent, self._evidence, trial.gain)
        if verdict.doubtful and not trial.rechecking:
            if self._windows_here < MOST_WINDOWS:
                return hold("measuring")
            if self._findings.moves_left >= 2 and self._findings.windows < PATIENCE and trial.aim != "zero":
                trial.rechecking = True
                return self._go(self._incumbent, why("recheck", **counts(self._incumbent)))
        return self._conclude(trial, here, incumbent, verdict)

    def _conclude(self, trial: _Trial, here: Estimate, incumbent: Estimate, verdict: Verdict) -> Decision:
        self._trial = None
        for row in (here, incumbent):
            self._findings.judged[row.plan] = row.fetch_s
        reason = why(
            f"{trial.aim}_{'kept' if verdict.kept else 'rejected'}",
            **counts(trial.plan),
            before=self._incumbent.num_workers,
            prefetch_before=self._incumbent.prefetch_factor,
            change=round(verdict.ratio - 1, 3) + 0.0,  # no "-0.0%"
        )
        self.judged += 1
        self.log.append(
            JudgedMove(
                trial.plan, here.batches_per_s, trial.predicted, here.wait_share, kept=verdict.kept, reason=reason
            )
        )
        if verdict.kept:
            self._incumbent = trial.plan
            if trial.aim == "fewer" and here.starving > self._evidence.band():
                # More were no better; on contended cores that may be their own doing, and one in between the best.
                self._findings.no_more = not incumbent.contended(self.bounds.cores)
            if self.plan != trial.plan:
                return self._go(trial.plan, reason)
        elif trial.aim in ("more", "deeper"):
            self._findings.no_more = True
        elif trial.aim == "fewer":
            self._findings.inadequate = max(self._findings.inadequate, trial.plan.num_workers)
            self._findings.knee_refuted = True
        return self._propose()

    # ----------------------------------------------------------------------------------------------------- settling

    def _settle(self, now: Estimate) -> Settled:
        self._following = True
        self._watch.restart(now, same_plan=self._watch.plan == now.plan)
        outlook = self._outlook(now)
        self.limited_by, key = outlook.limit()
        if not now.contended(self.bounds.cores):
            self._findings.step_cpu_s = now.costs(self.bounds.cores).other_cpu_s
        self._settled_in = self._reachable()
        reason = why(
            key,
            **counts(now.plan),
            wait_share=now.starve_share,
            busy=now.utilisation,
            cores=self.bounds.cores,
            memory_mb=memory_of(now.plan, now.batch_bytes, now.worker_bytes)[0] / 1e6,
        )
        return Settled(now.plan, self.limited_by, reason)

    # ---------------------------------------------------------------------------------------------------- following

    def _follow(self, window: Observation) -> Decision:
        """Nothing, until several windows in a row say that the load is another one."""
        recent = self._watch.see(window, self._evidence.band(), wider=self._has_room(window))
        if recent is None:
            return hold("following", **counts(self.plan))
        self._new_load()
        for row in recent:
            self._evidence.add(row)
        return self._propose()

    def _has_room(self, window: Observation) -> bool:
        """Whether plans are allowed now that were not when the search ended (memory is there again)."""
        then, now, plan = self._settled_in, self._reachable(), self.plan
        if then is None or then == now:
            return False
        larger = (
            replace(plan, num_workers=plan.num_workers + 1),
            replace(plan, prefetch_factor=plan.prefetch_factor + 1),
        )
        needs = window.batch_bytes, window.worker_bytes
        return any(fit(one, now, *needs) == one != fit(one, then, *needs) for one in larger)

    def _new_load(self) -> None:
        self._evidence.forget()
        self._evidence.cores = self.bounds.cores
        self._findings = Findings(self._max_moves, step_cpu_s=self._findings.step_cpu_s)
        self._trial, self._following = None, False
