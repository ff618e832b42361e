"""Which batch is made by whom, which comes out next, what is made again after a death: exactly once each, in order.

    draw ──▶ waiting ──next_to_send, sent──▶ at a worker ──finished──▶ ready ──take──▶ the program
                ▲                                 │ │
                └────────────── lost ─────────────┘ └──────ended─────▶ ready, the end of that worker's
                                                                       dataset ──through──▶ nobody

Two ways to assign. *Fixed* is torch's: strict round robin over worker ids in the order of the draws, since each worker's
random stream depends on which batches it makes and in which order; a lost task stays with its worker id. *Shared* is for
loaders whose worker count may change: whoever has least to do gets the next task, as long as no more than
workers x prefetch batches are unfinished or unread; the content of a batch does not depend on who makes it.

Where memory is short, `at_most` holds tasks back: they are assigned as ever (in fixed mode when they are drawn, so that every
worker makes the same batches in the same order) and sent later.

Iterable datasets (fixed only): what is drawn says how many samples to take, not which, and each worker comes to an end of
its own. The end is an answer to a task like any other and is heeded when that task's turn comes, as if torch's messages
had come in the order of the draws: how many batches each worker has been asked for then follows from what the program
has received, and not from who was quicker.

Nothing here waits, sends or looks at a clock. Everything follows from the tasks themselves and every method may be repeated
with the same arguments, so that Ctrl-C between any two lines of the loader loses no batch and makes none twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Task:
    """One batch on its way."""

    number: int
    """Its place in the epoch."""
    index: Any
    """What the sampler drew: the indices of its samples, or whatever else it yields."""
    worker: int = -1
    """Who makes it or is about to be sent it; -1 for nobody yet."""
    sent: bool = False
    """Whether it is with that worker; else it waits."""
    attempts: int = 0
    """How often it was sent."""
    killed: frozenset[int] = frozenset()
    """The workers that died with it in hand, by their `life`: a death that is told twice counts once."""
    ready: bool = False
    """Whether the result is here."""
    ends: bool = False
    """Whether the result is no batch: its worker's dataset has no more."""
    result: Any = None
    """The result."""
    skipped: tuple[Any, ...] = ()
    """Samples that were left out of it because their making raised."""
    arrival: int = 0
    """Which result of the epoch it was, by arrival."""

    @property
    def deaths(self) -> int:
        """How many workers died with it in hand."""
        return len(self.killed)


