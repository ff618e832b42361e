"""A crew without processes: trainer, sockets, workers and their random streams, as `crew.py`, `roster.py` and `queues.py` have them.

    trainer                                    worker process
    Order, History ── send ──▶ `heard` ──────▶ work: moves the random stream, and `place` in a stream
    inbox  ◀──── hear ──────── `said`  ◀────── the answer; then perhaps a note, which outlives it
      └─ take in ─▶ Order                      dead: `heard` is lost with it, `said` can still be read

What can be interrupted is a generator that yields wherever Ctrl-C may come: left there, it is begun again from the start
the next time, as `next()` is. The content of a batch is what it depends on: with a fixed worker count everything that its
worker was told before, else its epoch and number alone.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from keepfed.loader.history import History
from keepfed.policy.order import Order, Task

Steps = Iterator[None]


@dataclass(eq=False)
class Process:
    """A worker process, with what stands in its socket in both directions and what it noted of its random stream."""

    fixed: bool
    length: int | None = None
    """Batches in its stream; None over a map-style dataset."""
    heard: deque[tuple[Any, ...]] = field(default_factory=deque)
    said: deque[tuple[Any, ...]] = field(default_factory=deque)
    alive: bool = True
    drawn: int = 0
    """Stands for its random state: a hash of all that it made."""
    place: int = 0
    things: int = 0
    note: tuple[int, int] | None = None
    seen: set[int] = field(default_factory=set)
    quitting: bool = False

    def receive(self, kind: str, *rest: Any) -> None:
        """A message arrives; a dead process swallows it."""
        if not self.alive or (kind == "task" and rest[1] in self.seen):
            return
        if kind == "task":
            self.seen.add(rest[1])
        if kind == "resume":
            self.seen.clear()
            if not self.fixed:
                self.heard.clear()
        self.quitting |= kind == "quit"
        self.heard.append((kind, *rest))

    def work(self, *, notes: bool) -> None:
        """Do the first thing that it was told, and perhaps note the random state after it."""
        if self.quitting:
            self.alive = False
        if not self.alive or not self.heard:
            return
        kind, *rest = self.heard.popleft()
        if kind == "restore":
            self.things, self.drawn = rest
            self.note = self.things, self.drawn
        elif kind == "resume":
            if self.length is not None:
                self.note = self.things, self.drawn
            self.things, self.place = self.things + 1, 0
        else:
            noted = self.note[0] if self.note is not None else -1
            answer = self._make(rest[0], rest[1])
            self.things += 1
            if kind == "task" and answer is not None:
                self.said.append((*answer, noted))
            if notes and self.fixed and self.length is None:
                self.note = self.things, self.drawn

    def _make(self, epoch: int, number: int) -> tuple[Any, ...] | None:
        if not self.fixed:
            return "done", epoch, number, (epoch, number)
        self.place += 1
        if self.length is not None and self.place > self.length:
            return ("ended", epoch, number, None) if self.place == self.length + 1 else None
        self.drawn = hash((self.drawn, epoch, number))
        return "done", epoch, number, self.drawn


@dataclass(eq=False)
class Member:
    """What the trainer knows of a worker: its end of the socket, and whether it is gone."""

    id: int
    life: int
    process: Process
    inbox: deque[tuple[Any, ...]] = field(default_factory=deque)
    gone: bool = False
    quitting: bool = False


class CrewModel:
    """The trainer's side."""

    def __init__(
        self, order: Order, *, max_workers: int, lengths: list[int] | None = None, persistent: bool = True
    ) -> None:
        self.order, self.max_workers, self.lengths, self.persistent = order, max_workers, lengths, persistent
        self.epoch = 0
        self.lives = 0
        self.members: dict[int, Member] = {}
        self.histories: dict[int, History] = {}
        self.given_up: list[Member] = []
        self.told: dict[int, Process] = {}  # by worker id: one that never dies and hears everything once
        self.expected: dict[tuple[int, int], Any] = {}
        self.out: list[tuple[int, Any]] = []
        for worker_id in order.workers:
            self._add(worker_id)
        for _ in range(order.prefetch * len(order.workers)):
            self.draw()

    # ---- workers ----------------------------------------------------------------------------------------------------

    def _process(self, worker_id: int) -> Process:
        return Process(self.order.fixed, self.lengths[worker_id] if self.lengths is not None else None)

    def _add(self, worker_id: int) -> None:
        self.lives += 1
        member = Member(worker_id, self.lives, self._process(worker_id))
        for message in self._history(worker_id).opening():
            member.process.receive(*message)
        self.members[worker_id] = member

    def _history(self, worker_id: int) -> History:
        return self.histories.setdefault(worker_id, History())

    def quit(self, member: Member) -> None:
        """Ask a worker to end after what it has in hand."""
        if not member.quitting:
            member.quitting = True
            member.process.receive("quit")

    def resize(self, count: int) -> Steps:
        """`Roster.resize`."""
        order, active = self.order, self.order.active()
        for worker_id in active[count:]:
            order.workers[worker_id] = False
            yield
        for worker_id, member in self.members.items():
            if len(active) < count and worker_id not in active and not member.quitting:
                order.workers[worker_id] = True
                active.append(worker_id)
                yield
        free = [number for number in range(self.max_workers) if number not in self.members]
        for worker_id in free[: max(0, count - len(active))]:
            self._add(worker_id)
            yield
            order.workers[worker_id] = True
            yield
        self.retire_idle()

    def retire_idle(self) -> None:
        """Ask those to quit that take no more tasks and have none in hand."""
        for worker_id, takes in self.order.workers.items():
            if not takes and not self.order.unfinished(worker_id):
                self.quit(self.members[worker_id])

    # ---- tasks ------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """The sampler is read once."""
        self.order.draw(self.order.drawn, f"index {self.order.drawn}")

    def dispatch(self) -> Steps:
        """`Crew._dispatch`."""
        waiting = next((task for task in self.order.tasks.values() if not task.sent), None)
        undecided = waiting is not None and waiting.worker < 0
        while (chosen := self.order.next_to_send()) is not None:
            yield
            task, worker_id = chosen
            member = self.members[worker_id]
            assert not member.quitting, "whoever was asked to quit gets nothing more"
            assert worker_id not in self.order.exhausted, "nor who has no more"
            first = task.number == next(iter(self.order.tasks))
            under_way = sum(other.sent for other in self.order.tasks.values())
            assert first or not self.order.at_most or under_way < self.order.at_most, "held back"
            if undecided and not self.order.fixed:
                self._not_too_many(task)
            if self.order.fixed:
                self._history(worker_id).task(self.epoch, task.number, task.index)
                yield
            self._tell(worker_id, task.number)
            member.process.receive("task", self.epoch, task.number)
            yield
            self.order.sent(task, worker_id)
            yield
            waiting = next((task for task in self.order.tasks.values() if not task.sent), None)
            undecided = waiting is not None and waiting.worker < 0

    def _not_too_many(self, task: Task) -> None:
        """Never more than workers x prefetch are unfinished or unread, but for the one that everything waits for."""
        order = self.order
        sent = sum(other.sent for other in order.tasks.values())
        assert sent < order.prefetch * len(order.active()) or task.number == next(iter(order.tasks))
        assert sum(other.sent and other.worker == task.worker and not other.ready for other in order.tasks.values()) < (
            order.prefetch
        )
        assert order.workers[task.worker], "who is retiring gets nothing new"

    def _tell(self, worker_id: int, number: int) -> None:
        """Note what this task's batch has to be: what a worker makes of it that never dies."""
        if not self.order.fixed:
            self.expected[self.epoch, number] = self.epoch, number
        elif (self.epoch, number) not in self.expected:
            immortal = self.told.setdefault(worker_id, self._process(worker_id))
            immortal.receive("task", self.epoch, number)
            immortal.work(notes=False)
            self.expected[self.epoch, number] = immortal.said.pop()[3] if immortal.said else None

    # ---- news -------------------------------------------------------------------------------------------------------

    def hear(self, member: Member) -> Steps:
        """`Pool.hear`: what a worker said is in its inbox before it is known to be gone."""
        dead = not member.process.alive
        while member.process.said:
            member.inbox.append(member.process.said.popleft())
        yield
        member.gone = member.gone or dead

    def take_in(self, member: Member) -> Steps:
        """`Crew._take_in`."""
        while member.inbox:
            self._heard(member, *member.inbox[0])
            yield
            member.inbox.popleft()
            yield
        if member.gone:
            yield from self.ended(member)

    def _heard(self, member: Member, kind: str, epoch: int, number: int, content: Any, noted: int) -> None:
        if noted >= 0:
            self._history(member.id).has_noted(noted)
        if epoch != self.epoch:
            return
        if kind == "ended":
            self.order.ended(number, member.id, member.life)
        elif self.order.finished(number, member.id, member.life, content) and not self.order.workers.get(
            member.id, True
        ):
            self.retire_idle()

    def ended(self, member: Member, in_hand: int = -1) -> Steps:
        """`Roster.ended`: a worker is gone, or was given up; what it had to do goes to a new one of its id, or to others."""
        order = self.order
        lost = order.lost(member.id, member.life, in_hand)
        yield
        if member.quitting and not lost:
            self._leave(member)
            return
        if order.fixed:
            self._history(member.id).died(member.process.note, {(self.epoch, task.number) for task in lost})
            yield
        if order.workers.get(member.id, False):
            self._add(member.id)
            yield
        else:
            self._leave(member)

    def _leave(self, member: Member) -> None:
        self.order.workers.pop(member.id, None)
        if self.members.get(member.id) is member:
            del self.members[member.id]

    def give_up(self, member: Member) -> None:
        """It is stuck: killed first, so that it notes nothing more, then heard. `given_up` is one that answers all the same."""
        self.given_up.append(Member(member.id, member.life, copy.deepcopy(member.process)))
        member.process.alive = False
        for _ in self.hear(member):
            pass
        for _ in self.take_in(member):
            pass

    # ---- batches ----------------------------------------------------------------------------------------------------

    def deliver(self) -> Steps:
        """What `next()` does with the task that comes out, if there is one."""
        task = self.order.next_ready()
        if task is None:
            return
        yield
        if task.ends:
            yield from self._through(task)
            return
        assert task.result == self.expected[self.epoch, task.number], "not the batch of an undisturbed run"
        if self.lengths is not None:
            self.draw()
            yield
        self.order.take(task)
        self.out.append((task.number, task.worker))
        yield

    def _through(self, end: Task) -> Steps:
        self.order.through(end.worker)
        yield
        self.draw()
        yield
        if not self.persistent and end.worker in self.members:
            self.quit(self.members[end.worker])
        self.order.take(end)

    def begin_epoch(self) -> None:
        """`Crew.begin_epoch`; the batches of the epoch before that have not come out are given up."""
        order = self.order
        if order.fixed:
            order.at_most = 0
            for _ in self.dispatch():
                pass
        self.epoch += 1
        for worker_id, member in self.members.items():
            self._history(worker_id).resume(self.epoch, None)
            member.process.receive("resume", None)
            immortal = self.told.setdefault(worker_id, self._process(worker_id))
            immortal.receive("resume", None)
            immortal.work(notes=False)
        for member in self.members.values():
            if not order.workers.get(member.id, True):
                self.quit(member)
        workers = {member.id: not member.quitting for member in self.members.values()}
        self.order = Order(order.fixed, order.in_order, order.prefetch, workers)
        self.out = []
        for _ in range(order.prefetch * len(workers)):
            self.draw()
