"""Whatever happens to workers and to the program in between: each batch comes out once, as in a run where nothing happened.

The machine drives `policy/order.py` inside a crew of models (`crew_model.py`): workers die at any moment, are given up and
answer late, come and go; Ctrl-C leaves every step of the trainer half done; epochs are abandoned. Checked is that the output
is the plan: every batch once, in order, by the worker whose turn it was, from the random state that it would have had.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keepfed.policy.order import Order
from tests.policy.crew_model import CrewModel, Member, Steps

MAX_WORKERS = 5
EPOCH = 60
PICKS = st.randoms(use_true_random=False)
CUTS = st.none() | st.integers(0, 12)
"""After how many steps Ctrl-C comes; None for not at all."""


def run(steps: Steps, cut: int | None = None) -> None:
    """Do these steps, as far as Ctrl-C lets them come."""
    for number, _ in enumerate(steps):
        if number == cut:
            return


def in_turn(lengths: list[int]) -> list[int]:
    """Who made the batches of streams in order: one of each worker that has more, again and again."""
    return [worker for place in range(max(lengths)) for worker, length in enumerate(lengths) if place < length]


class Epochs(RuleBasedStateMachine):
    """One loader through arbitrary interleavings."""

    fixed: bool
    in_order: bool
    streams: bool
    crew: CrewModel | None = None

    @initialize(
        lengths=st.lists(st.integers(0, 6), min_size=1, max_size=MAX_WORKERS),
        prefetch=st.integers(1, 4),
        persistent=st.booleans(),
    )
    def begin(self, lengths: list[int], prefetch: int, persistent: bool) -> None:
        order = Order(self.fixed, self.in_order, prefetch, dict.fromkeys(range(len(lengths)), True))
        self.count = len(lengths)
        self.crew = CrewModel(
            order,
            max_workers=MAX_WORKERS,
            lengths=lengths if self.streams else None,
            persistent=persistent or not self.streams,
        )

    @property
    def model(self) -> CrewModel:
        assert self.crew is not None
        return self.crew

    def some(self, pick: random.Random, fit: Callable[[Member], Any]) -> list[Member]:
        """One worker that fits, if any."""
        found = [member for member in self.model.members.values() if fit(member)]
        return [pick.choice(found)] if found else []

    # ---- what the program and the trainer do ------------------------------------------------------------------------

    @precondition(lambda self: self.model.order.drawn < EPOCH)
    @rule(count=st.integers(1, 8))
    def draw(self, count: int) -> None:
        for _ in range(count):
            self.model.draw()

    @rule(cut=CUTS)
    def dispatch(self, cut: int | None) -> None:
        run(self.model.dispatch(), cut)

    @rule(pick=PICKS, cut=CUTS)
    def hear(self, pick: random.Random, cut: int | None) -> None:
        for member in self.some(pick, lambda member: member.process.said or not member.process.alive):
            run(self.model.hear(member), cut)

    @rule(pick=PICKS, cut=CUTS)
    def take_in(self, pick: random.Random, cut: int | None) -> None:
        for member in self.some(pick, lambda member: member.inbox or member.gone):
            run(self.model.take_in(member), cut)

    @rule(cut=CUTS)
    def deliver(self, cut: int | None) -> None:
        run(self.model.deliver(), cut)

    @precondition(lambda self: not self.fixed)
    @rule(count=st.integers(1, MAX_WORKERS), prefetch=st.integers(1, 4), cut=CUTS)
    def resize(self, count: int, prefetch: int, cut: int | None) -> None:
        run(self.model.resize(count), cut)
        self.model.order.prefetch = prefetch

    @rule(at_most=st.integers(0, 6))
    def hold_back(self, at_most: int) -> None:
        """Memory is short, or no longer."""
        self.model.order.at_most = at_most

    @precondition(lambda self: self.model.persistent)
    @rule()
    def abandon_the_epoch(self) -> None:
        """A `break`, and the loop is begun again."""
        self.check()
        self.model.begin_epoch()

    # ---- what happens to workers ------------------------------------------------------------------------------------

    @rule(pick=PICKS, notes=st.booleans())
    def work(self, pick: random.Random, notes: bool) -> None:
        for member in self.some(pick, lambda member: member.process.heard):
            member.process.work(notes=notes)

    @rule(pick=PICKS)
    def die(self, pick: random.Random) -> None:
        """Killed at any moment, for a stall or by anybody; what it has said can still be read."""
        for member in self.some(pick, lambda member: member.process.alive):
            member.process.alive = False

    @rule(pick=PICKS)
    def give_up(self, pick: random.Random) -> None:
        """A stall."""
        for member in self.some(pick, lambda member: member.process.alive):
            self.model.give_up(member)

    @precondition(lambda self: self.model.given_up)
    @rule(pick=PICKS)
    def answer_late(self, pick: random.Random) -> None:
        """A worker that was given up answers after all, and its socket is still open: nobody waits for that."""
        member = pick.choice(self.model.given_up)
        member.process.work(notes=True)
        while member.process.said:
            kind, epoch, number, content, _ = member.process.said.popleft()
            if epoch == self.model.epoch:
                order = self.model.order
                took = (
                    order.ended(number, member.id, member.life)
                    if kind == "ended"
                    else order.finished(number, member.id, member.life, content)
                )
                assert not took, "its replacement makes that batch"

    # ---- what has to hold -------------------------------------------------------------------------------------------

    @invariant()
    def exactly_once_and_in_order(self) -> None:
        if self.crew is not None:
            self.check()

    def check(self) -> None:
        numbers = [number for number, _ in self.model.out]
        assert len(set(numbers)) == len(numbers), "nothing twice"
        if self.in_order:
            assert numbers == sorted(numbers)
        if self.streams and self.in_order and self.model.lengths:
            makers = [worker for _, worker in self.model.out]
            assert makers == in_turn(self.model.lengths)[: len(makers)]
        elif self.fixed and self.in_order:
            assert all(worker == number % self.count for number, worker in self.model.out)

    def teardown(self) -> None:
        """Nothing happens any more: all that was drawn comes out, without help."""
        if self.crew is None:
            return
        model = self.crew
        for _ in range(50 * EPOCH):
            run(model.dispatch())
            for member in list(model.members.values()):
                member.process.work(notes=False)
                run(model.hear(member))
                run(model.take_in(member))
            run(model.deliver())
            if not model.order.tasks:
                break
        assert not model.order.tasks, "nobody makes what is missing"
        self.check()
        if model.lengths is not None:
            assert sorted(worker for _, worker in model.out) == sorted(in_turn(model.lengths))
        else:
            assert sorted(number for number, _ in model.out) == list(range(model.order.drawn))


@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "as they come"])
@pytest.mark.parametrize(
    ("fixed", "streams"), [(True, False), (False, False), (True, True)], ids=["fixed", "shared", "streams"]
)
def test_whatever_happens_the_output_is_the_plan(fixed: bool, streams: bool, in_order: bool) -> None:
    machine = type("Machine", (Epochs,), {"fixed": fixed, "in_order": in_order, "streams": streams})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=60,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # to shrink a failure of 60 steps takes longer than a test may
        ),
    )
