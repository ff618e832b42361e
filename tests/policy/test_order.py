"""Every batch comes out exactly once and in order, whatever happens to workers and to the program in between."""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keepfed.policy.order import Order, Task
from tests.policy.torch_order import TorchModel

MAX_WORKERS = 5
EPOCH = 60


@dataclass
class FakeWorker:
    """A worker as `worker.py` is one: makes tasks in the order in which they came, and each number only once."""

    tasks: deque[int] = field(default_factory=deque)
    seen: set[int] = field(default_factory=set)

    def receive(self, number: int) -> None:
        if number not in self.seen:
            self.seen.add(number)
            self.tasks.append(number)


class Epochs(RuleBasedStateMachine):
    """One loader through arbitrary interleavings. "again" means: Ctrl-C struck after the step and it is done once more."""

    fixed: bool
    in_order: bool

    @initialize(workers=st.integers(1, MAX_WORKERS), prefetch=st.integers(1, 4))
    def begin(self, workers: int, prefetch: int) -> None:
        self.order = Order(self.fixed, self.in_order, prefetch, dict.fromkeys(range(workers), True))
        self.workers = {number: FakeWorker() for number in range(workers)}
        self.ghosts: list[tuple[int, int]] = []
        self.out: list[int] = []
        self.drawn = 0

    @precondition(lambda self: self.drawn < EPOCH)
    @rule(again=st.booleans(), count=st.integers(1, 8))
    def draw(self, again: bool, count: int) -> None:
        for _ in range(count):
            for _ in range(1 + again):
                self.order.draw(self.drawn, f"index {self.drawn}")
            self.drawn += 1

    @rule(noted=st.booleans(), again=st.booleans())
    def send(self, noted: bool, again: bool) -> None:
        """Send one task. Not noted: interrupted between the send and the note of it, and sent again later."""
        waiting = next((task for task in self.order.tasks.values() if not task.sent), None)
        undecided = waiting is not None and waiting.worker < 0
        chosen = self.order.next_to_send()
        if chosen is None:
            return
        task, worker = chosen
        under_way = sum(other.sent for other in self.order.tasks.values())
        assert not self.order.at_most or under_way < self.order.at_most or task.number == next(iter(self.order.tasks))
        assert task is waiting, "in the order of the draws"
        assert worker in self.order.workers, "a task goes to a worker that exists"
        if undecided and not self.fixed:
            self._not_too_many(task)
        self.workers[worker].receive(task.number)
        for _ in range(noted + (noted and again)):
            self.order.sent(task, worker)

    def _not_too_many(self, task: Task) -> None:
        """Never more than workers x prefetch are unfinished or unread, but for the one that everything waits for."""
        sent = sum(other.sent for other in self.order.tasks.values())
        assert sent < self.order.prefetch * len(self.order.active()) or task.number == next(iter(self.order.tasks))
        assert self.order.workers[task.worker], "who is retiring gets nothing new"

    @rule(pick=st.randoms(use_true_random=False), again=st.booleans())
    def finish(self, pick: random.Random, again: bool) -> None:
        busy = [number for number, worker in self.workers.items() if worker.tasks]
        if busy:
            worker = pick.choice(busy)
            number = self.workers[worker].tasks.popleft()
            accepted = [self.order.finished(number, worker, f"batch {number}") for _ in range(1 + again)]
            assert sum(accepted) <= 1, "a result is taken once"

    @precondition(lambda self: self.ghosts)
    @rule(pick=st.randoms(use_true_random=False))
    def late_result(self, pick: random.Random) -> None:
        """A result of a worker that was given up arrives after all."""
        number, worker = pick.choice(self.ghosts)
        self.order.finished(number, worker, f"batch {number}")

    @rule(again=st.booleans())
    def take(self, again: bool) -> None:
        task = self.order.next_ready()
        if task is not None:
            assert task.result == f"batch {task.number}"
            assert again is False or self.order.next_ready() is task, "it stays until it is taken"
            for _ in range(1 + again):
                self.order.take(task)
            self.out.append(task.number)

    @rule(pick=st.randoms(use_true_random=False), again=st.booleans(), replaced=st.booleans())
    def die(self, pick: random.Random, again: bool, replaced: bool) -> None:
        worker = pick.choice(list(self.workers))
        self.ghosts += [(number, worker) for number in self.workers.pop(worker).tasks]
        for _ in range(1 + again):
            lost = self.order.lost(worker)
            assert not any(task.ready or task.sent for task in lost)
        takes_more = self.order.workers[worker]
        if self.fixed or (takes_more and (replaced or self.order.active() == [worker])):
            self.workers[worker] = FakeWorker()
        else:
            del self.order.workers[worker]

    @precondition(lambda self: not self.fixed)
    @rule()
    def add(self) -> None:
        free = [number for number in range(MAX_WORKERS) if number not in self.order.workers]
        if free:
            self.order.workers[free[0]] = True
            self.workers[free[0]] = FakeWorker()

    @precondition(lambda self: not self.fixed and len(self.order.active()) > 1)
    @rule(pick=st.randoms(use_true_random=False))
    def retire(self, pick: random.Random) -> None:
        self.order.workers[pick.choice(self.order.active())] = False
        self.leave()

    @rule()
    def leave(self) -> None:
        """Retired workers go when they have nothing more to do."""
        for worker, takes in list(self.order.workers.items()):
            if not takes and not self.order.unfinished(worker):
                assert not self.order.lost(worker), "who has nothing to do loses nothing"
                del self.order.workers[worker], self.workers[worker]

    @precondition(lambda self: not self.fixed)
    @rule(prefetch=st.integers(1, 4))
    def change_prefetch(self, prefetch: int) -> None:
        self.order.prefetch = prefetch

    @rule(at_most=st.integers(0, 6))
    def hold_back(self, at_most: int) -> None:
        self.order.at_most = at_most

    @rule()
    def end_the_epoch(self) -> None:
        """Nothing more is drawn: all that was drawn comes out, without help."""
        while self.order.tasks:
            while (chosen := self.order.next_to_send()) is not None:
                self.workers[chosen[1]].receive(chosen[0].number)
                self.order.sent(*chosen)
            worker = next((number for number, worker in self.workers.items() if worker.tasks), None)
            assert worker is not None or self.order.next_ready() is not None, "nobody makes what is missing"
            if worker is not None:
                number = self.workers[worker].tasks.popleft()
                self.order.finished(number, worker, f"batch {number}")
            while (task := self.order.next_ready()) is not None:
                self.order.take(task)
                self.out.append(task.number)
        assert sorted(self.out) == list(range(self.drawn))
        self.order = Order(self.fixed, self.in_order, self.order.prefetch, dict(self.order.workers))
        self.workers = {number: FakeWorker() for number in self.workers}
        self.out, self.drawn, self.ghosts = [], 0, []

    @invariant()
    def exactly_once_and_in_order(self) -> None:
        out = getattr(self, "out", [])
        assert len(set(out)) == len(out), "nothing twice"
        if self.in_order:
            assert out == list(range(len(out)))
        else:
            assert set(out).isdisjoint(self.order.tasks if out else ())

    def teardown(self) -> None:
        if hasattr(self, "order"):
            self.end_the_epoch()


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_whatever_happens_each_batch_comes_out_exactly_once(fixed: bool, in_order: bool) -> None:
    machine = type("Machine", (Epochs,), {"fixed": fixed, "in_order": in_order})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=50,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # to shrink a failure of 50 steps takes longer than a test may
        ),
    )


