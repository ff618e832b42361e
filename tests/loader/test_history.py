"""What a replacement has to do, from what its predecessor was told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keepfed.loader.history import History


class Draws:
    """A worker whose whole state is the list of what it did; it may die at any point and lose everything but its note."""

    def __init__(self) -> None:
        self.did: list[Any] = []
        self.things = 0
        self.note: tuple[int, Any] | None = None

    def hear(self, message: tuple[Any, ...]) -> None:
        if message[0] == "restore":
            self.things, self.did = message[1], list(message[2])
            return
        self.did.append(message if message[0] == "resume" else message[1:4])
        self.things += 1

    def write_note(self) -> None:
        self.note = self.things, tuple(self.did)


@given(st.lists(st.sampled_from(["task", "answer", "note", "report", "die", "epoch"]), max_size=80))
def test_a_replacement_stands_where_the_dead_one_stood(steps: list[str]) -> None:
    """Whatever happens in whatever order, the replacement's state is that of a worker that never died."""
    history, worker, immortal = History(), Draws(), Draws()
    epoch = number = 0
    queue: list[tuple[Any, ...]] = []  # sent, not yet done
    for step in steps:
        if step == "task":
            history.task(epoch, number, [number])
            queue.append(("task", epoch, number, [number]))
            number += 1
        elif step == "answer" and queue:
            message = queue.pop(0)
            worker.hear(message)
            immortal.hear(message)
        elif step == "note":
            worker.write_note()
        elif step == "report" and worker.note is not None:
            history.has_noted(worker.note[0])
        elif step == "epoch":
            epoch, number = epoch + 1, 0
            history.resume(epoch, None)
            queue.append(("resume", None))
        elif step == "die":
            lost = [message for message in queue if message[0] == "task" and message[1] == epoch]
            history.died(worker.note, {(task[1], task[2]) for task in lost})
            for message in queue:  # a worker that lived on would do these, too
                if message not in lost:
                    immortal.hear(message)
            worker = Draws()
            for message in history.opening():
                worker.hear(message)
            queue = lost
            for task in lost:
                history.task(*task[1:])
            assert worker.did == immortal.did
            assert worker.things == immortal.things


def test_a_task_that_could_not_be_sent_is_not_made_again() -> None:
    """An index that cannot be pickled: its worker has never heard of it."""
    history = History()
    history.task(0, 0, "unpicklable")
    history.not_told(0, 0)
    history.task(0, 1, "index")
    assert history.opening() == [("again", 0, 1, "index")]


def test_what_a_stream_is_told_again_and_again_is_kept_once() -> None:
    """Without a state of its own it is remembered for a whole epoch, which may last for weeks."""
    history = History()
    for number in range(3):
        history.task(0, number, [None] * 256)
    indices = [message[3] for message in history.opening()]
    assert indices == [[None] * 256] * 3
    assert len({id(index) for index in indices}) == 1


def test_indices_are_kept_as_they_are_and_compared_with_nothing() -> None:
    history, odd = History(), [None, Incomparable()]
    indices = [odd, [], [Incomparable()], None, [None], [None, None]]
    for number, index in enumerate(indices):
        history.task(0, number, index)
    kept = [message[3] for message in history.opening()]
    assert all(one is other for one, other in zip(kept, indices, strict=True))


class Incomparable:
    """As an array is to `==`."""

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")
