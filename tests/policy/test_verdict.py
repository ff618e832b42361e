"""Verdicts: what is kept, what is doubtful, and how far the model may say."""

from __future__ import annotations

from keepfed.plan import Plan
from keepfed.policy.evidence import Evidence
from keepfed.policy.verdict import Verdict, judge
from keepfed.policy.window import Observation


def window(plan: Plan, rate: float, busy: float) -> Observation:
    """Of a step of 40 ms: what is slower than 25 batches a second has waited."""
    return Observation(
        plan,
        now_s=0.0,
        batches=round(1000 * rate),
        elapsed_s=1000.0,
        wait_s=1000.0 - 40.0 * rate,
        fetched=1000,
        fetch_s=100.0,
        fetch_cpu_s=1.0,
        host_busy=busy,
    )


def verdict(here: list[float], incumbent: list[float], *, expected: float, fewer: bool, busy: float = 1.0) -> Verdict:
    """Of so many workers less or more than four, from the rates of windows."""
    known, plan = Evidence(cores=4), Plan(3 if fewer else 5)
    for rate in incumbent:
        known.add(window(Plan(4), rate, busy))
    for rate in here:
        known.add(window(plan, rate, busy))
    one, other = known.of(plan), known.of(Plan(4))
    assert one is not None
    assert other is not None
    return judge(one, other, known, expected)


def test_fewer_workers_that_lose_nothing_are_kept() -> None:
    assert verdict([20.0, 20.0, 20.0], [20.0, 20.0, 20.0], expected=1.0, fewer=True) == Verdict(
        1.0, kept=True, doubtful=False
    )


def test_fewer_workers_that_lose_five_per_cent_are_too_few() -> None:
    assert not verdict([19.0, 19.1], [20.0, 20.1], expected=0.96, fewer=True).kept


def test_more_workers_that_bring_nothing_are_not_worth_it() -> None:
    assert not verdict([20.0, 20.1], [20.0, 20.1], expected=1.0, fewer=False).kept


def test_where_windows_differ_by_luck_the_models_word_is_heard() -> None:
    noisy, other = [17.0, 23.5], [23.0, 17.0]
    assert verdict(noisy, other, expected=1.08, fewer=False).kept
    assert not verdict(noisy, other, expected=1.0, fewer=False).kept


def test_the_model_cannot_make_a_gain_of_a_loss() -> None:
    assert not verdict([17.0, 22.0], [22.5, 17.5], expected=1.2, fewer=False).kept
    assert verdict([17.5, 22.5], [22.0, 17.0], expected=0.9, fewer=True).kept


def test_a_model_that_the_measurement_contradicts_is_not_asked() -> None:
    assert not verdict([20.0, 20.1], [20.0, 20.05], expected=2.0, fewer=False).kept


def test_fewer_workers_that_are_faster_are_suspected_of_a_warm_cache_but_not_on_contended_cores() -> None:
    assert verdict([24.0, 24.1], [20.0, 20.1], expected=1.0, fewer=True, busy=0.5).doubtful
    assert not verdict([24.0, 24.1], [20.0, 20.1], expected=1.1, fewer=True).doubtful
