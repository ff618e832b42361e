"""One pass over the data: feeds what happens to the order of batches, and carries out what it says.

    next():  take in messages ─▶ order ─▶ is the next batch here?  ── no ──▶ wait (socket or pidfd) ─┐
                 ▲                            │ yes                                                  │
                 └────────────────────────────┼──────────────────────────────────────────────────────┘
                                              ▼
             draw one index (as torch: before the batch is returned) ─▶ send tasks ─▶ decode ─▶ return

`EpochIter` *is* a `_MultiProcessingDataLoaderIter` for those who look (Lightning shuts it down only if it is one), takes
every draw and warning from `_BaseDataLoaderIter`, and replaces the rest: no queues, no threads, no locks.

Two contracts. *Fixed*: the worker count stays, batches and the parent's random state are torch's own, bit for bit.
*Shared*: workers may be added and retired in mid-epoch (`change_plan`); each batch has a random state of its own, from
base seed, epoch and number, so that for code that draws from the global generators the same batches come out whatever
the worker count; the sampler is read a fixed number of batches ahead, chosen at `iter()`.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch._utils import ExceptionWrapper

from keepfed.errors import ForkedIterator, LoaderError, WorkerDied
from keepfed.loader import torch_seam
from keepfed.loader.budget import Budget, budget_for
from keepfed.loader.codec import Encoded
from keepfed.loader.decode import changed_while_leased, decode
from keepfed.loader.lease import Lease, LeaseBook
from keepfed.loader.pool import Pool, Worker
from keepfed.loader.shelf import Shelf, shelf_of
from keepfed.loader.stats import Tally
from keepfed.loader.worker import WorkerJob, batch_seed, work
from keepfed.plan import Plan
from keepfed.policy.order import Order, Task
from keepfed.text import say

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
    copy_all: bool = False
    """Whether every batch is copied at delivery (KEEPFED_TRANSPORT=copy)."""
    verify: bool = False
    """Whether checksums are compared at delivery and at release (KEEPFED_VERIFY=1)."""

    @classmethod
    def fixed_count(cls, plan: Plan) -> Terms:
        """torch's contract: this many workers, no more, no less."""
        return cls(plan, fixed=True, max_workers=plan.num_workers, lookahead=plan.num_workers * plan.prefetch_factor)


