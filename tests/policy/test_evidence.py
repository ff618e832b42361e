"""Comparing plans: noise, drift, and the two ways of saying "faster"."""

from __future__ import annotations

import random

import pytest

from keepfed.plan import Plan
from keepfed.policy.evidence import NOMINAL_BAND, WIDEST_BAND, Evidence, estimate
from keepfed.policy.window import Observation


def window(
    plan: Plan,
    rate: float = 20.0,
    starve: float = 0.1,
    busy: float | None = 0.3,
    fetch_s: float = 0.1,
    take_s: float = 0.0,
) -> Observation:
    """Half an hour of training, so that counts need no rounding."""
    return Observation(
        plan,
        now_s=0.0,
        batches=round(2000 * rate),
        elapsed_s=2000.0,
        wait_s=2000.0 * starve,
        take_s=take_s,
        fetched=1000,
        fetch_s=1000 * fetch_s,
        fetch_cpu_s=1.0,
        batch_bytes=1e6,
        worker_bytes=1e8,
        host_busy=busy,
    )


def evidence(*windows: Observation) -> Evidence:
    known = Evidence(cores=4)
    for row in windows:
        known.add(row)
    return known


def ratio(known: Evidence, one: Plan, other: Plan) -> float:
    first, second = known.of(one), known.of(other)
    assert first is not None
    assert second is not None
    return known.compare(first, second)[0]


def test_drift_of_the_host_cancels_where_cores_are_free() -> None:
    """The whole host is 4 % slower in the second plan's windows; its share of waiting is the same."""
    known = evidence(*[window(Plan(4), 20.0), window(Plan(4), 20.1), window(Plan(3), 19.2), window(Plan(3), 19.3)])
    assert ratio(known, Plan(3), Plan(4)) == pytest.approx(1.0)


def test_only_throughput_counts_where_cores_are_contended() -> None:
    rows = [window(Plan(4), 20.0, busy=0.99), window(Plan(4), 20.1, busy=0.99)]
    known = evidence(*rows, window(Plan(3), 22.0, busy=0.99), window(Plan(3), 22.1, busy=0.99))
    assert ratio(known, Plan(3), Plan(4)) == pytest.approx(1.1, rel=0.01)


def test_a_host_that_became_slower_does_not_speak_against_fewer_workers_on_busy_cores_either() -> None:
    """They compute no step and cannot slow it: no more is lost than what the loop waits longer."""
    few, many, deep = Plan(3), Plan(4), Plan(3, 8)
    known = evidence(
        *[window(many, 20.0, 0.05, busy=0.99), window(many, 20.1, 0.05, busy=0.99)],
        *[window(few, 19.2, 0.06, busy=0.99), window(few, 19.3, 0.06, busy=0.99)],
        *[window(deep, 19.2, 0.06, busy=0.99), window(deep, 19.3, 0.06, busy=0.99)],
    )
    assert ratio(known, few, many) == pytest.approx(0.94 / 0.95)
    assert ratio(known, many, few) == pytest.approx(0.95 / 0.94)
    assert ratio(known, deep, many) == pytest.approx(0.96, rel=0.01), "it may be more at work"


def test_throughput_counts_where_it_contradicts_the_waiting() -> None:
    """An asynchronous device without timers: the host waits nearly always, whatever the loader does."""
    rows = [window(Plan(4), 20.0, 0.97), window(Plan(4), 20.1, 0.97)]
    known = evidence(*rows, window(Plan(8), 20.0, 0.96), window(Plan(8), 20.1, 0.96))
    assert ratio(known, Plan(8), Plan(4)) == pytest.approx(1.0, rel=0.01)


def test_the_band_is_two_per_cent_and_widens_with_noise_to_five() -> None:
    quiet = evidence(*[window(Plan(4)) for _ in range(6)])
    rng = random.Random(1)
    noisy = evidence(*[window(Plan(4), 20 * rng.uniform(0.9, 1.1)) for _ in range(6)])
    wild = evidence(*[window(Plan(4), 20 * rng.uniform(0.3, 1.7)) for _ in range(6)])
    assert quiet.band() == NOMINAL_BAND
    assert NOMINAL_BAND < noisy.band() <= WIDEST_BAND
    assert wild.band() == WIDEST_BAND


def test_workers_that_are_hardly_at_work_cannot_be_what_the_step_waits_for() -> None:
    row = estimate(Plan(4), [window(Plan(4), rate=500, starve=0.2, fetch_s=0.00002)])
    assert row.starve_share == 0.2
    assert row.starving == pytest.approx(0.01)


def test_the_price_of_taking_a_ready_batch_is_not_starving() -> None:
    """Every batch takes 0.4 ms in next(), with workers idle 96 % of their time: no setting changes that."""
    steady = estimate(Plan(1), [window(Plan(1), rate=100, starve=0.04, fetch_s=0.0004, take_s=0.0004)])
    bursts = estimate(Plan(1), [window(Plan(1), rate=100, starve=0.04, fetch_s=0.004, take_s=0.0001)])
    assert steady.starving == pytest.approx(0.0)
    assert bursts.starving == pytest.approx(0.03)


def test_the_cycle_of_a_worker_that_never_rests_counts_in_full() -> None:
    """It reports 0.18 s per batch and delivers one each 0.2 s: sending the batch belongs to its work."""
    row = estimate(Plan(4), [window(Plan(4), rate=20.0, starve=0.5, fetch_s=0.18)])
    assert row.costs(4).fetch_s == pytest.approx(0.2)


def test_a_cache_that_became_warm_is_drift_and_noise_is_not() -> None:
    warmer = evidence(*[window(Plan(4), 12.5, 0.5)] * 3, *[window(Plan(4), 20.0, 0.2)] * 2)
    same = evidence(*[window(Plan(4), 20.0)] * 3, *[window(Plan(4), 20.3)] * 2)
    assert warmer.drifted(Plan(4), newest=2)
    assert not same.drifted(Plan(4), newest=2)
    assert not same.drifted(Plan(7), newest=2)
    warmer.keep_newest(Plan(4), 2, beside=Plan(9))
    row = warmer.of(Plan(4))
    assert row is not None
    assert row.starve_share == pytest.approx(0.2)


def test_loading_in_the_training_process_is_all_waiting() -> None:
    row = estimate(Plan(0), [Observation(Plan(0), 0.0, 100, 10.0, 6.0)])
    assert row.fetch_s == pytest.approx(0.06)
    assert row.step_s == pytest.approx(0.04)
    assert row.starving == pytest.approx(0.6)


def test_cores_that_other_programs_use_are_not_taken_for_the_cost_of_the_step() -> None:
    """The loop waits three quarters of its time, so that it cannot be what keeps both cores busy all the time."""
    row = estimate(Plan(1), [window(Plan(1), rate=6.25, starve=0.75, busy=1.0, fetch_s=0.16)])
    assert row.costs(2).other_cpu_s == pytest.approx(2 * 0.04)
