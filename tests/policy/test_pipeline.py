"""Batches on paper: what order, bursts and prefetch make of mean times."""

from __future__ import annotations

import random

import pytest

from keepfed.plan import Plan
from keepfed.policy.pipeline import GROUPS, groups_of, throughput
from tests.policy.simulated import World, rate

SLOW_ONES = [0.06] * 19 + [0.72]


@pytest.mark.parametrize(("workers", "expected"), [(1, 6.25), (3, 18.75), (4, 25.0), (9, 25.0)])
def test_even_times_give_what_the_means_say(workers: int, expected: float) -> None:
    assert throughput(workers, 2, [0.16], 0.04) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("prefetch", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_bursts_cost_what_they_cost_in_the_simulated_loader(workers: int, prefetch: int) -> None:
    world = World(cores=64, wait_s=0.06, tail=(0.05, 12), step_s=0.02, spread=0.01)
    assert throughput(workers, prefetch, SLOW_ONES, 0.02) == pytest.approx(
        rate(world, Plan(workers, prefetch)), rel=0.1
    )


def test_deeper_prefetch_is_worth_something_only_where_times_are_uneven() -> None:
    assert throughput(4, 8, SLOW_ONES, 0.02) > 1.2 * throughput(4, 2, SLOW_ONES, 0.02)
    assert throughput(4, 8, [0.09], 0.02) == pytest.approx(throughput(4, 2, [0.09], 0.02), rel=0.01)


@pytest.mark.parametrize("count", [1, 7, 32, 33, 100, 1000])
def test_a_distribution_in_few_numbers_has_the_same_mean(count: int) -> None:
    values = [random.Random(count).lognormvariate(0, 1) for _ in range(count)]
    groups = groups_of(values)
    assert len(groups) == min(GROUPS, count)
    assert sum(groups) / len(groups) == pytest.approx(sum(values) / count)
    assert list(groups) == pytest.approx(sorted(groups))


def test_nothing_measured_is_no_distribution() -> None:
    assert groups_of([]) == ()
