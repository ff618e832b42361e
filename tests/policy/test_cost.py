"""The model: what limits a plan, what it needs, and the first guess that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepfed.plan import Plan
from keepfed.policy.cost import UNKNOWN_SPREAD, Bounds, Costs, fit, memory_of, predict, workers_needed

WAITING = Costs(0.04, 0.16, 0.0, 0.0, 1e6, 1e8, spread=(0.9, 1.1))
COMPUTING = Costs(0.03, 0.09, 0.09, 0.03, 1e6, 1e8)


@pytest.mark.parametrize(
    ("plan", "costs", "cores", "rate", "limit"),
    [
        (Plan(1), WAITING, 2, 6.25, "workers"),
        (Plan(4), WAITING, 2, 25.0, "step"),
        (Plan(16), WAITING, 2, 25.0, "step"),
        (Plan(0), WAITING, 2, 5.0, "workers"),
        (Plan(1), COMPUTING, 2, 11.1, "workers"),
        (Plan(8), COMPUTING, 2, 16.7, "cores"),
        (Plan(8), COMPUTING, 0.5, 4.17, "cores"),
    ],
)
def test_throughput_is_that_of_the_slowest_part(
    plan: Plan, costs: Costs, cores: float, rate: float, limit: str
) -> None:
    prediction = predict(plan, costs, cores)
    assert prediction.batches_per_s == pytest.approx(rate, rel=0.02)
    assert prediction.limited_by == limit


def test_twenty_milliseconds_a_sample_against_a_step_of_forty_want_five_workers() -> None:
    """Four feed it exactly on average; how much more is wanted depends on how unevenly the samples take their time."""
    assert workers_needed(replace(WAITING, spread=UNKNOWN_SPREAD), cores=2) == 5
    assert workers_needed(replace(WAITING, spread=(1.0,)), cores=2) == 4
    assert workers_needed(replace(WAITING, spread=(*[0.5] * 19, 10.5)), cores=2) >= 7


def test_no_more_workers_are_guessed_than_the_cores_can_serve() -> None:
    assert workers_needed(COMPUTING, cores=2) == 2
    assert workers_needed(COMPUTING, cores=64) == 4


def test_memory_is_that_of_workers_and_of_batches_in_preparation() -> None:
    assert memory_of(Plan(4, 2), 1e6, 1e8) == (4.09e8, 9e6)


def test_tight_memory_costs_prefetch_first_and_workers_last() -> None:
    bounds = Bounds(1, 16, 2, memory_bytes=1e9)
    assert fit(Plan(4, 8), bounds, 5e7, 1e8) == Plan(4, 2)
    assert fit(Plan(8, 4), bounds, 5e7, 1e8) == Plan(5, 1)
    assert fit(Plan(8, 4), bounds, 5e9, 1e8) == Plan(1, 1), "the fewest workers remain whatever they need"


def test_a_plan_is_kept_inside_every_count() -> None:
    bounds = Bounds(2, 6, 2, 1e12, max_prefetch=4, max_outstanding=12)
    assert bounds.clamp(Plan(1, 2)) == Plan(2, 2)
    assert bounds.clamp(Plan(99, 2)) == Plan(6, 2)
    assert bounds.clamp(Plan(3, 99)) == Plan(3, 4)
    assert bounds.clamp(Plan(6, 4)) == Plan(6, 2)


@pytest.mark.parametrize("bad", [{"min_workers": 5, "max_workers": 4}, {"cores": 0}, {"max_prefetch": 0}])
def test_impossible_bounds_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Bounds(**{"min_workers": 1, "max_workers": 4, "cores": 2.0, "memory_bytes": 1e9, **bad})  # type: ignore[arg-type]  # bad on purpose
