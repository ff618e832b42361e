"""The race among plans: who drops out, who is chosen, and how sure that is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from keepfed.plan import Plan
from keepfed.policy.race import Race
from keepfed.policy.window import Observation

SPEEDS = {Plan(1): 10.0, Plan(2): 19.0, Plan(3): 20.0, Plan(4): 20.1, Plan(8): 18.0}


def window(plan: Plan, rate: float) -> Observation:
    return Observation(plan, 0.0, batches=round(rate * 100), elapsed_s=100.0, wait_s=0.0)


def run(laps: int, speed: Callable[[Plan, int], float] = lambda plan, _at: SPEEDS[plan]) -> Race:
    """So many laps to and fro; `speed` is asked for every window, by plan and position in time."""
    race, at = Race(), 0
    for lap in range(laps):
        for plan in sorted(SPEEDS, reverse=lap % 2 == 1):
            race.add(lap, window(plan, speed(plan, at)))
            at += 1
    return race


def test_the_cheapest_plan_within_the_band_of_the_fastest_is_chosen() -> None:
    race = run(2)
    assert race.leader() == Plan(4)
    assert race.choice() == Plan(3)


def test_a_lap_to_and_fro_does_not_credit_a_steady_drift_to_the_plans_that_came_last() -> None:
    race = run(2, lambda plan, at: SPEEDS[plan] * (1 + 0.02 * at))
    assert race.choice() == Plan(3)
    ratio, _ = race.against(Plan(3), Plan(4))
    assert ratio == pytest.approx(-0.005, abs=0.003)


def test_plans_that_are_surely_slower_drop_out() -> None:
    race = run(4)
    assert {race.standing(plan, Plan(4)) for plan in (Plan(1), Plan(2), Plan(8))} == {"out"}
    assert set(race.racing()) <= {Plan(3), Plan(4)}


def test_nothing_is_decided_while_a_cheaper_plan_may_still_be_as_good() -> None:
    noisy = random.Random(3)
    race = run(2, lambda plan, _at: SPEEDS[plan] * noisy.gauss(1.0, 0.1))
    assert not race.decided()
    assert race.noise() > 0.05


def test_a_first_lap_with_a_cold_cache_is_forgotten() -> None:
    race = run(3, lambda plan, at: SPEEDS[plan] / (5 if at < 3 else 1))
    assert race.noise() > 0.3
    race.forget_a_cold_lap()
    assert race.noise() < 0.03
    assert race.choice() == Plan(3)


def test_noise_alone_is_no_cold_lap() -> None:
    noisy = random.Random(5)
    race = run(3, lambda plan, _at: SPEEDS[plan] * noisy.gauss(1.0, 0.05))
    before = race.noise()
    race.forget_a_cold_lap()
    assert race.noise() == before


def test_a_plan_that_was_struck_is_not_chosen() -> None:
    race = run(2)
    race.strike(Plan(3))
    assert race.choice() == Plan(4)
    assert race.of(Plan(3)) is None