class EpochIter(torch_seam.MultiProcessingDataLoaderIter):  # type: ignore[misc]  # private base, typed as Any
    """What `iter(loader)` returns."""

    def __init__(self, loader: Any, terms: Terms, tally: Tally, on_batch: Callable[[float, float], None] | None = None):
        self._shutdown = False
        self._pool: Pool | None = None
        self._owner_pid = os.getpid()
        torch_seam.BaseDataLoaderIter.__init__(self, loader)
        self._terms, self._tally, self._on_batch = terms, tally, on_batch
        self._num_workers, self._prefetch_factor = terms.plan.num_workers, terms.plan.prefetch_factor
        self._in_order = getattr(loader, "in_order", True)
        self._worker_init_fn = loader.worker_init_fn
        self._index_queues: list[Any] = []
        self._workers: list[Worker] = []
        self._epoch = 0
        self._busy = False
        self._shelf = shelf_of(loader)
        self._budget = budget_for(terms.max_workers)
        self._pool = Pool(functools.partial(work, self._job()))
        self._end = weakref.finalize(self, _shut_down, self._pool, self._shelf)
        for worker_id in range(terms.plan.num_workers):
            self._add_worker(worker_id)
        self._reset(loader, first_iter=True)

    def _job(self) -> WorkerJob:
        arguments = {
            "dataset_kind": self._dataset_kind,
            "dataset": self._dataset,
            "auto_collation": self._auto_collation,
            "collate_fn": self._collate_fn,
            "drop_last": self._drop_last,
            "base_seed": self._base_seed,
            "init_fn": self._worker_init_fn,
            "num_workers": self._terms.max_workers,
            "persistent_workers": self._persistent_workers,
            "shared_seed": self._shared_seed,
        }
        return WorkerJob(arguments, not self._terms.fixed, self._budget.slots_bytes, self._terms.verify)

    # ---- torch's protocol -------------------------------------------------------------------------------------------

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch. With persistent workers this comes on the same object, perhaps in mid-epoch.

        Tasks of an epoch that was left are not waited for. In fixed mode the workers still make them, since torch's do and
        their random streams move with every batch; in shared mode they are dropped.
        """
        self._own()
        torch_seam.BaseDataLoaderIter._reset(self, loader, first_iter)
        if not first_iter:
            self._epoch += 1
            for worker in self._alive().workers.values():
                worker.end.send("resume", self._epoch, self._shared_seed)
        plan = Plan(self._num_workers, self._prefetch_factor)
        active = {worker.id: not worker.quitting for worker in self._alive().workers.values()}
        self._order = Order(self._terms.fixed, self._in_order, plan.prefetch_factor, active)
        self._numbers = itertools.count()
        self._drawn: deque[tuple[int, Any]] = deque()
        self._tally.plan = plan
        self._tally.begin_epoch(time.perf_counter())
        for _ in range(self._terms.lookahead):
            self._draw()
        self._dispatch()

    def __next__(self) -> Any:
        """The next batch."""
        self._own()
        if torch_seam.profiler_enabled():
            return super().__next__()  # under the label that profiles of torch's loader have
        if self._sampler_iter is None:
            self._reset()
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _next_data(self) -> Any:
        if self._busy:
            raise LoaderError(say("loader.two_threads"))
        self._busy = True
        try:
            return self._deliver(time.perf_counter())
        finally:
            self._busy = False

    def _shutdown_workers(self) -> None:
        """End the workers. In a forked child nothing is ended: they are the parent's."""
        if not self._shutdown:
            self._shutdown = True
            if self._pool is not None:
                self._end()

    def __del__(self) -> None:
        """End the workers when the program drops the iterator."""
        if getattr(self, "_pool", None) is not None:
            self._shutdown_workers()

    # ---- one batch --------------------------------------------------------------------------------------------------

    def _deliver(self, asked_s: float) -> Any:
        task = self._ready_task()
        if task is None:
            self._tally.epoch_s = time.perf_counter() - self._tally.epoch_began_s
            if not self._persistent_workers:
                self._shutdown_workers()
            raise StopIteration
        self._draw()  # as torch: once per batch, before it is returned and before a worker's exception is raised
        batch = self._decoded(task)
        self._order.take(task)
        self._dispatch()
        now_s = time.perf_counter()
        self._tally.delivered(asked_s, now_s, _samples(task.index))
        if self._on_batch is not None:
            self._on_batch(asked_s, now_s)
        if isinstance(batch, ExceptionWrapper):
            batch.reraise()
        return batch

    def _decoded(self, task: Task) -> Any:
        """The batch of this task. After Ctrl-C in the middle it can be made again; after any other error it is over."""
        encoded, book = task.result
        self._collect()
        try:
            return decode(
                encoded, book, copy_all=self._terms.copy_all or book.leased_bytes > self._budget.held_bytes
            )
        except Exception:
            self._order.take(task)
            _give_back(encoded, book)
            raise

    def _ready_task(self) -> Task | None:
        """Wait for the batch that comes next; None at the end of the epoch."""
        self._take_in()
        while (task := self._order.next_ready()) is None:
            if not self._order.tasks:
                return None
            self._wait()
        return task

    def _wait(self) -> None:
        before = self._order.arrived
        end_s = time.monotonic() + self._timeout if self._timeout > 0 else None
        while self._order.arrived == before:
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds")
            if not self._alive().hear(left_s):
                raise LoaderError(say("loader.closed"))
            self._take_in()

    def _draw(self) -> None:
        """Read the sampler once. In one call in C: an index is in the sampler or in `_drawn`, whenever Ctrl-C comes."""
        self._drawn.extend(itertools.islice(zip(self._numbers, self._sampler_iter, strict=False), 1))
        while self._drawn:
            self._order.draw(*self._drawn[0])
            self._drawn.popleft()

    def _dispatch(self) -> None:
        while (next_to_send := self._order.next_to_send()) is not None:
            task, worker_id = next_to_send
            worker = self._alive().workers[worker_id]
            idle = worker.book.idle()
            seed = None if self._terms.fixed else batch_seed(self._base_seed, self._epoch, task.number)
            worker.end.send("task", task.number, task.index, seed, idle)
            worker.book.told(idle)
            self._order.sent(task, worker_id)

    # ---- news from workers ------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        for worker in list(self._alive().workers.values()):
            while (message := worker.end.peek()) is not None:
                self._result(worker, *message[1:])
                worker.end.done_with_first()
            if worker.gone:
                self._ended(worker)

    def _result(self, worker: Worker, epoch: int, number: int, encoded: Any, times: tuple[float, float]) -> None:
        if epoch == self._epoch and self._order.finished(number, worker.id, (Encoded(*encoded), worker.book)):
            self._tally.made += 1
            self._tally.made_s += times[0]
            self._tally.made_cpu_s += times[1]
            self._tally.bytes += sum(use[2] for use in encoded[0])
            if not self._order.workers.get(worker.id, True):
                self._retire_idle()
        elif epoch != self._epoch:
            _give_back(Encoded(*encoded), worker.book)

    def _ended(self, worker: Worker) -> None:
        """A worker is gone: as asked, or by itself."""
        pool = self._alive()
        lost = self._order.lost(worker.id)
        takes_more = self._order.workers.pop(worker.id, False)
        pool.forget(worker)
        self._shelf.put_back(worker.book)
        self._tally.workers = len(pool.workers)
        if worker.quitting and not lost:
            return
        if self._terms.fixed or any(task.attempts >= MAX_ATTEMPTS for task in lost):
            self._shutdown_workers()
            raise WorkerDied(_how_it_died(worker), next_step=_what_it_made(lost))
        self._tally.restarts += 1
        self._tally.redone += len(lost)
        if takes_more:
            self._add_worker(worker.id)
            self._order.workers[worker.id] = True
        self._dispatch()

    def _collect(self) -> None:
        for worker in self._alive().workers.values():
            worker.book.collect(self._check_release(worker.book) if self._terms.verify else None)

    def _check_release(self, book: LeaseBook) -> Callable[[Lease], None]:
        def check(lease: Lease) -> None:
            self._tally.edited += changed_while_leased(lease, book)

        return check

    # ---- workers ----------------------------------------------------------------------------------------------------

    def change_plan(self, plan: Plan) -> None:
        """Add or retire workers and change the prefetch, in mid-epoch. Only in shared mode.

        Raises LoaderError in fixed mode, and ValueError above the agreed maximum.
        """
        if self._terms.fixed:
            raise LoaderError(say("loader.fixed_count"))
        if not 1 <= plan.num_workers <= self._terms.max_workers:
            raise ValueError(f"num_workers={plan.num_workers}: expected 1 to {self._terms.max_workers}")
        active = self._order.active()
        for worker_id in active[plan.num_workers :]:
            self._order.workers[worker_id] = False
        free = [number for number in range(self._terms.max_workers) if number not in self._alive().workers]
        for worker_id in free[: plan.num_workers - len(active)]:
            self._add_worker(worker_id)
            self._order.workers[worker_id] = True
        self._num_workers, self._prefetch_factor = plan.num_workers, plan.prefetch_factor
        self._order.prefetch = plan.prefetch_factor
        self._tally.plan = plan
        self._retire_idle()
        self._dispatch()

    def _retire_idle(self) -> None:
        for worker_id, takes in self._order.workers.items():
            if not takes and not self._order.unfinished(worker_id):
                self._alive().quit(self._alive().workers[worker_id])

    def _add_worker(self, worker_id: int) -> None:
        worker = self._alive().add(worker_id, self._shelf.take(self._budget.region_bytes))
        self._workers = [*(other for other in self._workers if other.id != worker_id), worker]
        self._tally.workers = len(self._alive().workers)

    def _alive(self) -> Pool:
        if self._pool is None or self._pool.closed:
            raise LoaderError(say("loader.closed"))
        return self._pool

    def _own(self) -> None:
        if os.getpid() != self._owner_pid:
            raise ForkedIterator(say("loader.forked_iterator"), next_step=say("loader.forked_iterator_next"))


def _give_back(encoded: Encoded, book: LeaseBook) -> None:
    for offset, generation, _, _ in encoded.slots:
        book.give_back((offset, generation))


def _shut_down(pool: Pool, shelf: Shelf) -> None:
    """End a pool; regions whose worker is known to be dead go back to the shelf."""
    for worker in pool.shut_down():
        shelf.put_back(worker.book)


def _samples(index: Any) -> int:
    return len(index) if hasattr(index, "__len__") else 1


def _how_it_died(worker: Worker) -> str:
    """torch's words, which people and programs search for."""
    pid, code = worker.pid, worker.exitcode
    text = f"DataLoader worker (pid(s) {pid}) exited unexpectedly"
    if code is not None and code < 0:
        text += f": DataLoader worker (pid {pid}) is killed by signal: {signal.strsignal(-code)}."
    elif code is not None:
        text += f" with exit code {code}"
    return text


def _what_it_made(lost: list[Task]) -> str:
    return say("loader.worker_died_next", indices=", ".join(str(task.index)[:200] for task in lost[:2]) or "-")
