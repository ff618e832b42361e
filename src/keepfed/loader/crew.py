"""The workers of one loader at work: tasks go out, batches come in, in order, whoever makes them.

    deliver():  take in messages ─▶ order ─▶ is the next batch here?  ── no ──▶ wait (socket or pidfd) ─┐
                    ▲                            │ yes                                                  │
                    └────────────────────────────┼──────────────────────────────────────────────────────┘
                                                 ▼
                draw one index (as torch: before the batch is returned) ─▶ decode ─▶ send tasks ─▶ return

A crew knows nothing of torch's iterator classes: `epoch.py` gives it torch's protocol, `zero.py` keeps one ready beside a
loader that the program runs without workers.

Two contracts. *Fixed*: the worker count stays, batches and the parent's random state are torch's own, bit for bit.
*Shared*: workers may be added and retired in mid-epoch (`change_plan`); each batch has a random state of its own, from
base seed, epoch and number, so that for code that draws from the global generators the same batches come out whatever
the worker count; the sampler is read a fixed number of batches ahead, chosen at `iter()`.
"""

from __future__ import annotations

import functools
import itertools
import logging
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from keepfed.errors import LoaderError, WorkerDied
from keepfed.loader import torch_seam
from keepfed.loader.budget import budget_for
from keepfed.loader.codec import Encoded
from keepfed.loader.decode import changed_while_leased, decode
from keepfed.loader.lease import Lease, LeaseBook
from keepfed.loader.pool import Pool, Worker
from keepfed.loader.shelf import Shelf
from keepfed.loader.stats import Tally
from keepfed.loader.worker import WorkerJob, batch_seed, work
from keepfed.plan import Plan
from keepfed.policy.order import Order, Task
from keepfed.text import say

logger = logging.getLogger("keepfed")
USUAL_WORKERS = 8
"""A loader that may be resized shares its memory among so many workers, however many it may have at most."""
MAX_ATTEMPTS = 3
"""A batch is made at most this often before the worker's death is taken to be its doing."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How one iterator runs."""

    plan: Plan
    """Workers and prefetch at the start."""
    fixed: bool
    """Whether the worker count stays for good (torch's contract) or may change (one random state per batch)."""
    max_workers: int
    """How many workers there may be at once; `get_worker_info().num_workers`."""
    lookahead: int
    """Batches for which the sampler is read ahead."""
    in_order: bool = True
    """Whether batches come out in the order of the sampler."""
    persistent: bool = False
    """Whether the workers outlive the epoch."""
    timeout_s: float = 0.0
    """torch's `timeout`: raise when nothing arrives for this long; 0 waits for ever."""
    copy_all: bool = False
    """Whether every batch is copied at delivery (KEEPFED_TRANSPORT=copy)."""
    verify: bool = False
    """Whether checksums are compared at delivery and at release (KEEPFED_VERIFY=1)."""

    @classmethod
    def fixed_count(cls, plan: Plan) -> Terms:
        """torch's contract: this many workers, no more, no less."""
        return cls(plan, fixed=True, max_workers=plan.num_workers, lookahead=plan.num_workers * plan.prefetch_factor)


class Listener(Protocol):
    """Who wants to know what an iterator does, batch by batch."""

    def epoch_started(self) -> None:
        """The next batch is the first of an epoch."""

    def made(self, worker_id: int, seconds: float, cpu_s: float, nbytes: int) -> None:
        """A worker finished a batch of `nbytes`, in `seconds` of wall and `cpu_s` of CPU time."""

    def waiting(self) -> None:
        """The program begins to wait for a batch."""

    def delivered(self, iterator: Any, asked_s: float, now_s: float) -> None:
        """`next()` was called at `asked_s` and is about to return at `now_s` (both time.perf_counter)."""


