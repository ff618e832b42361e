"""Events → results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepfed.events import Event, Moved, Note
from keepfed.plan import Plan
from keepfed.profile import Measured
from keepfed.tuning.results import LoaderResult, counting
from keepfed.tuning.summary import Tally
from tests.tuning import recorded
from tests.tuning.recorded import EVAL, TRAIN


def fold(*streams: list[Event]) -> tuple[LoaderResult, ...]:
    """One stream per process, taken in side by side."""
    tally = Tally()
    for step in range(max(map(len, streams))):
        for pid, stream in enumerate(streams):
            if step < len(stream):
                tally.add(pid, stream[step], float(step))
    return tally.results()


def test_a_whole_search_becomes_one_result() -> None:
    (result,) = fold(recorded.tuned())
    assert result.settled
    assert result.batch_size == 8
    assert result.before == Measured(Plan(1, 2), 6.0, 0.76)
    assert result.after == Measured(Plan(5, 2), 24.0, 0.04)
    assert [(move.tried.plan.num_workers, move.kept) for move in result.moves] == [(4, True), (5, True), (6, False)]
    assert (result.limited_by, result.reason, result.seconds) == ("step", "The step takes 40 ms.", 21.5)
    assert (result.memory_before_bytes, result.memory_bytes) == (100_000_000, 500_000_000)
    assert result.stall_share is None


def test_what_is_not_settled_shows_the_best_kept_so_far() -> None:
    (result,) = fold(recorded.half_tuned())
    assert not result.settled
    assert result.before is not None
    assert result.before.plan == Plan(1, 2)
    assert result.before.batches_per_s == pytest.approx(6.0)
    assert result.before.wait_share == pytest.approx(0.76)
    assert result.after is not None
    assert result.after.plan == Plan(4, 2)
    assert result.limited_by == "unknown"
    assert result.seconds == pytest.approx(4.0)


def test_a_loader_without_a_window_was_not_measured() -> None:
    (result,) = fold([recorded.joined(), recorded.seen()])
    assert not result.measured
    with pytest.raises(ValueError, match="not measured"):
        result.to_json()


def test_ranks_of_one_loader_count_once_and_the_decider_speaks() -> None:
    follower: list[Event] = [recorded.seen(source="rank"), recorded.window(1, 2.0), recorded.window(5, 3.0)] * 5
    (result,) = fold(follower, recorded.half_tuned())
    assert result.processes == 2
    assert result.after is not None
    assert result.after.plan == Plan(4, 2)


def test_only_the_decider_is_heard() -> None:
    tally = Tally()
    tally.add(1, recorded.seen(source="rank"), 0.0)
    tally.add(2, recorded.seen(), 0.0)
    assert tally.decides(2, TRAIN)
    assert not tally.decides(1, TRAIN)


def test_a_plan_reported_when_tried_and_when_judged_is_one_move() -> None:
    tried = Moved(TRAIN, Plan(4, 2), 0.0, 0.0, kept=True, reason="trying")
    (result,) = fold([recorded.seen(), recorded.window(1, 6.0), tried, recorded.moved(4, 21.0)])
    assert [move.reason for move in result.moves] == ["4 workers tried"]


def test_the_gpus_idle_share_comes_from_the_windows_until_it_settles() -> None:
    (result,) = fold([recorded.seen(), recorded.window(1, 6.0, stall_s=1.5), recorded.window(1, 6.0, stall_s=0.9)])
    assert result.stall_share_before == pytest.approx(0.4)
    assert result.stall_share == pytest.approx(0.4)


def test_a_second_search_keeps_the_first_start() -> None:
    again = replace(recorded.settled(workers=6, before=5), seconds=9.0)
    (result,) = fold([*recorded.tuned(), again])
    assert result.before is not None
    assert result.after is not None
    assert (result.before.plan.num_workers, result.after.plan.num_workers) == (1, 6)


def test_two_loaders_of_one_class_are_two_results() -> None:
    first, second = fold([*recorded.tuned(), *recorded.half_tuned(EVAL)])
    assert (first.loader, first.settled) == (TRAIN, True)
    assert (second.loader, second.settled) == (EVAL, False)


def test_a_short_evaluation_does_not_count() -> None:
    short: list[Event] = [recorded.seen(EVAL), recorded.window(1, 6.0, EVAL, seconds=0.5)]
    results = fold([*recorded.tuned(), *short])
    assert [result.loader for result in counting(results)] == [TRAIN]


def test_a_settled_loader_counts_however_short_it_is() -> None:
    short: list[Event] = [
        recorded.seen(EVAL),
        recorded.window(1, 6.0, EVAL, seconds=0.5),
        recorded.settled(loader=EVAL),
    ]
    assert [result.loader for result in counting(fold([*recorded.tuned(), *short]))] == [TRAIN, EVAL]


def test_an_unknown_limit_of_a_newer_version_is_unknown() -> None:
    (result,) = fold([*recorded.tuned()[:-1], replace(recorded.settled(), limited_by="moon")])
    assert result.limited_by == "unknown"


def test_a_sentence_is_kept_once() -> None:
    tally = Tally()
    for pid in (1, 2):
        tally.add(pid, Note("look"), 0.0)
    assert tally.notes == ["look"]


def test_the_json_object_has_the_documented_keys() -> None:
    (result,) = fold(recorded.tuned())
    made = result.to_json()
    plan_keys = {"num_workers", "prefetch_factor", "batches_per_s", "wait_share"}
    assert set(made) == {
        "dataset",
        "site",
        "batch_size",
        "before",
        "after",
        "limited_by",
        "ordinal",
        "reason",
        "moves",
        "settled",
        "stall_share",
        "seconds",
        "points",
        "timeline",
        "what_if",
    }
    assert set(result.to_json(timeline=False)) == set(made) - {"timeline"}
    assert set(made["before"]) == set(made["after"]) == plan_keys
    assert set(made["moves"][0]) == plan_keys | {"kept", "reason", "predicted_batches_per_s", "at_s"}
    point = {"low", "high", "windows", "seconds", "memory_bytes", "cpu_s_per_batch", "predicted_batches_per_s"}
    assert set(made["points"][0]) == plan_keys | point
    assert set(made["timeline"][0]) == plan_keys | {"at_s"}