@given(
    workers=st.integers(1, 5),
    prefetch=st.integers(1, 4),
    batches=st.integers(0, 40),
    in_order=st.booleans(),
    pick=st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None, database=None)
def test_fixed_assigns_and_delivers_as_torch(
    workers: int, prefetch: int, batches: int, in_order: bool, pick: random.Random
) -> None:
    """The same arrivals lead to the same assignment, batch by batch, and to the same deliveries."""
    torch = TorchModel(workers, prefetch, range(batches), in_order=in_order)
    ours = Order(fixed=True, in_order=in_order, prefetch=prefetch, workers=dict.fromkeys(range(workers), True))
    numbers = iter(range(batches))
    queues: list[deque[int]] = [deque() for _ in range(workers)]
    assigned: dict[int, int] = {}

    def draw_and_send() -> None:
        if (number := next(numbers, None)) is not None:
            ours.draw(number, number)
        while (chosen := ours.next_to_send()) is not None:
            task, worker = chosen
            queues[worker].append(task.number)
            assigned[task.number] = worker
            ours.sent(task, worker)

    for _ in range(workers * prefetch):
        draw_and_send()
    delivered = 0
    while delivered < batches:
        assert (assigned, queues) == (torch.assigned, torch.queues)
        busy = [worker for worker in range(workers) if queues[worker]]
        if busy and pick.random() < 0.6:
            worker = pick.choice(busy)
            torch.finish(worker)
            assert ours.finished(queues[worker].popleft(), worker, torch.workers[worker].made)
        elif (batch := torch.next_data()) is not None:
            task = ours.next_ready()
            assert task is not None
            assert (task.worker, task.result) == (batch[0], batch[1] + 1)
            ours.take(task)
            draw_and_send()
            delivered += 1
        else:
            assert ours.next_ready() is None


@given(
    workers=st.integers(1, 5),
    prefetch=st.integers(1, 4),
    in_order=st.booleans(),
    pick=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None, database=None)
