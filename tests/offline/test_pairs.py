"""Pairs of fresh processes: order, ratios, finalists, and what is worth trying."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest

from keepfed.errors import UnreachableError
from keepfed.offline.finals import finalists, run_finals, winner
from keepfed.offline.offers import CHANGES, try_changes, worth_trying
from keepfed.offline.pairs import ratio, to_and_fro
from keepfed.offline.trial import Facts, Trial
from keepfed.plan import Plan
from keepfed.profile import Measured
from keepfed.tuning.results import Point

FACTS = Facts(
    batches_per_s=10.0, wait_share=0.6, start_s=0.2, epoch_batches=20, modules=("cv2", "numpy"), cuda=True,
    persistent=False, worker_threads=4, start_method="spawn",
)  # fmt: skip


def test_rounds_run_to_and_fro() -> None:
    assert list(to_and_fro("AB", 3)) == [(0, "A"), (0, "B"), (1, "B"), (1, "A"), (2, "A"), (2, "B")]


def test_a_ratio_is_of_the_same_rounds_so_that_a_drift_cancels() -> None:
    drifting = [10.0, 12.0, 14.0, 16.0]
    found = ratio([1.5 * rate for rate in drifting], drifting)
    assert (found.low, found.factor, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.faster


def test_one_round_says_nothing_for_sure() -> None:
    found = ratio([2.0], [1.0])
    assert (found.factor, found.low, found.high) == (2.0, 0.0, math.inf)
    assert not found.faster


def test_what_scatters_around_1_is_not_faster() -> None:
    assert not ratio([1.0, 1.1, 0.95, 1.06], [1.0, 1.0, 1.0, 1.0]).faster


def point(workers: int, rate: float) -> Point:
    return Point(Measured(Plan(workers), rate, 0.1), None, None, 1, 2.0, 0, 0.0, 0.0)


def test_finalists_are_the_chosen_the_fastest_and_the_next_cheaper_one() -> None:
    points = [point(1, 10.0), point(2, 19.2), point(3, 19.8), point(4, 20.0), point(8, 20.1)]
    assert finalists(points, Plan(3)) == [Plan(2), Plan(3), Plan(8)]
    assert finalists(points[:1], Plan(1)) == [Plan(1)]


def test_the_cheapest_that_is_as_good_in_fresh_processes_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {0: 5.0, 2: 19.9, 3: 20.0, 8: 20.2}
    asked: list[Trial] = []

    def run(_words: Sequence[str], trial: Trial) -> Facts:
        asked.append(trial)
        return dataclasses.replace(FACTS, batches_per_s=rates[trial.num_workers])

    monkeypatch.setattr("keepfed.offline.finals.run", run)
    told: list[str] = []
    finals = run_finals(["a:b"], [Plan(2), Plan(3), Plan(8)], Plan(3), told.append, rounds=2)
    assert winner(finals).plan == Plan(2)
    assert [final.plan for final in finals] == [Plan(0), Plan(2), Plan(3), Plan(8)]
    assert [trial.num_workers for trial in asked] == [0, 2, 3, 8, 8, 3, 2, 0]
    assert finals[0].to_json()["factor"] == 0.25
    assert len(told) == 2


def keys(facts: Facts, workers: int = 2, cores: float = 8.0) -> set[str]:
    return {change.key for change in worth_trying(facts, workers, cores)}


def test_only_what_can_matter_is_tried() -> None:
    assert keys(FACTS) == {change.key for change in CHANGES} - {"fork"}
    assert "opencv_threads" not in keys(dataclasses.replace(FACTS, modules=("numpy",)))
    assert "blas_threads" not in keys(dataclasses.replace(FACTS, worker_threads=1))
    assert "torch_threads" not in keys(FACTS, workers=8)
    assert "pin_memory" not in keys(dataclasses.replace(FACTS, cuda=False))
    assert "persistent_workers" not in keys(dataclasses.replace(FACTS, epoch_batches=10_000))
    assert "persistent_workers" not in keys(dataclasses.replace(FACTS, persistent=True))
    assert "forkserver" not in keys(dataclasses.replace(FACTS, start_method="fork"))
    assert "fork" in keys(dataclasses.replace(FACTS, cuda=False))
    assert keys(FACTS, workers=0) == set()


def test_threads_are_left_alone_where_the_step_is_the_limit() -> None:
    fed = dataclasses.replace(FACTS, wait_share=0.01)
    assert keys(fed).isdisjoint({"opencv_threads", "blas_threads", "torch_threads"})


def test_a_change_is_compared_in_pairs_and_one_that_fails_is_no_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dataclasses.replace(FACTS, cuda=False, start_method="fork", persistent=True)
    asked: list[str] = []

    def run(_words: Sequence[str], trial: Trial) -> Facts:
        asked.append(trial.change)
        if trial.change == "blas_threads":
            raise UnreachableError("it ended with exit code 1")
        return dataclasses.replace(facts, batches_per_s=14.0 if trial.change == "opencv_threads" else 10.0)

    monkeypatch.setattr("keepfed.offline.offers.run", run)
    told: list[str] = []
    offers = try_changes(["a:b"], Plan(2), 8.0, told.append, rounds=2)
    assert [(offer.change.key, offer.ratio.faster) for offer in offers] == [
        ("opencv_threads", True),
        ("torch_threads", False),
    ]
    assert asked[:5] == ["", "", "opencv_threads", "opencv_threads", ""]
    assert "it ended with exit code 1" in told
    assert offers[0].to_json()["factor"] == 1.4
