"""Which of many plans is the best one, and how sure is that: a race in laps.

Measuring every plan once and taking the largest number finds the luckiest plan, not the best: the maximum of some thirty
noisy windows lies 3 to 5 % too high. And whatever warms up meanwhile (the page cache, the CPU) is credited to the plans that
came last. So every plan gets a window per lap, the laps run to and fro, plans are compared within laps only, and those
that are surely out drop out, so that time is spent where the answer is open (Maron and Moore, "Hoeffding Races", 1994).

    lap 1   A  B  C  D  E  F      a steady drift counts for and against every plan alike:
    lap 2   F  E  D  C  B  A      two laps are each plan's mean over the same stretch of time
    lap 3   C  D  E               the others are out
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from keepfed.plan import Plan
from keepfed.policy.evidence import NOMINAL_BAND, WIDEST_BAND, Estimate, estimate
from keepfed.policy.window import Observation

SURE = 2.0
"""Standard errors from the threshold that make a plan surely in or surely out (95 % of a normal distribution)."""

COLD = 0.2
"""The scatter without the first lap, as a share of that with it, from which on the first lap was another world."""

_PRIOR_NOISE = 0.02
_PRIOR_LAPS = 3

Standing = Literal["in", "open", "out"]


class Race:
    """Windows of many plans, lap by lap."""

    def __init__(self) -> None:
        self._laps: dict[Plan, dict[int, Observation]] = {}

    def add(self, lap: int, window: Observation) -> None:
        """The window of one plan in one lap; a second one in the same lap replaces the first."""
        self._laps.setdefault(window.plan, {})[lap] = window

    def plans(self) -> list[Plan]:
        """Plans with at least one window."""
        return list(self._laps)

    def strike(self, plan: Plan) -> None:
        """This plan may not be chosen any more."""
        self._laps.pop(plan, None)

    def forget_a_cold_lap(self) -> None:
        """Drop the first lap where the later ones scatter far less without it: the page cache became warm in its course."""
        later = Race()
        for laps in self._laps.values():
            for lap, window in laps.items():
                if lap > 0:
                    later.add(lap, window)
        if len({lap for laps in later._laps.values() for lap in laps}) > 1 and later.noise() < COLD * self.noise():
            self._laps = later._laps

    def of(self, plan: Plan) -> Estimate | None:
        """What is known of a plan, if anything."""
        laps = self._laps.get(plan)
        return estimate(plan, laps.values()) if laps else None

    def leader(self) -> Plan:
        """The fastest of those that are still in the race. Raises ValueError before the first window."""
        laps = max((len(laps) for laps in self._laps.values()), default=0)
        racing = [plan for plan, own in self._laps.items() if len(own) == laps]
        return max(racing, key=lambda plan: self._mean(plan, self._shared(racing)))

    def choice(self) -> Plan:
        """The cheapest plan within the noise band of the leader: fewest workers, then fewest batches in preparation."""
        best = self.leader()
        return min(plan for plan in self._laps if self.against(plan, best)[0] >= -self.band())

    def racing(self) -> list[Plan]:
        """The plans that are worth another lap, in no order: the leader, the cheapest that is surely in, and what is open."""
        best = self.leader()
        standings = {plan: self.standing(plan, best) for plan in self._laps}
        sure = min(plan for plan, standing in standings.items() if standing == "in")
        undecided = {plan for plan, standing in standings.items() if standing == "open" and plan < sure}
        return [*{best, sure, *undecided}]

    def decided(self) -> bool:
        """Whether another lap could not change the choice: no cheaper plan is open."""
        best = self.leader()
        chosen = self.choice()
        return all(self.standing(plan, best) == "out" for plan in self._laps if plan < chosen) and (
            self.standing(chosen, best) == "in"
        )

    def standing(self, plan: Plan, best: Plan) -> Standing:
        """Whether a plan is within the noise band of the best: surely, surely not, or not known yet."""
        if plan == best:
            return "in"
        ratio, error = self.against(plan, best)
        margin = ratio + self.band()
        if margin >= SURE * error:
            return "in"
        return "out" if margin <= -SURE * error else "open"

    def against(self, plan: Plan, other: Plan) -> tuple[float, float]:
        """Logarithm of how many times faster a plan is, over the laps that both ran, and its standard error."""
        laps = self._laps[plan].keys() & self._laps[other].keys()
        if not laps:
            return -math.inf, 0.0
        ratio = self._mean(plan, laps) - self._mean(other, laps)
        return ratio, self.noise() * math.sqrt(2 / len(laps))

    def band(self) -> float:
        """How far below the best still counts as the best: 2 %, on a noisy host up to 5 %."""
        return min(WIDEST_BAND, max(NOMINAL_BAND, 0.7 * self.noise()))

    def noise(self) -> float:
        """Relative scatter of single windows, once what the plan and what the lap explain is taken off; a weak prior."""
        laps = {lap for own in self._laps.values() for lap in own}
        whole = [plan for plan, own in self._laps.items() if own.keys() >= laps]
        drift = {lap: self._mean_of(whole, {lap}) - self._mean_of(whole, laps) for lap in laps}
        squares, degrees = _PRIOR_LAPS * _PRIOR_NOISE**2, _PRIOR_LAPS + 1 - len(laps)
        for own in self._laps.values():
            logs = [math.log(_rate(window)) - drift[lap] for lap, window in own.items()]
            mean = sum(logs) / len(logs)
            squares += sum((log - mean) ** 2 for log in logs)
            degrees += len(logs) - 1
        return math.sqrt(squares / max(_PRIOR_LAPS, degrees))

    def _shared(self, plans: Sequence[Plan]) -> set[int]:
        return set.intersection(*(set(self._laps[plan]) for plan in plans))

    def _mean(self, plan: Plan, laps: set[int]) -> float:
        own = self._laps[plan]
        return sum(math.log(_rate(own[lap])) for lap in laps) / max(1, len(laps))

    def _mean_of(self, plans: Sequence[Plan], laps: set[int]) -> float:
        return sum(self._mean(plan, laps) for plan in plans) / max(1, len(plans))


def _rate(window: Observation) -> float:
    return max(1e-9, window.batches / max(1e-9, window.elapsed_s))