class Crew:
    """Workers, what they have in hand, and what comes out next."""

    def __init__(
        self,
        terms: Terms,
        loop_arguments: dict[str, Any],
        tally: Tally,
        shelf: Shelf,
        listener: Listener | None = None,
    ) -> None:
        """Fork the workers. `loop_arguments` are those of torch's worker loop that are the same for all workers."""
        self.terms, self.tally, self.listener = terms, tally, listener
        self.plan = terms.plan
        self.members: list[Worker] = []
        self._shelf = shelf
        self._epoch = -1
        self._base_seed: int = loop_arguments["base_seed"]
        self._order = Order(terms.fixed)
        self._in_hand: tuple[Task, Any] | None = None
        self._states: dict[int, Any] = {}
        self._dry: set[int] = set()
        # Since the last batch arrived: workers that cannot even start must not be replaced for ever.
        self._deaths_in_vain = 0
        self._budget = budget_for(max(terms.plan.num_workers, min(terms.max_workers, USUAL_WORKERS)))
        job = WorkerJob(loop_arguments, not terms.fixed, self._budget.slots_bytes, terms.verify)
        self._pool = Pool(functools.partial(work, job))
        self.shut_down = weakref.finalize(self, _shut_down, self._pool, shelf)
        for worker_id in range(terms.plan.num_workers):
            self._add_worker(worker_id)

    # ---- epochs -----------------------------------------------------------------------------------------------------

    def begin_epoch(self, indices: Iterator[Any], shared_seed: int | None, base_seed: int | None = None) -> None:
        """Read `indices` ahead and send the first tasks. Tasks of an epoch that was left are not waited for.

        In fixed mode workers still make them, since torch's do and their random streams move with every batch; in shared
        mode they are dropped.
        """
        self._epoch += 1
        if base_seed is not None:
            self._base_seed = base_seed
        if self._epoch:
            for worker in self._alive().workers.values():
                worker.end.send("resume", shared_seed)
        for task in self._order.tasks.values():
            if task.ready:
                _give_back(*task.result)
        for worker in self._alive().workers.values():
            if not self._order.workers.get(worker.id, True):
                self._alive().quit(worker)  # it was to go after what it had in hand
        self._in_hand = None
        active = {worker.id: not worker.quitting for worker in self._alive().workers.values()}
        self._order = Order(self.terms.fixed, self.terms.in_order, self.plan.prefetch_factor, active)
        self._indices = indices
        self._numbers = itertools.count()
        self._drawn: deque[tuple[Any, int]] = deque()
        self._states.clear()
        self.tally.plan = self.plan
        for _ in range(self.terms.lookahead):
            self._draw()
        self._dispatch()

    def ask(self, number: int, index: Any, states: Any) -> None:
        """Make one batch from these random states; its `answer` is for whoever asked, not for the program."""
        self._states[number] = states
        self._order.draw(number, index)
        self._dispatch()

    def answer(self, number: int) -> tuple[Any] | None:
        """The batch that was asked for under this number, if it is here."""
        self._alive().hear(0)
        self._take_in()
        self._dispatch()
        self._supply()
        task = self._order.tasks.get(number)
        if task is None or not task.ready:
            return None
        batch = self._decoded(task)
        self._order.take(task)
        self._dispatch()
        return (batch,)

    def deliver(self, asked_s: float, iterator: Any) -> Any:
        """The next batch, or the exception that made it impossible. Raises StopIteration at the end of the epoch."""
        if self.listener is not None:
            self.listener.waiting()
        if self._in_hand is None:
            task = self._ready_task()
            if task is None:
                self.tally.epoch_s = time.perf_counter() - self.tally.epoch_began_s
                raise StopIteration
            try:
                self._draw()  # as torch: once per batch, before it is returned and before a worker's exception is raised
            except Exception:
                self._drop(task)  # as torch: a sampler that raises costs the batch in hand
                raise
            # From here on the batch comes out of the next next(), should this one be interrupted.
            self._in_hand = task, self._decoded(task)
        task, batch = self._in_hand
        self._order.take(task)
        self._dispatch()
        now_s = time.perf_counter()
        self.tally.delivered(asked_s, now_s, samples_of(task.index))
        if self.listener is not None:
            self.listener.delivered(iterator, asked_s, now_s)
        self._in_hand = None
        torch_seam.reraise_if_exception(batch)
        return batch

    def _decoded(self, task: Task) -> Any:
        """The batch of this task. After Ctrl-C in the middle it can be made again; after any other error it is over."""
        encoded, book = task.result
        self._collect()
        try:
            return decode(encoded, book, copy_all=self.terms.copy_all or book.leased_bytes > self._budget.held_bytes)
        except Exception:
            self._drop(task)
            raise

    def _drop(self, task: Task) -> None:
        """The program will not see this batch."""
        self._order.take(task)
        _give_back(*task.result)

    def _ready_task(self) -> Task | None:
        """Wait for the batch that comes next; None at the end of the epoch, however often it is asked for."""
        if not self._order.tasks:
            return None
        self._take_in()
        while (task := self._order.next_ready()) is None:
            self._wait()
        return task

    def _wait(self) -> None:
        before = self._order.arrived
        timeout_s = self.terms.timeout_s
        end_s = time.monotonic() + timeout_s if timeout_s > 0 else None
        while self._order.arrived == before:
            self._dispatch()
            self._supply()
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise RuntimeError(f"DataLoader timed out after {timeout_s} seconds")
            if not self._alive().hear(left_s):
                raise LoaderError(say("loader.closed"))
            self._take_in()

    def _draw(self) -> None:
        """Read the sampler once. In one call in C: an index is in the sampler or in `_drawn`, whenever Ctrl-C comes.

        As torch does, by `next()` alone: `iter()` would start samplers anew whose `__iter__` returns themselves.
        """
        once = map(next, itertools.repeat(self._indices))  # compares no index with a sentinel: it may be an array
        self._drawn.extend(itertools.islice(zip(once, self._numbers, strict=False), 1))
        while self._drawn:
            index, number = self._drawn[0]
            self._order.draw(number, index)
            self._drawn.popleft()

    def _dispatch(self) -> None:
        while (next_to_send := self._order.next_to_send()) is not None:
            task, worker_id = next_to_send
            worker = self._alive().workers[worker_id]
            idle = worker.book.idle()
            worker.end.send("task", self._epoch, task.number, task.index, self._random_state(task), idle)
            worker.book.told(idle)
            self._order.sent(task, worker_id)

    def _random_state(self, task: Task) -> Any:
        """What the worker shall draw from: its own stream (None), a seed, or given states."""
        if self.terms.fixed:
            return None
        return self._states.get(task.number) or batch_seed(self._base_seed, self._epoch, task.number)

    # ---- news from workers ------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        for worker in list(self._alive().workers.values()):
            while (message := worker.end.peek()) is not None:
                if message[0] == "dry":
                    self._dry.add(worker.id)
                else:
                    self._result(worker, *message[1:])
                worker.end.done_with_first()
            if worker.gone:
                self._ended(worker)

    def _result(self, worker: Worker, epoch: int, number: int, encoded: Any, times: tuple[float, float]) -> None:
        if epoch != self._epoch:
            _give_back(Encoded(*encoded), worker.book)
            return
        worker.book.arrived(use[:2] for use in encoded[0])
        if not self._order.finished(number, worker.id, (Encoded(*encoded), worker.book)):
            if not self._order.has_result_of(number, worker.id):
                _give_back(Encoded(*encoded), worker.book)
            return
        self._deaths_in_vain = 0
        nbytes = sum(use[2] for use in encoded[0])
        self.tally.made += 1
        self.tally.made_s += times[0]
        self.tally.bytes += nbytes
        if self.listener is not None:
            self.listener.made(worker.id, *times, nbytes)
        if not self._order.workers.get(worker.id, True):
            self._retire_idle()

    def _ended(self, worker: Worker) -> None:
        """A worker is gone: as asked, or by itself."""
        lost = self._order.lost(worker.id)
        takes_more = self._order.workers.get(worker.id, False)
        self._dry.discard(worker.id)
        if worker.quitting and not lost:
            self._leave(worker)
            return
        if not self.terms.fixed and worker.why and len(self._order.active()) > 1:
            self._leave(worker)  # fork(2) was refused: the program trains on with the workers that are there
            return
        self._deaths_in_vain += 1
        hopeless = self._deaths_in_vain > MAX_ATTEMPTS * self.terms.max_workers
        if self.terms.fixed or hopeless or any(task.deaths >= MAX_ATTEMPTS for task in lost):
            self.shut_down()
            raise WorkerDied(_how_it_died(worker), next_step=_what_it_made(lost))
        self.tally.restarts += 1
        self.tally.redone += len(lost)
        if takes_more:
            self._replace(worker)
        else:
            self._leave(worker)
        # What was lost is sent later, by deliver() or before a wait: here a batch may be in the middle of its decoding
        # (Ctrl-C), and messages to workers carry the slots that were already given back.

    def _replace(self, worker: Worker) -> None:
        """A new worker in the place of this one; none where no process can be had and others are there."""
        try:
            self._add_worker(worker.id)  # at once: Ctrl-C finds one of the two
        except OSError:
            if len(self._order.active()) < 2:
                raise
            self._leave(worker)
            return
        self._alive().forget(worker)
        self._shelf.put_back(worker.book)

    def _leave(self, worker: Worker) -> None:
        """This worker is gone and nobody takes its place."""
        self._order.workers.pop(worker.id, None)
        self._alive().forget(worker)
        self._shelf.put_back(worker.book)
        self.tally.workers = len(self._alive().workers)

    def _supply(self) -> None:
        """Answer workers whose slots are all out, while the program waits: releases travel with tasks, and may be no more.

        One that the program waits for goes past its allowance when there is nothing to give back: what fills its slots is
        in the program's own hands, and waiting for that could take for ever.
        """
        if not self._dry:
            return
        self._collect()
        first = next(iter(self._order.tasks.values()), None)
        for worker_id in list(self._dry):
            book = self._alive().workers[worker_id].book
            idle = book.idle()
            if idle or not self.terms.in_order or (first is not None and first.worker == worker_id):
                self._alive().workers[worker_id].end.send("release", idle)
                book.told(idle)
                self._dry.discard(worker_id)

    def _collect(self) -> None:
        for worker in self._alive().workers.values():
            worker.book.collect(self._check_release(worker.book) if self.terms.verify else None)

    def _check_release(self, book: LeaseBook) -> Callable[[Lease], None]:
        def check(lease: Lease) -> None:
            if changed_while_leased(lease, book):
                self.tally.edited += 1
                if self.tally.edited == 1:
                    logger.info(say("loader.edited"))

        return check

    # ---- workers ----------------------------------------------------------------------------------------------------

    def change_plan(self, plan: Plan) -> None:
        """Add or retire workers and change the prefetch, in mid-epoch. Only in shared mode.

        Raises LoaderError in fixed mode, and ValueError above the agreed maximum.
        """
        if self.terms.fixed:
            raise LoaderError(say("loader.fixed_count"))
        if not 1 <= plan.num_workers <= self.terms.max_workers:
            raise ValueError(f"num_workers={plan.num_workers}: expected 1 to {self.terms.max_workers}")
        active = self._order.active()
        for worker_id in active[plan.num_workers :]:
            self._order.workers[worker_id] = False
        for worker_id, worker in self._alive().workers.items():  # one that was to go, and has not been told
            if len(active) < plan.num_workers and worker_id not in active and not worker.quitting:
                self._order.workers[worker_id] = True
                active.append(worker_id)
        free = [number for number in range(self.terms.max_workers) if number not in self._alive().workers]
        for worker_id in free[: max(0, plan.num_workers - len(active))]:
            self._add_worker(worker_id)
            self._order.workers[worker_id] = True
        self.plan = self.tally.plan = plan
        self._order.prefetch = plan.prefetch_factor
        self._retire_idle()
        self._dispatch()

    def active_workers(self) -> list[int]:
        """Ids of the workers that take tasks."""
        return self._order.active()

    def worker_bytes(self) -> float:
        """Private memory of one worker, mean over those alive (RssAnon of proc(5): copied pages and their own)."""
        found = [_private_bytes(worker.pid) for worker in self._alive().workers.values() if worker.pid is not None]
        return sum(found) / max(1, len(found))

    def transport_bytes(self) -> int:
        """Memory that the batches in preparation and in the program's hands take."""
        return sum(worker.book.region.bytes_in_use() for worker in self._alive().workers.values())

    def _retire_idle(self) -> None:
        for worker_id, takes in self._order.workers.items():
            if not takes and not self._order.unfinished(worker_id):
                self._alive().quit(self._alive().workers[worker_id])

    def _add_worker(self, worker_id: int) -> None:
        worker = self._alive().add(worker_id, self._shelf.take(self._budget.region_bytes))
        self.members = [*(other for other in self.members if other.id != worker_id), worker]
        self.tally.workers = len(self._alive().workers)

    def _alive(self) -> Pool:
        if self._pool.closed:
            raise LoaderError(say("loader.closed"))
        return self._pool


