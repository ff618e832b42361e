"""Iterable datasets: every worker reads to an end of its own; what comes out, and who is asked for more, is torch's."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.policy.order import Order, Task
from tests.policy.torch_order import END, StreamWorker, TorchModel

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def in_turn(lengths: list[int]) -> list[tuple[int, int]]:
    """Batches (worker, place in its stream) as they come out in order: one of each worker that has more, again and again."""
    return [(worker, place) for place in range(max(lengths)) for worker, length in enumerate(lengths) if place < length]


class Loader:
    """An epoch over streams as the crew runs one."""

    def __init__(self, lengths: list[int], prefetch: int, *, in_order: bool, at_most: int = 0) -> None:
        workers = dict.fromkeys(range(len(lengths)), True)
        self.order = Order(True, in_order, prefetch, workers, at_most=at_most)
        self.workers = [StreamWorker(number, length) for number, length in enumerate(lengths)]
        self.numbers = itertools.count()
        self.reads = 0
        self.assigned: list[int] = []
        for _ in range(prefetch * len(lengths)):
            self.draw()
        self.send()

    def draw(self) -> None:
        self.reads += 1
        self.order.draw(next(self.numbers), None)

    def send(self) -> None:
        while (chosen := self.order.next_to_send()) is not None:
            task, worker = chosen
            assert not self.order.exhausted & {worker}, "sent to a worker that has no more"
            self.workers[worker].tasks.append(task.number)
            self.assigned.append(worker)
            self.order.sent(task, worker)

    def finish(self, worker: int) -> None:
        message = self.workers[worker].finish()
        if message is not None:
            number, data = message
            if data is END:
                self.order.ended(number, worker, worker)
            else:
                self.order.finished(number, worker, worker, data)

    def next_data(self) -> Any:
        """The batch that comes out, END of the epoch, or None when one has to wait."""
        while self.order.tasks:
            task = self.order.next_ready()
            if task is None:
                self.send()
                return None
            if not task.ends:
                self.draw()
                self.order.take(task)
                self.send()
                return task.result
            self.through(task)
        return END

    def through(self, end: Task) -> None:
        self.order.through(end.worker)
        self.draw()
        self.send()
        self.order.take(end)

    def busy(self) -> list[int]:
        return [worker.number for worker in self.workers if worker.tasks]


@given(lengths=LENGTHS, prefetch=st.integers(1, 4), pick=st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None, database=None)
def test_without_order_every_decision_is_torchs(lengths: list[int], prefetch: int, pick: random.Random) -> None:
    """The same arrivals lead to the same tasks at the same workers, the same batches, reads and end."""
    torch = TorchModel(len(lengths), prefetch, itertools.repeat(None), in_order=False, lengths=lengths)
    ours = Loader(lengths, prefetch, in_order=False)
    batch = None
    while batch is not END:
        assert ours.assigned == list(torch.assigned.values())
        busy = ours.busy()
        if busy and pick.random() < 0.6:
            worker = pick.choice(busy)
            torch.finish(worker)
            ours.finish(worker)
        else:
            batch = torch.next_data()
            assert ours.next_data() == batch
    assert sorted(torch.out) == sorted(in_turn(lengths))
    assert ours.reads == torch.reads


@given(lengths=LENGTHS, prefetch=st.integers(1, 4), pick=st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None, database=None)
def test_in_order_every_decision_is_torchs_when_batches_arrive_in_order(
    lengths: list[int], prefetch: int, pick: random.Random
) -> None:
    torch = TorchModel(len(lengths), prefetch, itertools.repeat(None), in_order=True, lengths=lengths)
    ours = Loader(lengths, prefetch, in_order=True)
    batch = None
    while batch is not END:
        assert ours.assigned == list(torch.assigned.values())
        busy = ours.busy()
        if busy and pick.random() < 0.6:
            worker = min(busy, key=lambda worker: torch.queues[worker][0])
            torch.finish(worker)
            ours.finish(worker)
        else:
            batch = torch.next_data()
            assert ours.next_data() == batch
    assert torch.out == in_turn(lengths)
    assert ours.reads == torch.reads


@given(lengths=LENGTHS, prefetch=st.integers(1, 4), pick=st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None, database=None)
def test_in_order_batches_and_reads_are_torchs_whoever_is_quicker(
    lengths: list[int], prefetch: int, pick: random.Random
) -> None:
    """torch's number of reads at the end, and its batches, do not depend on arrivals; ours never do."""
    runs: list[Any] = [
        TorchModel(len(lengths), prefetch, itertools.repeat(None), in_order=True, lengths=lengths),
        Loader(lengths, prefetch, in_order=True),
    ]
    outs = []
    for run in runs:
        out: list[Any] = []
        while not out or out[-1] is not END:
            busy = [worker.number for worker in run.workers if worker.tasks]
            if busy and pick.random() < 0.6:
                run.finish(pick.choice(busy))
            elif (batch := run.next_data()) is not None:
                out.append(batch)
        outs.append(out[:-1])
    assert outs[0] == outs[1] == in_turn(lengths)
    assert runs[0].reads == runs[1].reads