@dataclass(slots=True)
class Order:
    """The state of one epoch."""

    fixed: bool
    """Round robin by draw (torch's way) instead of least loaded."""
    in_order: bool = True
    """Batches come out in the order in which they were drawn; else as they arrive."""
    prefetch: int = 2
    """Batches per worker that may be unfinished or unread."""
    workers: dict[int, bool] = field(default_factory=dict)
    """Worker ids, and whether each takes new tasks."""
    exhausted: set[int] = field(default_factory=set)
    """Workers whose iterable dataset has no more: nothing new goes to them in this epoch, also when they have left."""
    tasks: dict[int, Task] = field(default_factory=dict)
    """Every task that was drawn and has not come out, in the order of the draws."""
    drawn: int = 0
    """The next task's number."""
    arrived: int = 0
    """Results so far."""
    turn: int = -1
    """Fixed mode: the worker whom a task was sent to last."""
    at_most: int = 0
    """So many batches may be unfinished or unread in all, the one that comes out next always; 0 for no such limit."""
    _assigned: tuple[int, int] = (-1, -1)  # in order: the last task that was assigned in turn, and to whom
    _sent_below: int = 0
    # Counted from the tasks at every call, 64 workers with 512 tasks cost 400 µs per batch. Sets, since adding and removing may
    # be repeated; a task's own fields change after them, so that whoever is interrupted in between does both again.
    _in_hand: dict[int, set[int]] = field(default_factory=dict)
    _unread: set[int] = field(default_factory=set)
    _lost: set[int] = field(default_factory=set)

    def draw(self, number: int, index: Any) -> None:
        """The sampler drew `index` as its `number`-th."""
        if number >= self.drawn:
            self.tasks[number] = Task(number, index)
            self.drawn = number + 1

    def next_to_send(self) -> tuple[Task, int] | None:
        """The first task that waits, and the worker that shall make it; None when nothing can be sent now.

        The choice is kept: a task that was sent, but of which that could not be noted any more, goes to the same worker
        again, who drops the repetition.
        """
        if self.fixed and self.in_order:
            self._assign()
        while (task := self._first_waiting()) is not None:
            if self._held_back(task) and self.active():
                return None
            if task.worker < 0:
                task.worker = self._out_of_order() if self.fixed else self._least_loaded(task)
            if task.worker >= 0:
                return task, task.worker
            if not self.exhausted:
                return None
            self.take(task)  # as torch: what nobody has room for is not kept; it names no samples that could be missed
        return None

    def _assign(self) -> None:
        """As torch in `_try_put_index`: each task that was drawn goes to the next worker in turn that has more."""
        for number in range(self._assigned[0] + 1, self.drawn):
            task, before = self.tasks.get(number), self._assigned[1]
            turn = sorted(self.active(), key=lambda worker: (worker <= before, worker))
            if task is None or not turn:
                return
            task.worker = turn[0]
            self._assigned = number, turn[0]  # last: after Ctrl-C the same is done again

    def _held_back(self, task: Task) -> bool:
        return bool(self.at_most) and self._under_way() >= self.at_most and task.number != next(iter(self.tasks))

    def _under_way(self) -> int:
        return len(self._unread) + sum(map(len, self._in_hand.values()))

    def _first_waiting(self) -> Task | None:
        """The first task that is to be made and not with a worker. All before `_sent_below` are, or came out: they are not looked at again."""
        for number in range(self._sent_below, self.drawn):
            task = self.tasks.get(number)
            if task is not None and not (task.sent or task.ready):
                return task
            self._sent_below = number + 1
        return None

    def nobodys(self) -> Task | None:
        """A task that no worker has, if one could come out next by being made."""
        first = self._first_waiting()
        return None if first is None or (self.in_order and first.number != next(iter(self.tasks))) else first

    def made_here(self, task: Task, result: Any, skipped: tuple[Any, ...]) -> None:
        """The training process itself made this one. It stays with nobody, so that it may be said again."""
        self._unread.add(task.number)
        self.arrived += 1
        task.result, task.skipped, task.arrival, task.ready = result, skipped, self.arrived, True

    def sent(self, task: Task, worker: int) -> None:
        """This task is with this worker now."""
        if not task.ready:
            self._in_hand.setdefault(worker, set()).add(task.number)
        if not task.sent:
            if task.attempts == 0:
                self.turn = worker
            task.attempts += 1
        task.worker, task.sent = worker, True

    def finished(self, number: int, worker: int, life: int, result: Any, skipped: tuple[Any, ...] = ()) -> bool:
        """A result arrived. False for one that nobody waits for: a repetition, or of a worker that was given up.

        `life` tells apart those that had the same worker id. A late answer of the one before may hold the right batch, but
        its replacement, which would then not make it, has to make the draws of it.
        """
        if not self._waits_for(number, worker, life):
            return False
        task = self.tasks[number]
        self.sent(task, worker)  # a result proves it, should that not have been noted
        self._in_hand.get(worker, set()).discard(number)
        self._unread.add(number)
        self.arrived += 1
        task.result, task.skipped, task.arrival, task.ready = result, skipped, self.arrived, True
        return True

    def ended(self, number: int, worker: int, life: int) -> bool:
        """Instead of a batch came word that the worker's dataset has no more. False as for `finished`."""
        if not self._waits_for(number, worker, life):
            return False
        self.tasks[number].ends = True
        return self.finished(number, worker, life, None)

    def _waits_for(self, number: int, worker: int, life: int) -> bool:
        task = self.tasks.get(number)
        return task is not None and not task.ready and task.worker == worker and life not in self._lost

    def through(self, worker: int) -> None:
        """The turn has come of this worker's end: nothing new goes to it, and what it was sent it will never make."""
        self.exhausted.add(worker)
        for task in list(self.tasks.values()):
            if task.worker == worker and not task.ready:
                self.take(task)

    def has_result_of(self, number: int, worker: int) -> bool:
        """Whether this task waits for delivery, made by this worker."""
        task = self.tasks.get(number)
        return task is not None and task.ready and task.worker == worker

    def next_ready(self) -> Task | None:
        """The task that may come out now; it stays until `take`."""
        if self.in_order:
            first = next(iter(self.tasks.values()), None)
            return first if first is not None and first.ready else None
        ready = [task for task in self.tasks.values() if task.ready]
        return min(ready, key=lambda task: task.arrival, default=None)

    def take(self, task: Task) -> None:
        """This task came out."""
        self._in_hand.get(task.worker, set()).discard(task.number)
        self._unread.discard(task.number)
        self.tasks.pop(task.number, None)

    def lost(self, worker: int, life: int, in_hand: int = -1) -> list[Task]:
        """This worker is gone: what it had not finished waits again, and is first in line since it was drawn first.

        Returned is all that it may have been sent. The batch that it had `in_hand` is blamed for its death; the others only
        stood in its queue.
        """
        self._lost.add(life)
        unfinished = [task for task in self.tasks.values() if task.worker == worker and not task.ready]
        for task in unfinished:
            self._in_hand.get(worker, set()).discard(task.number)
            self._sent_below = min(self._sent_below, task.number)
            task.sent = False
            if not self.fixed:
                task.worker = -1
            if task.number == in_hand:
                task.killed |= {life}
        return unfinished

    def unfinished(self, worker: int) -> int:
        """How many tasks this worker still has to make."""
        return sum(task.worker == worker and not task.ready for task in self.tasks.values())

    def unread_in_turn(self) -> int:
        """How many batches could come out one after the other, were no more made."""
        if not self.in_order:
            return len(self._unread)
        return next((place for place, task in enumerate(self.tasks.values()) if not task.ready), len(self.tasks))

    def in_hand(self) -> int:
        """How many batches workers are at, or have been sent."""
        return sum(map(len, self._in_hand.values()))

    def active(self) -> list[int]:
        """Workers that take new tasks."""
        return [worker for worker, takes in self.workers.items() if takes and worker not in self.exhausted]

    def _out_of_order(self) -> int:
        """torch's choice without order: the next worker in turn that has less than its share to do or unread."""
        turn = sorted(self.active(), key=lambda worker: (worker <= self.turn, worker))
        load = Counter(task.worker for task in self.tasks.values())
        share = self.prefetch * len(self.workers.keys() | self.exhausted) // max(1, len(turn))
        return next((worker for worker in turn if load[worker] < share), -1)

    def _least_loaded(self, task: Task) -> int:
        """Whoever has least to do, and less than the prefetch.

        The batch that comes out next is always sent: when workers were retired, those that are ready and unread may be
        more than the present limit, and would otherwise wait for ever for one that was lost before them.
        """
        active = self.active()
        first = task.number == next(iter(self.tasks))
        if not first and self._under_way() >= self.prefetch * len(active):
            return -1
        worker = min(active, key=self._load, default=-1)
        return worker if worker >= 0 and self._load(worker) < self.prefetch else -1

    def _load(self, worker: int) -> int:
        return len(self._in_hand.get(worker, ()))
