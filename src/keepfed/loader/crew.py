"""The workers of one loader at work: tasks go out, batches come in, in order, whoever makes them.

    deliver():  take in messages ─▶ order ─▶ is the next batch here?  ── no ──▶ wait (socket or pidfd) ─┐
                    ▲                            │ yes                                                  │
                    └────────────────────────────┼──────────────────────────────────────────────────────┘
                                                 ▼
                draw one index (as torch: before the batch is returned) ─▶ decode ─▶ send tasks ─▶ return

A crew knows nothing of torch's iterator classes: `epoch.py` gives it torch's protocol, `zero.py` keeps one ready beside a
loader that the program runs without workers.

What is decided elsewhere: which batch is made by whom and comes out next (`policy/order.py`), who the workers are
(`roster.py`), what follows from what they say (`intake.py`), how slots go back to them (`releases.py`), when one is stuck
(`watcher.py`) and when memory runs short (`memory.py`).
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
import weakref
from collections.abc import Iterator
from typing import Any

from keepfed.errors import LoaderError
from keepfed.loader import beats, blame, budget, nursery, torch_seam
from keepfed.loader.codec import EMPTY
from keepfed.loader.delivery import Delivery
from keepfed.loader.descriptors import make_sure_of
from keepfed.loader.draws import batch_seed
from keepfed.loader.handle import Worker
from keepfed.loader.home import Home
from keepfed.loader.intake import Intake
from keepfed.loader.listener import Listener
from keepfed.loader.memory import MemoryWatch
from keepfed.loader.pool import Pool
from keepfed.loader.readahead import ReadAhead
from keepfed.loader.releases import Releases, give_back
from keepfed.loader.roster import Roster
from keepfed.loader.shelf import Shelf
from keepfed.loader.skipped import Skipped
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.loader.watcher import Watcher
from keepfed.loader.worker import WorkerJob, work
from keepfed.loader.zygote import Zygote
from keepfed.plan import Plan
from keepfed.policy.order import Order, Task
from keepfed.text import say

LEAVING_S = 5.0
"""How long a worker that was let go may take to end before it is killed, where another one needs its place."""


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
        make_sure_of(terms.plan.num_workers)
        self.terms, self.tally = terms, tally
        self.plan = terms.plan
        self._epoch = -1
        self._base_seed: int = loop_arguments["base_seed"]
        self._dataset: object = loop_arguments["dataset"]
        self._order = Order(terms.fixed)
        self.home: Home | None = None
        """Who makes batches in this process while the plan has no workers."""
        self._in_hand: tuple[Task, Any] | None = None
        self._states: dict[int, Any] = {}
        self.last_out: tuple[int, Any] = (-1, None)
        """Number and index of the last batch that was delivered, as such or as an exception; a new object each time."""
        self._account = budget.shared.open(shelf, terms.plan.num_workers)
        shelf.pin_for(terms.pin_memory)
        self._delivery = Delivery(terms, self._account, shelf.pinning)
        requests = terms.requests
        stream = torch_seam.is_iterable_kind(loop_arguments["dataset_kind"])
        self._skipped = Skipped(
            self._dataset, tally, requests.max_skipped, stream=stream, full_batches=terms.full_batches
        )
        rows = beats.shared.lend(terms.max_workers, self)
        job = WorkerJob(
            loop_arguments,
            shared=not terms.fixed,
            verify=terms.verify,
            holes=requests.on_error == "skip",
            full_batches=terms.full_batches,
            pinned=shelf.pinning is not None,
            traced=terms.traced,
            rows=rows,
        )
        pool = Pool(_zygote_for(job, terms.method))
        self.roster = Roster(
            pool,
            shelf,
            tally,
            self._dataset,
            rows,
            max_workers=terms.max_workers,
            region_bytes=budget.shared.region_bytes(terms.plan.num_workers),
        )
        self.shut_down = self.roster.shut_down
        self._releases = Releases(tally, verify=terms.verify)
        self.memory = MemoryWatch(terms, tally, self.roster, shelf, self._account, self._dataset)
        renew = functools.partial(Zygote.forked, functools.partial(work, job)) if terms.method == "fork" else None
        self._watcher = Watcher(self.roster, terms.requests, self._dataset, renew)
        self._intake = Intake(self.roster, self._releases, self._watcher, tally)
        self.listener = listener
        for worker_id in range(terms.plan.num_workers):
            self.roster.add(worker_id)

    @property
    def listener(self) -> Listener | None:
        """Who is told what happens, batch by batch."""
        return self._intake.listener

    @listener.setter
    def listener(self, listener: Listener | None) -> None:
        self._intake.listener = listener

    # ---- epochs -----------------------------------------------------------------------------------------------------

    def begin_epoch(
        self,
        indices: Iterator[Any],
        shared_seed: int | None,
        base_seed: int | None = None,
        *,
        plan: Plan | None = None,
        seed_epoch: int | None = None,
    ) -> None:
        """Read `indices` ahead and send the first tasks. Tasks of an epoch that was left are not waited for.

        In fixed mode workers still make them, since torch's do and their random streams move with every batch; in shared
        mode they are dropped. `plan`: another one from here on, raises as `change_plan`; `seed_epoch`: the number of this
        epoch in the seeds of its batches, where a crew stands for one that is made anew for each.
        """
        if self.terms.fixed and self._epoch >= 0:
            self._tell_the_rest()
        self._epoch += 1
        self._seed_epoch = self._epoch if seed_epoch is None else seed_epoch
        if base_seed is not None:
            self._base_seed = base_seed
        if self._epoch:
            for worker in self._workers().values():
                self.roster.history(worker.id).resume(self._epoch, shared_seed)
                worker.end.send("resume", shared_seed)
        for task in self._order.tasks.values():
            if task.result is not None:
                give_back(*task.result)
        self.roster.retire_all(self._order)
        self._in_hand = None
        self._account.begin()
        self._delivery.begin_epoch()
        workers = self.roster.taking_tasks()
        self._order = Order(self.terms.fixed, self.terms.in_order, self.plan.prefetch_factor, workers)
        self._order.at_most = self.memory.at_most
        if plan is not None:
            self._make_places(plan.num_workers)
            self._follow(plan)
        self._indices = ReadAhead(indices)
        self._states.clear()
        self.tally.plan = self.plan
        for _ in range(self.terms.lookahead):
            self._indices.draw(self._order)
        self._dispatch()

    def _tell_the_rest(self) -> None:
        """Send what was kept from being sent in the epoch that was left: workers draw for it, as torch's do.

        That is what a shortage of memory held back, what a death lost, and what Ctrl-C came in between.
        """
        self._order.at_most = 0
        with contextlib.suppress(Exception):  # an index that cannot be pickled, as next() has said
            self._send()

    def ask(self, number: int, index: Any, states: Any) -> None:
        """Make one batch from these random states; its `answer` is for whoever asked, not for the program."""
        self._states[number] = states
        self._order.draw(number, index)
        self._dispatch()

    def answer(self, number: int) -> tuple[Any] | None:
        """The batch that was asked for under this number, if it is here."""
        self.roster.pool().hear(0)
        self._intake.take_in(self._order, self._epoch)
        self._dispatch()
        self._releases.supply(self._workers(), self._order)
        task = self._order.tasks.get(number)
        if task is None or not task.ready:
            return None
        batch = self._decoded(task)
        self._order.take(task)
        self._dispatch()
        return (batch,)

    def deliver(self, asked_s: float, iterator: Any) -> Any:
        """The next batch, or the exception that made it impossible. Raises StopIteration at the end of the epoch."""
        self._delivery.require_possible()
        if self.listener is not None:
            self.listener.waiting()
        if self._in_hand is None:
            task = self._ready_task()
            if task is None:
                self.tally.epoch_s = time.perf_counter() - self.tally.epoch_began_s
                self._rest()
                if self.listener is not None:
                    self.listener.epoch_ended()
                raise StopIteration
            try:
                self._indices.draw(
                    self._order
                )  # as torch: once per batch, before it is returned and before a worker's exception is raised
            except Exception:
                self._drop(task)  # as torch: a sampler that raises costs the batch in hand
                raise
            # From here on the batch comes out of the next next(), should this one be interrupted.
            self._in_hand = task, self._decoded(task)
        task, batch = self._in_hand
        if self.home is not None and self.home.proving:
            self.home.compare((self._epoch, task.number), task.index, self._seed(task), batch)
        self.last_out = task.number, task.index
        self._order.take(task)
        self._dispatch()
        self._delivery.look_ahead(self._order)
        now_s = time.perf_counter()
        self.tally.delivered(asked_s, now_s, samples_of(task.index) - len(task.skipped))
        if self.listener is not None:
            self.listener.delivered(iterator, asked_s, now_s)
        if task.skipped:
            self._say_skipped(task)
        unusual = batch is None or torch_seam.is_exception(batch)
        self._in_hand = None  # from here on Ctrl-C costs this batch, so that nothing more is called for a usual one
        if unusual:
            self._unusual(batch, task)
        return batch

    def _say_skipped(self, task: Task) -> None:
        """Samples are missing of the batch in hand. Raises SkippedTooMany; then the batch is gone."""
        try:
            self._skipped.account_for(task.number, task.skipped, empty=False)
        except LoaderError:
            self._in_hand = None
            raise

    def _unusual(self, batch: Any, task: Task) -> None:
        if batch is None:
            blame.tell_of_nothing(self.tally, self._dataset, task.number, task.index)
        else:
            blame.raise_from_worker(batch, self._dataset, task.number, task.index)

    def _decoded(self, task: Task) -> Any:
        """The batch of this task. After Ctrl-C in the middle it can be made again; after any other error it is over."""
        self._releases.collect(self._workers().values())
        try:
            return self._delivery.batch(task)
        except Exception as error:
            self._drop(task)
            blame.raise_again(error, self._dataset, task.number, task.index)

    def _drop(self, task: Task) -> None:
        """The program will not see this batch."""
        self.last_out = task.number, task.index
        self._order.take(task)
        give_back(*task.result)

    def _ready_task(self) -> Task | None:
        """Wait for the batch that comes next; None at the end of the epoch, however often it is asked for."""
        if self._order.tasks:
            self._intake.take_in(self._order, self._epoch)
        while self._order.tasks:
            task = self._order.next_ready()
            if task is None:
                if not self._made_here():
                    self._wait()
            elif task.ends:
                self._through(task)
            elif task.result[0].kind == EMPTY.kind:
                self._leave_out(task)
            else:
                return task
        return None

    def _made_here(self) -> bool:
        """Whether a batch could be made in this process: where there are no workers to do it, one is."""
        task = self._order.nobodys() if self.home is not None and self.plan.num_workers == 0 else None
        if self.home is None or task is None:
            return False
        made = self.home.make_and_look(task.index, self._seed(task))
        self._order.made_here(task, (made, None), made.skipped)
        self._intake.made_here(made.seconds, made.cpu_s)
        if self._workers():  # those that are on their way out
            self.roster.pool().hear(0)
            self._intake.take_in(self._order, self._epoch)
        return True

    def _through(self, end: Task) -> None:
        """A worker's iterable dataset has no more. As torch: one index is drawn, for one of the other workers."""
        self._order.through(end.worker)
        try:
            self._indices.draw(self._order)
        except Exception:
            self._order.take(end)
            raise
        self._dispatch()
        if not self.terms.persistent:
            self.roster.dismiss(end.worker)
        self._order.take(end)  # last: after Ctrl-C all of it is done again

    def _leave_out(self, task: Task) -> None:
        """No sample is left of this batch: another one is drawn for it, as for one that is delivered.

        Raises SkippedTooMany and EmptyBatch where it may not be left out.
        """
        try:
            self._indices.draw(self._order)
            self._dispatch()
            self._skipped.account_for(task.number, task.skipped, empty=True)
        except Exception:
            self._order.take(task)
            raise
        self._order.take(task)  # last: after Ctrl-C all of it is done again

    def _wait(self) -> None:
        before = self._order.arrived
        timeout_s = self.terms.timeout_s
        end_s = time.monotonic() + timeout_s if timeout_s > 0 else math.inf
        self._watcher.begin()
        while self._order.arrived == before:
            self._dispatch()
            self._releases.supply(self._workers(), self._order)
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise RuntimeError(f"DataLoader timed out after {timeout_s} seconds")
            if not self.roster.pool().hear(min(left_s, self._watcher.slice_s)):
                raise LoaderError(say("loader.closed"))
            self._intake.take_in(self._order, self._epoch)
            if self._order.arrived == before:
                self._watcher.look(self._order, self._epoch)

    def _dispatch(self) -> None:
        if self.memory.look(self.plan, self._order):
            self._tell_short()
        self._send()

    def _send(self) -> None:
        if not (self._order.workers or self._order.exhausted):
            return  # batches are made in this process
        while (next_to_send := self._order.next_to_send()) is not None:
            task, worker_id = next_to_send
            worker = self._workers()[worker_id]
            idle, allowed = worker.book.idle(), self._account.allowance_bytes()
            state = self._random_state(task)
            if self.terms.fixed:
                self.roster.history(worker_id).task(self._epoch, task.number, task.index)
            try:
                worker.end.send("task", self._epoch, task.number, task.index, state, idle, allowed)
            except Exception as error:  # an index that cannot be pickled
                self.roster.history(worker_id).not_told(self._epoch, task.number)
                blame.annotate(error, self._dataset, task.number, task.index)
                raise
            worker.book.told(idle)
            self._order.sent(task, worker_id)

    def _rest(self) -> None:
        """The epoch is over: this loader's part of the memory is for others until the next one begins."""
        self._account.end()
        self._account.owner = weakref.ref(self)
        self.tell_resting()

    def tell_resting(self) -> None:
        """Give resting workers back what the program has dropped; they then give it back to the system."""
        if not self.shut_down.alive:
            return
        self._releases.collect(self._workers().values())
        for worker in self._workers().values():
            idle = worker.book.idle()
            worker.end.send("rest", idle)
            worker.book.told(idle)

    def _tell_short(self) -> None:
        """Tell workers what they may take, and what came back: while tasks are held back, none may come for long."""
        self._releases.collect(self._workers().values())
        for worker in self._workers().values():
            idle = worker.book.idle()
            worker.end.send("short", idle, self._account.allowance_bytes())
            worker.book.told(idle)

    def _random_state(self, task: Task) -> Any:
        """What the worker shall draw from: its own stream (None), a seed, or given states."""
        if self.terms.fixed:
            return None
        return self._states.get(task.number) or self._seed(task)

    def _seed(self, task: Task) -> int:
        return batch_seed(self._base_seed, self._seed_epoch, task.number)

    def _workers(self) -> dict[int, Worker]:
        return self.roster.pool().workers

    # ---- what others ask --------------------------------------------------------------------------------------------

    def change_plan(self, plan: Plan) -> None:
        """Add or retire workers and change the prefetch, in mid-epoch. Only in shared mode.

        Raises LoaderError in fixed mode, and ValueError above the agreed maximum.
        """
        if self.terms.fixed:
            raise LoaderError(say("loader.fixed_count"))
        fewest = 1 if self.home is None else 0
        if not fewest <= plan.num_workers <= self.terms.max_workers:
            raise ValueError(f"num_workers={plan.num_workers}: expected {fewest} to {self.terms.max_workers}")
        self._follow(plan)
        self._dispatch()

    def _follow(self, plan: Plan) -> None:
        self.memory.follow(plan, self._order)
        self.plan = self.tally.plan = plan
        self._order.prefetch = plan.prefetch_factor

    def _make_places(self, count: int) -> None:
        """Wait until so many workers can be added: those that were let go have theirs until they are gone."""
        end_s = time.monotonic() + LEAVING_S
        while (leaving := [worker for worker in self._workers().values() if worker.quitting]) and (
            count + len(leaving) > self.terms.max_workers
        ):
            if time.monotonic() > end_s:  # stuck; nobody waits for what they make
                for worker in leaving:
                    worker.kill()
            self.roster.pool().hear(0.1)
            self._intake.take_in(self._order, self._epoch)

    def dismiss(self) -> None:
        """Let all workers go, whatever they have in hand; the zygote stays, for the workers of the next epoch."""
        if self.shut_down.alive:
            for worker_id in self._order.workers:
                self._order.workers[worker_id] = False
            self.roster.retire_all(self._order)

    def stock_up(self, batches: int, until_s: float) -> int:
        """Let workers make so many batches ahead, while the program waits; then let them rest until these are taken.

        Returns how many are ready, one after the other: fewer at `until_s` (time.monotonic) or near the end of an epoch. From
        then on a batch is only made when none is left, until `go_on`. Raises as `deliver`.
        """
        order = self._order
        order.prefetch = max(order.prefetch, math.ceil(batches / max(1, len(order.active()))))
        order.at_most = min(batches, self.memory.at_most or batches)
        self._dispatch()
        while order.unread_in_turn() < order.at_most and order.in_hand() and time.monotonic() < until_s:
            self._releases.supply(self._workers(), order)
            self.roster.pool().hear(min(0.1, max(0.0, until_s - time.monotonic())))
            self._intake.take_in(order, self._epoch)
            self._dispatch()
        order.at_most = 1
        return order.unread_in_turn()

    def go_on(self) -> None:
        """Work as the plan says again, after `stock_up`."""
        self._order.prefetch = self.plan.prefetch_factor
        self._order.at_most = self.memory.at_most
        self._dispatch()

    def undelivered_count(self) -> int:
        """How many batches were drawn and have not come out."""
        return len(self._order.tasks)

    def sample_indices(self, most: int) -> list[Any]:
        """Indices of samples that the program is about to get, where the sampler's batches are lists of them.

        None at all for an iterable dataset, whose samples have none: reading on in a stream may take them from somebody.
        """
        drawn = [task.index for task in self._order.tasks.values() if isinstance(task.index, list)]
        return [index for batch in drawn for index in batch if index is not None][:most]

    def active_workers(self) -> list[int]:
        """Ids of the workers that take tasks."""
        return self._order.active()

    def undelivered(self) -> list[Any]:
        """The indices that were drawn and whose batches the program has not got."""
        held = self._in_hand  # Ctrl-C took it from the program at the last moment
        first = [held[0].index] if held is not None and held[0].number not in self._order.tasks else []
        return [*first, *(task.index for task in self._order.tasks.values()), *self._indices.unordered(self._order)]


def samples_of(index: Any) -> int:
    """Samples in the batch of this index."""
    return len(index) if hasattr(index, "__len__") else 1


def _zygote_for(job: WorkerJob, method: str) -> Zygote:
    """What the workers of this job are forked from: a copy of this process, or a clean one with the job in a parcel."""
    return Zygote.forked(functools.partial(work, job)) if method == "fork" else nursery.hatch(job, method)