def raised_by_sampler(error: BaseException) -> bool:
    """Whether the program's own sampler raised this, while it was read ahead."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not Crew._draw.__code__:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_next is not None


def samples_of(index: Any) -> int:
    """Samples in the batch of this index."""
    return len(index) if hasattr(index, "__len__") else 1


def _give_back(encoded: Encoded, book: LeaseBook) -> None:
    for offset, generation, _, _ in encoded.slots:
        book.give_back((offset, generation))


def _shut_down(pool: Pool, shelf: Shelf) -> None:
    """End a pool; regions whose worker is known to be dead go back to the shelf."""
    for worker in pool.shut_down():
        worker.book.abandon()
        shelf.put_back(worker.book)


def _private_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _how_it_died(worker: Worker) -> str:
    """torch's words, which people and programs search for."""
    pid, code = worker.pid, worker.exitcode
    text = f"DataLoader worker (pid(s) {pid}) exited unexpectedly"
    if code is not None and code < 0:
        text += f": DataLoader worker (pid {pid}) is killed by signal: {signal.strsignal(-code)}."
    elif code is not None:
        text += f" with exit code {code}"
    if worker.why:
        text += f" ({worker.why})"
    return text


def _what_it_made(lost: list[Task]) -> str:
    return say("loader.worker_died_next", indices=", ".join(str(task.index)[:200] for task in lost[:2]) or "-")
