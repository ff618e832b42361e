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

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from keepfed.plan import Plan
from keepfed.policy.cost import Bounds, fit, memory_of, predict, workers_needed
from keepfed.policy.decision import Decision, Hold, JudgedMove, Limit, Move, Reason, Settled, counts, hold, why
from keepfed.policy.evidence import Estimate, Evidence
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

CLEAR = 1.5
"""Standard errors from the threshold that make a case clear."""

PATIENCE = 13
"""Windows of one search after which nothing new is begun: a search that goes on for ever costs more than it finds."""

BURSTY = 0.85
"""Workers busier than this are the limit themselves; less busy ones that still starve the step deliver in bursts."""

ALWAYS_BUSY = 0.95
"""The same where more workers are out of the question."""

TAKEN = 0.97
"""From this busy share of the cores on, more workers are not even tried."""

KEPT_MOVES = 64
"""Judged moves that are remembered."""


@dataclass(slots=True)
class _Trial:
    plan: Plan
    why: Literal["more", "fewer", "prefetch"]
    predicted: float
    rechecking: bool = False
    """The incumbent is being measured once more, between two looks at the plan (A/B/A)."""


@dataclass(slots=True)
class _Load:
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
    judged: dict[Plan, float] = field(default_factory=dict)
    """Plans that have been judged, and the seconds that a worker took per batch then."""


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
        self._load = _Load(max_moves)
        self._trial: _Trial | None = None
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
        self._load.windows += 1
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

    def estimate(self, plan: Plan | None = None) -> Estimate | None:
        """What is known of a plan (of the one in force by default) since the load last changed."""
        return self._evidence.of(plan or self.plan)

    def _not_in_force(self, window: Observation) -> Decision:
        """Windows of an old plan are passed over; a plan that never comes into force is given up."""
        self._not_applied += 1
        if self._not_applied < MOST_WINDOWS:
            return hold("not_applied", wanted=self.plan.num_workers, present=window.plan.num_workers)
        self._load.judged[self.plan] = 0.0
        self._load.moves_left = 0
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
        """The bounds, where 0 workers count only for those who may go there (or came from there)."""
        zero = self.bounds.zero_allowed or self._start.num_workers == 0
        fewest = self.bounds.min_workers if zero else max(1, self.bounds.min_workers)
        return replace(self.bounds, min_workers=fewest, max_workers=max(fewest, self.bounds.max_workers))

    def _go(self, plan: Plan, reason: Reason, *, free: bool = False) -> Move:
        self.plan = plan
        self.moves += 1
        if not free:
            self._load.moves_left -= 1
        # Whatever is warm: the first window after a change still eats what had been prepared, or waits for workers to start.
        self._settling, self._windows_here = True, 0
        return Move(plan, reason)

    # ---------------------------------------------------------------------------------------------------- exploring

    def _propose(self) -> Decision:
        """Say where to go next, from the incumbent or from a plan that was just rejected."""
        now = self._evidence.present(self._incumbent)
        if now is None or now.windows < FEWEST_WINDOWS:
            return hold("measuring")
        if self._load.moves_left >= 2 and self._load.windows < PATIENCE and not self._load.closing:
            for trial in self._candidates(now):
                if trial.plan != self.plan and self._worth_a_look(trial.plan, now):
                    self._evidence.drop(trial.plan)
                    self._trial = trial
                    return self._go(trial.plan, self._why_try(trial, now))
        if self.plan != self._incumbent:
            self._load.closing = True
            return self._go(self._incumbent, why("back", **counts(self._incumbent)))
        early = self._load.windows < PATIENCE and self._windows_here < MOST_WINDOWS
        if early and not self._evidence.steady(self._incumbent):
            return hold("measuring")
        self._load.closing = True
        return self._settle(now)

    def _worth_a_look(self, plan: Plan, now: Estimate) -> bool:
        """Not judged yet, or judged when samples were much dearer (the page cache has become warm since)."""
        then = self._load.judged.get(plan)
        return then is None or now.fetch_s < 0.6 * then

    def _candidates(self, now: Estimate) -> list[_Trial]:
        """Plans worth trying from here, best first."""
        found: list[_Trial | None] = []
        band = self._evidence.band()
        starved = now.starving > band
        if starved:
            more = None
            if (
                now.utilisation > 0.5
                and not self._load.no_more
                and not self._saturated(now)
                and not self._short_of_cores(now)
            ):
                more = self._more(now)
            deeper = self._deeper(now) if now.utilisation < (BURSTY if more is not None else ALWAYS_BUSY) else None
            # Prefetch evens out a supply that is enough on average; it cannot make up for workers that are missing.
            enough = now.plan.num_workers * now.step_s > 0.95 * now.fetch_s
            found += [deeper, more] if enough else [more, deeper]
        found.append(self._fewer(now, starved=starved))
        if self._load.inadequate > 0:
            low = self._evidence.of(replace(now.plan, num_workers=self._load.inadequate))
            if low is not None and low.utilisation < BURSTY:
                found.insert(-1, self._deeper(low))
        return [trial for trial in found if trial is not None]

    def _why_try(self, trial: _Trial, now: Estimate) -> Reason:
        return why(
            trial.why,
            **counts(trial.plan),
            before=now.plan.num_workers,
            prefetch_before=now.plan.prefetch_factor,
            wait_share=now.starve_share,
            busy=now.busy_workers,
        )

    def _trial_of(self, plan: Plan, why: Literal["more", "fewer", "prefetch"], now: Estimate) -> _Trial | None:
        plan = fit(plan, self._reachable(), now.batch_bytes, now.worker_bytes)
        if plan == now.plan or (why == "more" and plan.num_workers <= now.plan.num_workers):
            return None
        return _Trial(plan, why, predict(plan, now.costs(self.bounds.cores), self.bounds.cores).batches_per_s)

    def _more(self, now: Estimate) -> _Trial | None:
        """As many workers as the model says, one at least."""
        workers = max(now.plan.num_workers + 1, workers_needed(now.costs(self.bounds.cores), self.bounds.cores))
        return self._trial_of(replace(now.plan, num_workers=min(workers, self.bounds.max_workers)), "more", now)

    def _deeper(self, now: Estimate) -> _Trial | None:
        """Twice the prefetch: the mean supply is enough, yet single slow batches starve the step."""
        if now.plan.num_workers == 0:
            return None
        trial = self._trial_of(replace(now.plan, prefetch_factor=2 * now.plan.prefetch_factor), "prefetch", now)
        return trial if trial is not None and trial.plan.prefetch_factor > now.plan.prefetch_factor else None

    def _fewer(self, now: Estimate, *, starved: bool) -> _Trial | None:
        """As few workers as may still do: those that were at work on average, or the knee of a saturated source."""
        lowest = max(self._reachable().min_workers, self._load.inadequate + 1)
        workers = self._fewest_that_may_do(now, starved=starved)
        if workers <= self._load.inadequate:
            workers = (self._load.inadequate + now.plan.num_workers) // 2
        workers = max(lowest, workers)
        if workers >= now.plan.num_workers:
            return None
        return self._trial_of(replace(now.plan, num_workers=workers), "fewer", now)

    def _fewest_that_may_do(self, now: Estimate, *, starved: bool) -> int:
        if now.contended(self.bounds.cores) and not self._saturated(now):
            # How long a worker would take if nobody else wanted the cores is not known: its CPU seconds at least.
            return max(1, math.ceil(now.worker_cores() - 0.02))
        if not starved or (now.plan.num_workers and now.utilisation < BURSTY):
            if now.busy_workers < self._evidence.band() and self._reachable().min_workers == 0:
                return 0
            return max(1, math.ceil(now.busy_workers - 0.02))
        if self._saturated(now):
            return max(1, math.ceil(now.batches_per_s * self._quickest_fetch(now)))
        if self._short_of_cores(now):
            return max(1, math.ceil(now.worker_cores() - 0.02))
        if self._load.no_more:
            return max(1, math.ceil(now.worker_cores() - 0.02), now.plan.num_workers // 2)
        return now.plan.num_workers

    def _quickest_fetch(self, now: Estimate) -> float:
        """Seconds per batch in a worker when few of them were at work."""
        rows = [
            self._evidence.of(plan) for plan in self._evidence.plans() if 0 < plan.num_workers < now.plan.num_workers
        ]
        return min([row.fetch_s for row in rows if row is not None and row.fetch_s > 0], default=now.fetch_s)

    def _saturated(self, now: Estimate) -> bool:
        """Whether workers only get in each other's way: each takes much longer than when there were fewer."""
        return (
            not self._load.knee_refuted and now.utilisation > BURSTY and now.fetch_s > 1.3 * self._quickest_fetch(now)
        )

    def _short_of_cores(self, now: Estimate) -> bool:
        """Whether the cores are taken, by work that more workers would only add to."""
        share = now.worker_cores() / self.bounds.cores
        return share > BURSTY if now.host_busy is None else share > 0.25 and now.host_busy >= TAKEN

    # ------------------------------------------------------------------------------------------------------ judging

    def _judge(self, trial: _Trial) -> Decision:
        here, incumbent = self._evidence.of(trial.plan), self._evidence.of(self._incumbent)
        if here is None or incumbent is None or self._windows_here < FEWEST_WINDOWS:
            return hold("measuring")
        if trial.rechecking and self._evidence.drifted(self._incumbent, self._windows_here):
            self._evidence.keep_newest(self._incumbent, self._windows_here, beside=trial.plan)
            incumbent = self._evidence.of(self._incumbent) or incumbent
        ratio, error = self._against(here, incumbent)
        band = self._evidence.band()
        cheaper = self._is_cheaper(trial.plan)
        threshold = 1 - band if cheaper else 1 + band
        # Fewer workers that are faster, or more that are slower: possible, but first suspect the measurement.
        surprising = ratio > 1 + band if cheaper else ratio < 1 - band
        if (surprising or abs(ratio - threshold) < CLEAR * error) and not trial.rechecking:
            if here.windows < MOST_WINDOWS:
                return hold("measuring")
            if self._load.moves_left >= 2 and self._load.windows < PATIENCE:
                trial.rechecking = True
                return self._go(self._incumbent, why("recheck", **counts(self._incumbent)))
        return self._conclude(trial, here, incumbent, ratio, kept=ratio >= threshold)

    def _is_cheaper(self, plan: Plan) -> bool:
        return plan.num_workers < self._incumbent.num_workers

    def _against(self, here: Estimate, incumbent: Estimate) -> tuple[float, float]:
        """The trial against the incumbent; a cheaper one against the best plan of this load, so that losses do not add up."""
        best = self._evidence.compare(here, incumbent)
        if not self._is_cheaper(here.plan):
            return best
        for plan in self._evidence.plans():
            other = self._evidence.of(plan)
            if other is not None and plan != here.plan and other.windows >= FEWEST_WINDOWS:
                best = min(best, self._evidence.compare(here, other))
        return best

    def _conclude(self, trial: _Trial, here: Estimate, incumbent: Estimate, ratio: float, *, kept: bool) -> Decision:
        self._trial = None
        for row in (here, incumbent):
            self._load.judged[row.plan] = row.fetch_s
        reason = why(
            f"{trial.why}_{'kept' if kept else 'rejected'}",
            **counts(trial.plan),
            before=self._incumbent.num_workers,
            prefetch_before=self._incumbent.prefetch_factor,
            change=ratio - 1,
        )
        self.judged += 1
        self.log.append(
            JudgedMove(trial.plan, here.batches_per_s, trial.predicted, here.wait_share, kept=kept, reason=reason)
        )
        if kept:
            self._incumbent = trial.plan
            if trial.why == "fewer" and here.starving > self._evidence.band():
                # More were no better; on contended cores that may be their own doing, and one in between the best.
                self._load.no_more = not incumbent.contended(self.bounds.cores)
            if self.plan != trial.plan:
                return self._go(trial.plan, reason)
        elif trial.why == "more":
            self._load.no_more = True
        elif trial.why == "fewer":
            self._load.inadequate = max(self._load.inadequate, trial.plan.num_workers)
            self._load.knee_refuted = True
        return self._propose()

    # ----------------------------------------------------------------------------------------------------- settling

    def _settle(self, now: Estimate) -> Settled:
        self._following = True
        self._watch.restart(now, same_plan=self._watch.plan == now.plan)
        self.limited_by, key = self._limit(now)
        reason = why(
            key,
            **counts(now.plan),
            wait_share=now.starve_share,
            busy=now.utilisation,
            cores=self.bounds.cores,
            memory_mb=memory_of(now.plan, now.batch_bytes, now.worker_bytes)[0] / 1e6,
        )
        return Settled(now.plan, self.limited_by, reason)

    def _limit(self, now: Estimate) -> tuple[Limit, str]:
        """What limits the loop under the plan that was chosen, and the sentence that says so."""
        if self._short_of_cores(now) or (
            now.contended(self.bounds.cores) and now.worker_cores() > 0.25 * self.bounds.cores
        ):
            return "cores", "limit_cores"
        if now.starving <= self._evidence.band():
            return "step", "limit_step"
        if now.plan.num_workers and now.utilisation < BURSTY:
            return "unknown", "limit_bursts"
        if self._load.no_more or self._load.inadequate >= 0 or self._saturated(now):
            if now.fetch_cpu_s < 0.5 * now.fetch_s and not now.contended(self.bounds.cores):
                return "io", "limit_io"
            return ("cores", "limit_cores") if now.contended(self.bounds.cores) else ("unknown", "limit_unknown")
        wider = replace(now.plan, num_workers=now.plan.num_workers + 1)
        if self._reachable().clamp(wider).num_workers == now.plan.num_workers:
            return "workers", "limit_workers"
        if fit(wider, self._reachable(), now.batch_bytes, now.worker_bytes).num_workers <= now.plan.num_workers:
            return "memory", "limit_memory"
        return "unknown", "limit_unknown"

    # ---------------------------------------------------------------------------------------------------- following

    def _follow(self, window: Observation) -> Decision:
        """Nothing, until several windows in a row say that the load is another one."""
        recent = self._watch.see(window, self._evidence.band())
        if recent is None:
            return hold("following", **counts(self.plan))
        self._new_load()
        for row in recent:
            self._evidence.add(row)
        return self._propose()

    def _new_load(self) -> None:
        self._evidence.forget()
        self._evidence.cores = self.bounds.cores
        self._load = _Load(self._max_moves)
        self._trial, self._following = None, False