@given(lengths=LENGTHS, prefetch=st.integers(1, 4), picks=st.tuples(*[st.randoms(use_true_random=False)] * 2))
@settings(max_examples=200, deadline=None, database=None)
def test_in_order_what_each_worker_was_asked_for_follows_from_what_was_delivered(
    lengths: list[int], prefetch: int, picks: tuple[random.Random, random.Random]
) -> None:
    """Also after a break in mid-epoch: persistent workers are then in the same random states, whoever was quicker."""
    histories = []
    for pick in picks:
        run = Loader(lengths, prefetch, in_order=True)
        history = [list(run.assigned)]
        batch = None
        while batch is not END:
            busy = run.busy()
            if busy and pick.random() < 0.5:
                run.finish(pick.choice(busy))
            elif (batch := run.next_data()) is not None:
                history.append(list(run.assigned))
        histories.append(history)
    assert histories[0] == histories[1]


@given(lengths=LENGTHS, prefetch=st.integers(1, 4), limits=st.lists(st.integers(0, 8), min_size=1), pick=st.randoms())
@settings(max_examples=300, deadline=None, database=None)
def test_tasks_that_are_held_back_go_to_the_workers_that_torch_gives_them_to(
    lengths: list[int], prefetch: int, limits: list[int], pick: random.Random
) -> None:
    """Whatever limit is in force when: batches, reads, and after it is lifted what workers that have more were asked for."""
    free, held = Loader(lengths, prefetch, in_order=True), Loader(lengths, prefetch, in_order=True, at_most=1)
    limit = itertools.cycle(limits)
    while True:
        batches: list[Any] = []
        for run in (free, held):
            while (batch := run.next_data()) is None:
                run.finish(pick.choice(run.busy()))
            batches.append(batch)
        assert batches[0] == batches[1]
        assert held.reads == free.reads
        if batches[0] is END:
            break
        held.order.at_most = next(limit)
        held.send()
        assert held.order.exhausted == free.order.exhausted
        asked = [[worker for worker in run.assigned if worker not in run.order.exhausted] for run in (held, free)]
        assert asked[0] == asked[1][: len(asked[0]) if held.order.at_most else None]


def test_a_worker_that_has_no_more_is_passed_over_and_the_turn_goes_on_from_its_place() -> None:
    order = Order(fixed=True, prefetch=1, workers=dict.fromkeys(range(3), True))
    for number in range(2):
        order.draw(number, None)
        order.sent(*(order.next_to_send() or pytest.fail("nobody")))
    order.ended(1, 1, 1)
    order.through(1)
    del order.workers[1]
    order.draw(2, None)
    chosen = order.next_to_send()
    assert chosen is not None
    assert chosen[1] == 2


def test_what_is_drawn_when_all_have_ended_is_for_nobody() -> None:
    order = Order(fixed=True, workers={0: True})
    order.through(0)
    order.draw(0, None)
    assert order.next_to_send() is None
    assert not order.tasks
