"""When a session ends, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from keepfed.events import Event
from keepfed.tuning.session import Ending, Outcome, Session
from tests.tuning import recorded
from tests.tuning.recorded import EVAL, TRAIN

Timeline = Mapping[float, list[Event]]


class FakeProgram:
    """A program and its reports, on a clock that only `wait` moves."""

    def __init__(self, timeline: Timeline, *, ends_s: float = 1e9, code: int = 0, ctrl_c_s: float = 1e9) -> None:
        self.timeline, self.ends_s, self.code, self.ctrl_c_s = timeline, ends_s, code, ctrl_c_s
        self.now_s, self.read_s = 0.0, -1.0
        self.stopped: list[tuple[float, float] | None] = []
        self.deaf = False

    @property
    def interrupted(self) -> bool:
        return self.now_s >= self.ctrl_c_s

    def start(self) -> None:
        assert self.now_s == 0

    def wait(self, timeout_s: float | None = None) -> int | None:
        assert timeout_s is not None
        if self.interrupted and not self.deaf:
            return 1  # a trainer that catches the interrupt
        self.now_s += timeout_s
        return self.code if self.now_s >= self.ends_s else None

    def stop(self, grace_s: tuple[float, float] | None = None) -> int:
        self.stopped.append(grace_s)
        return 130

    def read_new(self) -> list[tuple[int, Event]]:
        new = [event for at_s, events in self.timeline.items() if self.read_s < at_s <= self.now_s for event in events]
        self.read_s = self.now_s
        return [(1, event) for event in new]


def follow(
    program: FakeProgram,
    *,
    goes_on: bool = False,
    max_seconds: float = 600.0,
    enough: Callable[[object, Ending], None] = lambda _results, _ending: None,
) -> Outcome:
    session = Session(
        program, program, goes_on=goes_on, max_seconds=max_seconds, enough=enough, clock=lambda: program.now_s
    )
    return session.run()


def test_a_settled_program_is_stopped_at_once() -> None:
    program = FakeProgram({20: recorded.tuned()})
    outcome = follow(program)
    assert (outcome.ending, outcome.exit_code) == (Ending.SETTLED, 0)
    assert len(program.stopped) == 1
    assert program.now_s == pytest.approx(20, abs=0.5)


def test_what_the_program_does_while_it_is_being_ended_is_not_measured() -> None:
    program = FakeProgram({20: recorded.tuned(), 25: [recorded.window(5, 1.0)]})
    real_stop = program.stop

    def stop(grace_s: tuple[float, float] | None = None) -> int:
        program.now_s = 26.0
        return real_stop(grace_s)

    program.stop = stop  # type: ignore[method-assign]  # it takes its time
    (result,) = follow(program).results
    assert max(moment.at_s for moment in result.timeline) < 1.0
    assert {round(point.measured.batches_per_s) for point in result.points} == {6, 21, 24}


def test_with_continue_it_trains_on_to_its_own_end() -> None:
    told: list[Ending] = []
    program = FakeProgram({20: recorded.tuned()}, ends_s=500)
    outcome = follow(program, goes_on=True, enough=lambda _results, ending: told.append(ending))
    assert (outcome.ending, outcome.exit_code, told) == (Ending.SETTLED, 0, [Ending.SETTLED])
    assert not program.stopped
    assert outcome.seconds == pytest.approx(500, abs=1)


def test_a_failure_after_the_search_is_the_programs_own() -> None:
    outcome = follow(FakeProgram({20: recorded.tuned()}, ends_s=500, code=3), goes_on=True)
    assert (outcome.ending, outcome.exit_code) == (Ending.PROGRAM_ENDED, 3)


def test_time_is_up_for_a_program_that_does_not_settle() -> None:
    program = FakeProgram({20: recorded.half_tuned()})
    outcome = follow(program, max_seconds=90)
    assert (outcome.ending, outcome.exit_code) == (Ending.TIME_UP, 4)
    assert len(program.stopped) == 1
    assert program.now_s == pytest.approx(90, abs=0.5)


def test_with_continue_the_limit_ends_the_search_and_not_the_training() -> None:
    program = FakeProgram({20: recorded.half_tuned()}, ends_s=500)
    outcome = follow(program, goes_on=True, max_seconds=90)
    assert (outcome.ending, outcome.exit_code) == (Ending.TIME_UP, 4)
    assert not program.stopped


def test_a_program_that_ends_before_it_settled_is_measured_only() -> None:
    outcome = follow(FakeProgram({20: recorded.half_tuned()}, ends_s=30))
    assert (outcome.ending, outcome.exit_code) == (Ending.PROGRAM_ENDED, 4)


def test_what_is_reported_at_the_very_end_counts() -> None:
    outcome = follow(FakeProgram({30: recorded.tuned()}, ends_s=30))
    assert (outcome.ending, outcome.exit_code) == (Ending.PROGRAM_ENDED, 0)


def test_nothing_measured_is_exit_code_3() -> None:
    assert follow(FakeProgram({}, ends_s=5)).exit_code == 3
    assert follow(FakeProgram({1: [recorded.joined(), recorded.seen()]}, ends_s=5)).exit_code == 3


@pytest.mark.parametrize("code", [1, 137])
def test_a_program_that_fails_keeps_its_code(code: int) -> None:
    timelines: list[Timeline] = [{}, {20: recorded.half_tuned()}, {25: recorded.tuned()}]
    for timeline in timelines:
        assert follow(FakeProgram(timeline, ends_s=25, code=code)).exit_code == code


def test_ctrl_c_lets_the_program_end_by_itself() -> None:
    program = FakeProgram({20: recorded.half_tuned()}, ctrl_c_s=30)
    outcome = follow(program)
    assert (outcome.ending, outcome.code, outcome.exit_code) == (Ending.INTERRUPTED, 1, 130)
    assert not program.stopped


def test_ctrl_c_stops_a_program_that_does_not_listen() -> None:
    program = FakeProgram({20: recorded.half_tuned()}, ctrl_c_s=30)
    program.deaf = True
    outcome = follow(program)
    assert outcome.exit_code == 130
    assert program.stopped == [(0.0, 10.0)]
    assert program.now_s == pytest.approx(50, abs=1)


def test_a_sanity_check_before_training_does_not_hold_up_the_end() -> None:
    program = FakeProgram({1: [recorded.seen(EVAL)], 30: recorded.tuned()})
    outcome = follow(program)
    assert outcome.exit_code == 0
    assert program.now_s == pytest.approx(30, abs=0.5)


def test_a_short_evaluation_does_not_hold_up_the_end() -> None:
    short: list[Event] = [recorded.seen(EVAL), recorded.window(1, 6.0, EVAL, seconds=1.0)]
    program = FakeProgram({10: short, 30: recorded.tuned()})
    outcome = follow(program)
    assert outcome.exit_code == 0
    assert program.now_s == pytest.approx(30, abs=0.5)


def test_a_loader_that_matters_is_waited_for() -> None:
    half = recorded.half_tuned(EVAL)[1:4]
    program = FakeProgram({10: half, 30: recorded.tuned(), 55: [recorded.settled(loader=EVAL)]})
    outcome = follow(program)
    assert outcome.exit_code == 0
    assert all(result.settled for result in outcome.results)
    assert program.now_s == pytest.approx(55, abs=0.5)


def test_a_second_loader_is_not_waited_for_for_ever() -> None:
    half = recorded.half_tuned(EVAL)[1:4]
    program = FakeProgram({10: half, 30: recorded.tuned()})
    outcome = follow(program)
    assert (outcome.ending, outcome.exit_code) == (Ending.SETTLED, 4)
    assert program.now_s == pytest.approx(90, abs=1)


def test_the_main_loader_is_always_waited_for() -> None:
    quick: list[Event] = [recorded.seen(EVAL), recorded.window(1, 6.0, EVAL), recorded.settled(loader=EVAL)]
    program = FakeProgram({8: recorded.half_tuned(), 10: quick, 400: [recorded.settled(loader=TRAIN)]})
    outcome = follow(program)
    assert outcome.exit_code == 0
    assert program.now_s == pytest.approx(400, abs=1)


def test_a_loader_that_is_gone_is_not_waited_for() -> None:
    gone = [*recorded.half_tuned(EVAL), recorded.ended(EVAL)]
    program = FakeProgram({10: gone, 30: recorded.tuned()})
    outcome = follow(program)
    assert (outcome.ending, outcome.exit_code) == (Ending.SETTLED, 4)
    assert program.now_s == pytest.approx(30, abs=0.5)


def test_a_loader_that_comes_back_is_waited_for_again() -> None:
    again = [*recorded.half_tuned(EVAL), recorded.ended(EVAL), recorded.window(1, 6.0, EVAL)]
    program = FakeProgram({10: again, 30: recorded.tuned(), 50: [recorded.settled(loader=EVAL)]})
    assert follow(program).exit_code == 0
    assert program.now_s == pytest.approx(50, abs=0.5)


def test_a_program_whose_loaders_cannot_be_tuned_is_not_run_to_the_limit() -> None:
    program = FakeProgram({10: [recorded.joined(), recorded.left()]})
    outcome = follow(program)
    assert (outcome.ending, outcome.exit_code) == (Ending.HOPELESS, 3)
    assert program.now_s == pytest.approx(70, abs=1)


def test_a_loader_that_cannot_be_tuned_may_be_followed_by_one_that_can() -> None:
    program = FakeProgram({10: [recorded.left(EVAL)], 60: [recorded.seen()], 200: recorded.tuned()})
    assert follow(program).exit_code == 0


def test_the_reports_of_other_ranks_are_not_told_again() -> None:
    class TwoRanks(FakeProgram):
        def read_new(self) -> list[tuple[int, Event]]:
            events = [event for _, event in super().read_new()]
            return [(pid, event) for event in events for pid in (7, 8)]

    heard: list[Event] = []
    program = TwoRanks({10: recorded.tuned()})
    session = Session(program, program, goes_on=False, max_seconds=60, heard=heard.append, clock=lambda: program.now_s)
    outcome = session.run()
    assert len(outcome.results) == 1
    assert [event.name for event in heard].count("moved") <= 4
