"""Who makes which batch, which comes out next, and what is made again (`test_order_machine.py` has all of it at once)."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.policy.order import Order, Task
from tests.policy.torch_order import TorchModel


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
            assert ours.finished(queues[worker].popleft(), worker, worker, torch.workers[worker].made)
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
            assert order.finished(task.number, task.worker, 0, None)
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
            order.finished(task.number, 1, 1, None)
    first = order.tasks[0]
    order.finished(0, first.worker, 0, None)
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
            order.finished(task.number, task.worker, 0, None)
    for worker in (1, 2, 3):
        del order.workers[worker]
    assert [task.number for task in order.lost(0, 0)] == [0, 4]
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
    assert [task.number for task in order.lost(1, 1)] == [1, 4]
    again = []
    while (chosen := order.next_to_send()) is not None:
        again.append((chosen[0].number, chosen[1]))
        order.sent(*chosen)
    assert again == [(1, 1), (4, 1)]
    order.draw(6, None)
    chosen = order.next_to_send()
    assert chosen is not None
    assert chosen[1] == 0, "the turn goes on where it was"


@pytest.mark.parametrize("fixed", [True, False])
def test_a_result_of_a_worker_that_was_given_up_is_refused_also_when_another_has_its_id(fixed: bool) -> None:
    """Else the replacement would not make that batch, and its random stream would not stand where the next one needs it."""
    order = Order(fixed=fixed, prefetch=2, workers={0: True})
    order.draw(0, None)
    order.sent(*(order.next_to_send() or pytest.fail("nobody")))
    order.lost(0, 1)
    assert not order.finished(0, 0, 1, "late, before it was sent again")
    assert order.next_to_send() == (order.tasks[0], 0)
    order.sent(order.tasks[0], 0)
    assert not order.finished(0, 0, 1, "late")
    assert not order.ended(0, 0, 1)
    assert order.finished(0, 0, 2, "in time")
    assert not order.finished(0, 0, 2, "repeated")
    assert order.tasks[0].result == "in time"


def test_a_task_that_was_sent_but_not_noted_is_lost_with_its_worker() -> None:
    """The worker may have it: whoever brings the next one to the same place must know."""
    order = Order(fixed=True, workers={0: True})
    order.draw(0, None)
    order.next_to_send()
    assert [task.number for task in order.lost(0, 1)] == [0]


def test_a_death_that_is_told_twice_counts_once() -> None:
    """Ctrl-C may come between the death and its end in the books."""
    order = Order(fixed=True, workers={0: True})
    order.draw(0, None)
    for life in (1, 2):
        order.sent(*(order.next_to_send() or pytest.fail("nobody")))
        for _ in range(2):
            order.lost(0, life, in_hand=0)
        assert order.tasks[0].deaths == life


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
        assert order.finished(number, task.worker, 0, None)
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
