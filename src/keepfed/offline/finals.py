"""The last word between the best plans of an exhaustive search: the same loop in fresh processes, in rounds.

The best of many noisy numbers flatters itself, and a plan that was reached by adding workers one by one to a warm
process is not the plan that a program starts with. torch's default, no workers at all, runs along: people want to know what
it is worth to change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from keepfed.offline.pairs import ROUNDS, Ratio, ratio, to_and_fro
from keepfed.offline.trial import Facts, Trial, run
from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import plan_text
from keepfed.tuning.results import Point

CLOSE = 0.95
"""Plans with at least this share of the best throughput may be as good."""

AS_GOOD = 0.97
"""A finalist with this share of the best one's throughput is as good: fresh processes differ by more than 2 %."""

NO_WORKERS = Plan(0)


@dataclass(frozen=True, slots=True)
class Final:
    """One plan in fresh processes."""

    plan: Plan
    """The plan."""

    batches_per_s: float
    """Median throughput over the rounds."""

    wait_share: float
    """Mean share of waiting."""

    ratio: Ratio
    """How many times faster than the plan that the search had chosen."""

    rounds: int
    """Processes it was measured in."""

    def to_json(self) -> dict[str, Any]:
        """One object of "finals"."""
        return {
            "num_workers": self.plan.num_workers,
            "prefetch_factor": self.plan.prefetch_factor,
            "batches_per_s": round(self.batches_per_s, 4),
            "wait_share": round(self.wait_share, 4),
            "factor": round(self.ratio.factor, 3),
            "low": round(self.ratio.low, 3),
            "high": round(self.ratio.high, 3),
            "rounds": self.rounds,
        }


def finalists(points: Sequence[Point], chosen: Plan) -> list[Plan]:
    """The plan chosen, the fastest, and the next cheaper one that comes close; fewest workers first."""
    rates = {point.measured.plan: point.measured.batches_per_s for point in points}
    best = max(rates, key=lambda plan: rates[plan], default=chosen)
    close = [plan for plan in rates if rates[plan] >= CLOSE * rates[best] and plan.num_workers < chosen.num_workers]
    cheaper = max(close, key=lambda plan: (plan.num_workers, -plan.prefetch_factor), default=chosen)
    return sorted({chosen, best, cheaper})


def run_finals(
    words: Sequence[str], plans: Sequence[Plan], chosen: Plan, tell: Callable[[str], None], rounds: int = ROUNDS
) -> tuple[Final, ...]:
    """Measure these plans, and no workers, in fresh processes. Raises UnreachableError."""
    running = sorted({NO_WORKERS, *plans})
    facts: dict[Plan, list[Facts]] = {plan: [] for plan in running}
    told = -1
    for number, plan in to_and_fro(running, rounds):
        if number != told:
            told = number
            tell(say("offline.final_round", round=number + 1, rounds=rounds, plans=", ".join(map(plan_text, running))))
        facts[plan].append(run(words, Trial(plan.num_workers, plan.prefetch_factor)))
    rates = {plan: [one.batches_per_s for one in found] for plan, found in facts.items()}
    return tuple(
        Final(
            plan,
            median(rates[plan]),
            mean(one.wait_share for one in facts[plan]),
            ratio(rates[plan], rates[chosen]),
            len(rates[plan]),
        )
        for plan in running
    )


def winner(finals: Sequence[Final]) -> Final:
    """The cheapest of those that are as good as the fastest."""
    best = max(final.ratio.factor for final in finals)
    return min((final for final in finals if final.ratio.factor >= AS_GOOD * best), key=lambda final: final.plan)
