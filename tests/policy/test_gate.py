"""The gate before memory that a GPU may still read, against a GPU whose work is a list of numbered jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keepfed.policy.gate import Gate, Mark


@dataclass
class Switch:
    """A mark that passes when the test says so."""

    open: bool = False
    asked: int = 0

    def passed(self) -> bool:
        self.asked += 1
        return self.open


def test_what_was_dropped_waits_until_its_mark_has_passed() -> None:
    gate: Gate[str] = Gate()
    gate.enter("slot")
    assert gate.unmarked()
    assert gate.passed() == [], "no mark, no way through"
    mark = Switch()
    gate.set_mark(mark)
    assert not gate.unmarked()
    assert gate.passed() == []
    mark.open = True
    assert gate.passed() == ["slot"]
    gate.leave("slot")
    assert len(gate) == 0


def test_a_mark_does_not_cover_what_enters_after_it() -> None:
    gate: Gate[str] = Gate()
    gate.enter("before")
    gate.set_mark(Switch(open=True))
    gate.enter("after")
    assert gate.passed() == ["before"]
    assert gate.unmarked()


def test_a_mark_that_never_passes_keeps_nobody_else_back() -> None:
    gate: Gate[str] = Gate()
    gate.enter("stuck")
    gate.set_mark(Switch())
    gate.enter("later")
    gate.set_mark(Switch(open=True))
    assert gate.passed() == ["later"]


def test_a_mark_of_its_own_is_not_replaced_by_the_next_common_one() -> None:
    gate: Gate[str] = Gate()
    own = Switch()
    gate.enter("copied by ourselves", own)
    gate.enter("the program's")
    gate.set_mark(Switch(open=True))
    assert gate.passed() == ["the program's"]
    own.open = True
    assert gate.passed() == ["copied by ourselves", "the program's"]


def test_a_mark_shared_by_many_is_asked_once() -> None:
    gate: Gate[int] = Gate()
    for slot in range(9):
        gate.enter(slot)
    mark = Switch()
    gate.set_mark(mark)
    gate.passed()
    assert mark.asked == 1


def test_entering_twice_moves_nothing_back() -> None:
    """After Ctrl-C the same drop is reported once more; its mark was set after the drop all the same."""
    gate: Gate[str] = Gate()
    gate.enter("slot")
    gate.set_mark(Switch(open=True))
    gate.enter("slot")
    assert gate.passed() == ["slot"]


def test_what_was_withdrawn_and_enters_again_needs_a_new_mark() -> None:
    gate: Gate[str] = Gate()
    gate.enter("slot")
    gate.set_mark(Switch(open=True))
    gate.withdraw("slot")
    gate.enter("slot")
    assert gate.passed() == []
    assert gate.unmarked()


def test_the_oldest_is_the_first_that_was_marked() -> None:
    gate: Gate[str] = Gate()
    assert gate.oldest() is None
    gate.enter("first")
    assert gate.oldest() is None
    first = Switch()
    gate.set_mark(first)
    gate.enter("second")
    gate.set_mark(Switch())
    assert gate.oldest() is first
    gate.leave("first")
    assert gate.oldest() is not first


@dataclass
class Gpu:
    """Jobs are submitted in order and end in any order."""

    running: set[int] = field(default_factory=set)
    submitted: int = 0

    def submit(self) -> int:
        self.submitted += 1
        self.running.add(self.submitted)
        return self.submitted

    def mark(self) -> Mark:
        return Covering(self, frozenset(self.running))


@dataclass
class Covering:
    gpu: Gpu
    jobs: frozenset[int]

    def passed(self) -> bool:
        return not self.jobs & self.gpu.running


class GateMachine(RuleBasedStateMachine):
    """Slots are leased, read by jobs, dropped, marked and given back, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate[int] = Gate()
        self.gpu = Gpu()
        self.free = set(range(4))
        self.leased: set[int] = set()
        self.dropped: set[int] = set()
        self.readers: dict[int, set[int]] = {slot: set() for slot in range(4)}

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.free)))
        assert not self.readers[slot] & self.gpu.running, "reused while it is read"
        self.free.remove(slot)
        self.leased.add(slot)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        self.readers[data.draw(st.sampled_from(sorted(self.leased)))].add(self.gpu.submit())

    @rule()
    def other_work(self) -> None:
        self.gpu.submit()

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), twice=st.booleans())
    def drop(self, data: st.DataObject, twice: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.leased)))
        self.leased.remove(slot)
        self.dropped.add(slot)
        for _ in range(1 + twice):
            self.gate.enter(slot)

    @rule()
    def mark(self) -> None:
        self.gate.set_mark(self.gpu.mark())

    @rule(interrupted=st.booleans())
    def give_back(self, interrupted: bool) -> None:
        for slot in self.gate.passed():
            self.free.add(slot)
            self.dropped.discard(slot)
            if not interrupted:
                self.gate.leave(slot)
        if interrupted:
            for slot in list(self.free):
                self.gate.leave(slot)

    @precondition(lambda self: self.gpu.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.gpu.running.remove(data.draw(st.sampled_from(sorted(self.gpu.running))))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.gate) == len(self.dropped)
        assert self.free | self.leased | self.dropped == set(range(4))

    def teardown(self) -> None:
        self.gpu.running.clear()
        self.gate.set_mark(self.gpu.mark())
        assert set(self.gate.passed()) == self.dropped


TestGate = GateMachine.TestCase