def test_shared_keeps_workers_times_prefetch_in_preparation_and_never_more(
    workers: int, prefetch: int, in_order: bool, pick: random.Random
) -> None:
    order = Order(fixed=False, in_order=in_order, prefetch=prefetch, workers=dict.fromkeys(range(workers), True))
    numbers = itertools.count()
    for step in range(60):
        while len(order.tasks) < 40:
            order.draw(next(numbers), None)
        while (chosen := order.next_to_send()) is not None:
            order.sent(*chosen)
        with_workers = [task for task in order.tasks.values() if task.sent]
        assert len(with_workers) == workers * prefetch if not step else len(with_workers) <= workers * prefetch
        assert max(order.unfinished(worker) for worker in range(workers)) <= prefetch
        unfinished = [task for task in with_workers if not task.ready]
        if unfinished and pick.random() < 0.7:
            task = pick.choice(unfinished)
            assert order.finished(task.number, task.worker, None)
        elif (ready := order.next_ready()) is not None:
            order.take(ready)


def test_least_loaded_worker_gets_the_next_task() -> None:
    order = Order(fixed=False, prefetch=3, workers={0: True, 1: True})
    for number in range(9):
        order.draw(number, None)
    while (chosen := order.next_to_send()) is not None:
        order.sent(*chosen)
    for task in list(order.tasks.values()):
        if task.worker == 1:
            order.finished(task.number, 1, None)
    first = order.tasks[0]
    order.finished(0, first.worker, None)
    order.take(first)
    chosen = order.next_to_send()
    assert chosen is not None
    assert chosen[1] == 1


def test_a_lost_batch_is_made_although_those_behind_it_fill_a_limit_that_was_lowered() -> None:
    """Four workers had eight batches in hand; one is left with a limit of two, and dies with the first of the eight."""
    order = Order(fixed=False, prefetch=2, workers=dict.fromkeys(range(4), True))
    for number in range(8):
        order.draw(number, None)
    while (chosen := order.next_to_send()) is not None:
        order.sent(*chosen)
    for task in order.tasks.values():
        if task.worker != 0:
            order.finished(task.number, task.worker, None)
    for worker in (1, 2, 3):
        del order.workers[worker]
    assert [task.number for task in order.lost(0)] == [0, 4]
    chosen = order.next_to_send()
    assert chosen is not None
    assert chosen[0].number == 0


def test_a_task_that_was_sent_but_not_noted_goes_to_the_same_worker_again() -> None:
    order = Order(fixed=False, prefetch=2, workers={0: True, 1: True})
    order.draw(0, "a")
    order.draw(1, "b")
    first = order.next_to_send()
    assert first is not None
    order.workers = {1: True, 0: True}  # whatever would change the choice
    assert order.next_to_send() == first


def test_a_lost_task_of_the_fixed_order_stays_with_its_worker_id() -> None:
    order = Order(fixed=True, prefetch=2, workers=dict.fromkeys(range(3), True))
    for number in range(6):
        order.draw(number, None)
        chosen = order.next_to_send()
        assert chosen is not None
        order.sent(*chosen)
    assert [task.number for task in order.lost(1)] == [1, 4]
    again = []
    while (chosen := order.next_to_send()) is not None:
        again.append((chosen[0].number, chosen[1]))
        order.sent(*chosen)
    assert again == [(1, 1), (4, 1)]
    order.draw(6, None)
    chosen = order.next_to_send()
    assert chosen is not None
    assert chosen[1] == 0, "the turn goes on where it was"


def test_a_result_of_a_worker_that_was_given_up_is_refused() -> None:
    order = Order(fixed=False, prefetch=2, workers={0: True, 1: True})
    order.draw(0, None)
    chosen = order.next_to_send()
    assert chosen is not None
    task, lost = chosen
    order.sent(task, lost)
    order.lost(lost)
    del order.workers[lost]
    chosen = order.next_to_send()
    assert chosen is not None
    order.sent(*chosen)
    assert not order.finished(0, lost, "late")
    assert order.finished(0, chosen[1], "in time")
    assert not order.finished(0, chosen[1], "repeated")
    assert task.result == "in time"


@pytest.mark.parametrize("fixed", [True, False])
def test_the_next_task_is_found_without_looking_at_all_that_are_out(fixed: bool) -> None:
    """With 64 workers and 512 tasks out, a look at each took longer than everything else that is done for a batch."""
    order = Order(fixed, prefetch=8, workers=dict.fromkeys(range(64), True))
    order.tasks = CountingDict()
    for number in range(512 + 100):
        order.draw(number, number)
        if number < 512:
            order.sent(*(order.next_to_send() or pytest.fail("a worker has room")))
    order.tasks.looked = 0
    for number in range(100):
        task = order.tasks[number]
        assert order.finished(number, task.worker, None)
        order.take(task)
        following = order.next_to_send()
        assert following is not None
        assert following[0].number == 512 + number
        order.sent(*following)
    assert order.tasks.looked < 100 * 20


class CountingDict(dict[int, Task]):
    """Counts the tasks that somebody looks at."""

    looked = 0

    def get(self, number: int, default: Any = None) -> Any:
        self.looked += 1
        return super().get(number, default)

    def __getitem__(self, number: int) -> Task:
        self.looked += 1
        return super().__getitem__(number)

    def values(self) -> Any:
        for task in super().values():
            self.looked += 1
            yield task
