"""What the watchdog calls stuck, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.policy.watchdog import (
    FIRST_BATCH_S,
    FLOOR_S,
    PROOF_S,
    TIMES_THE_LIMIT,
    Pulse,
    Verdict,
    Watchdog,
)


def stuck(worker: int = 0, *, serial: int = 1, proof: str = "", traced: bool = False) -> Pulse:
    """A worker that stands at the same place at every look."""
    return Pulse(worker, serial, task=7, beat=3, proof=proof, traced=traced)


def idle(worker: int) -> Pulse:
    """A worker that has nothing to do."""
    return Pulse(worker, serial=1, task=None, beat=9)


def seasoned(*, task_s: float = 0.1, **settings: object) -> Watchdog:
    """A watchdog that has seen tasks of this length."""
    dog = Watchdog(**settings)  # type: ignore[arg-type]  # limit_s and on_stall
    for _ in range(100):
        dog.finished(task_s)
    return dog


def watch(
    dog: Watchdog, seconds: float, pulses: Callable[[int], Iterable[Pulse]], *, start: int = 0
) -> list[tuple[int, Verdict]]:
    """Look once a second for so long; verdicts with the second in which they came."""
    found = []
    for second in range(start, start + int(seconds) + 1):
        found += [(second, verdict) for verdict in dog.look(float(second), pulses(second))]
    return found


def test_a_stuck_worker_is_named_once_at_the_limit_and_replaced_at_five_times_it() -> None:
    verdicts = watch(seasoned(), 5 * FLOOR_S + 1, lambda _: [stuck(), idle(1)])
    assert [(second, verdict.action) for second, verdict in verdicts][:2] == [
        (int(FLOOR_S), "warn"),
        (int(TIMES_THE_LIMIT * FLOOR_S), "replace"),
    ]


def test_slow_tasks_raise_the_limit() -> None:
    assert seasoned(task_s=30.0).limit() == 600.0
    assert seasoned(task_s=0.01).limit() == FLOOR_S


def test_one_slow_task_among_a_thousand_does_not_raise_the_limit() -> None:
    dog = seasoned(task_s=0.1)
    dog.finished(500.0)
    assert dog.limit() == FLOOR_S


def test_the_first_batch_has_ten_minutes() -> None:
    assert watch(Watchdog(), FIRST_BATCH_S - 1, lambda _: [stuck(), idle(1)]) == []
    assert watch(Watchdog(), FIRST_BATCH_S, lambda _: [stuck(), idle(1)])[0][1].action == "warn"


def test_progress_resets_the_clock() -> None:
    verdicts = watch(seasoned(), 1_000, lambda second: [Pulse(0, 1, 7, beat=second // 100), idle(1)])
    assert verdicts == []


@pytest.mark.parametrize("action", ["replace", "raise"])
def test_a_limit_of_the_user_is_obeyed_as_it_stands(action: str) -> None:
    dog = Watchdog(limit_s=5.0, on_stall=action)  # type: ignore[arg-type]  # one of the actions
    verdicts = watch(dog, 5, lambda _: [stuck()])
    assert [(second, verdict.action) for second, verdict in verdicts] == [(5, action)]


def test_a_user_who_wants_a_warning_gets_one_and_no_more() -> None:
    verdicts = watch(Watchdog(limit_s=5.0, on_stall="warn"), 1_000, lambda _: [stuck(proof="stopped")])
    assert [verdict.action for _, verdict in verdicts] == ["warn"]


def test_proof_that_holds_ends_the_wait() -> None:
    verdicts = watch(seasoned(), PROOF_S + 2, lambda _: [stuck(proof="lock"), idle(1)])
    assert verdicts[0][1].action == "replace"
    assert verdicts[0][1].proof == "lock"
    assert verdicts[0][0] <= PROOF_S + 2


def test_proof_for_an_instant_proves_nothing() -> None:
    verdicts = watch(seasoned(), 100, lambda second: [stuck(proof="stopped" if second % 4 == 0 else ""), idle(1)])
    assert verdicts == []


def test_a_worker_in_a_debugger_is_left_alone() -> None:
    assert watch(seasoned(), 10_000, lambda _: [stuck(proof="stopped", traced=True), idle(1)]) == []


def test_time_in_which_nobody_looked_does_not_count() -> None:
    dog = seasoned()
    assert dog.look(0.0, [stuck(), idle(1)]) == []
    assert dog.look(100_000.0, [stuck(), idle(1)]) == []  # Ctrl-Z, a suspended machine
    dog.look(100_001.0, [stuck(), idle(1)])
    dog.away()  # ten minutes of evaluation
    assert dog.look(100_601.0, [stuck(), idle(1)]) == []


def test_a_job_that_is_suspended_again_and_again_is_no_stall() -> None:
    dog = seasoned()
    for second in range(0, 10_000, 4):
        assert dog.look(float(second), [stuck(proof="stopped"), idle(1)]) == []


def test_a_worker_that_is_still_importing_is_not_held_to_the_users_limit_for_batches() -> None:
    dog = Watchdog(limit_s=5.0)
    verdicts = watch(dog, FIRST_BATCH_S, lambda _: [Pulse(0, 1, task=7, beat=0, starting=True), idle(1)])
    assert [second for second, _ in verdicts] == [int(FIRST_BATCH_S)]


def test_without_proof_a_batch_costs_one_worker_and_is_then_waited_for() -> None:
    dog = seasoned()
    first = watch(dog, 6 * FLOOR_S, lambda _: [stuck(serial=1), idle(1)])
    again = watch(dog, 20 * FLOOR_S, lambda _: [stuck(serial=2), idle(1)], start=int(6 * FLOOR_S) + 1)
    assert [verdict.action for _, verdict in first] == ["warn", "replace"]
    assert [verdict.action for _, verdict in again] == ["warn"]


def test_a_program_that_goes_on_after_the_exception_waits_as_long_again() -> None:
    verdicts = watch(Watchdog(limit_s=5.0, on_stall="raise"), 12, lambda _: [stuck()])
    assert [second for second, _ in verdicts] == [5, 10]


def test_workers_that_are_all_stuck_are_not_replaced_without_proof() -> None:
    verdicts = watch(seasoned(), 10 * FLOOR_S, lambda _: [stuck(0), stuck(1), stuck(2)])
    assert {verdict.action for _, verdict in verdicts} == {"warn"}


def test_a_single_worker_is_replaced_at_the_second_limit() -> None:
    verdicts = watch(seasoned(), 5 * FLOOR_S, lambda _: [stuck(0)])
    assert verdicts[-1][1].action == "replace"


def test_one_worker_is_replaced_at_a_time() -> None:
    dog = Watchdog(limit_s=5.0)
    dog.look(0.0, [stuck(0), stuck(1)])
    for second in range(1, 5):
        dog.look(float(second), [stuck(0), stuck(1)])
    assert [verdict.worker for verdict in dog.look(5.0, [stuck(0), stuck(1)])] == [0]
    assert [verdict.worker for verdict in dog.look(6.0, [stuck(0, serial=2), stuck(1)])] == [1]


@given(
    st.lists(st.tuples(st.floats(0.1, 5.0), st.integers(0, 3), st.sampled_from(["", "stopped", "lock"])), max_size=300),
    st.sampled_from([None, 0.5, 30.0]),
)
def test_no_verdict_before_its_time(looks: list[tuple[float, int, str]], limit_s: float | None) -> None:
    """Whatever is seen, nobody is replaced who has not stood still for the limit, or for the proof's time."""
    dog = Watchdog(limit_s=limit_s)
    now_s, since_s, last = 0.0, 0.0, None
    for slice_s, beat, proof in looks:
        now_s += slice_s
        if beat != last:
            since_s, last = now_s, beat
        for verdict in dog.look(now_s, [Pulse(0, 1, 5, beat, proof), idle(1)]):
            stood_s = now_s - since_s
            assert stood_s >= verdict.stuck_s - 1e-6
            needed_s = min(PROOF_S, verdict.limit_s) if verdict.proof else verdict.limit_s
            assert stood_s >= needed_s - 1e-6
