"""Who works for a crew: workers are added, retired, replaced after a death, and ended.

                              the end of its dataset ─────────────────────┐
    add ──▶ takes tasks ──resize──▶ retires: makes what it has in hand ──▶ asked to quit ──▶ gone: leaves
               │   ▲                                                                          ▲
               ▼   │ replaced by a new worker of the same id                                  │
             dies ─┴── its last place, or no process can be had while others are there ───────┘

In shared mode every batch brings its random state with it, so what a dead worker had in hand is made again by anybody. In
fixed mode its replacement is first brought to where it stood (`history.py`), and then makes the same batches. Only a batch
that kills its worker again and again, or workers that cannot even start, end the epoch.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable

from torch.utils.data import IterableDataset

from keepfed.errors import LoaderError, WorkerDied
from keepfed.heartbeat import Heartbeat, clear_row, read_row
from keepfed.loader import blame, whereabouts
from keepfed.loader.beats import Rows
from keepfed.loader.descriptors import explained
from keepfed.loader.handle import Worker
from keepfed.loader.history import History
from keepfed.loader.notes import Notes, Weight
from keepfed.loader.obituary import Coroner, how_it_died
from keepfed.loader.pinned import bequeath
from keepfed.loader.pool import Pool
from keepfed.loader.shelf import Shelf
from keepfed.loader.stats import Tally
from keepfed.loader.weight import weight_of
from keepfed.loader.zygote import Zygote
from keepfed.policy.order import Order, Task
from keepfed.text import say

logger = logging.getLogger("keepfed")
MAX_ATTEMPTS = 3
"""A batch is made at most this often before the worker's death is taken to be its doing."""


class Roster:
    """The workers of one crew, and those that it had."""

    def __init__(
        self,
        pool: Pool,
        shelf: Shelf,
        tally: Tally,
        dataset: object,
        rows: Rows,
        *,
        max_workers: int,
        region_bytes: int,
    ) -> None:
        """Regions of `region_bytes` come from the shelf and go back to it; the dataset is named in errors."""
        self.members: list[Worker] = []
        """One per worker id that there ever was: the latest."""
        self._in_vain: set[int] = set()
        self._zygotes_in_vain: set[int] = set()
        self._told_of_zygote = 0
        self._coroner = Coroner()
        self._pool, self._shelf, self._tally = pool, shelf, tally
        self._dataset = dataset
        self._rows = rows
        self._max_workers = max_workers
        self._region_bytes = region_bytes
        self._histories: dict[int, History] = {}
        self.shut_down = weakref.finalize(self, _shut_down, pool, shelf)

    def pool(self) -> Pool:
        """The processes. Raises LoaderError once they were ended."""
        if self._pool.closed:
            raise LoaderError(say("loader.closed"))
        return self._pool

    def add(self, worker_id: int) -> None:
        """Start a worker. Raises OSError when no process or memory can be had, LoaderError as `Pool.add`."""
        with explained(self._max_workers):
            region = self._shelf.take(self._region_bytes)
            Notes(region.notes()).clear()
            clear_row(self._rows.of(worker_id, region))
            worker = self.pool().add(worker_id, region, self.history(worker_id).opening())
        self.members = [*(other for other in self.members if other.id != worker_id), worker]
        self._tally.workers = len(self.pool().workers)

    def heartbeat(self, worker: Worker) -> Heartbeat:
        """What this worker is doing."""
        return read_row(self._rows.of(worker.id, worker.book.region))

    def history(self, worker_id: int) -> History:
        """What the workers of this id have been told (fixed mode)."""
        history = self._histories.get(worker_id)
        return history if history is not None else self._histories.setdefault(worker_id, History())

    # ---- resizing ---------------------------------------------------------------------------------------------------

    def resize(self, count: int, order: Order) -> None:
        """Let `count` workers take tasks. Those that are too many go after what they have in hand."""
        active = order.active()
        for worker_id in active[count:]:
            order.workers[worker_id] = False
        for worker_id, worker in self.pool().workers.items():  # one that was to go, and has not been told
            if len(active) < count and worker_id not in active and not worker.quitting:
                order.workers[worker_id] = True
                active.append(worker_id)
        free = [number for number in range(self._max_workers) if number not in self.pool().workers]
        for worker_id in free[: max(0, count - len(active))]:
            self.add(worker_id)
            order.workers[worker_id] = True
        self.retire_idle(order)

    def retire_idle(self, order: Order) -> None:
        """Ask those to quit that take no more tasks and have none in hand."""
        for worker_id, takes in order.workers.items():
            if not takes and not order.unfinished(worker_id):
                self.pool().quit(self.pool().workers[worker_id])

    def retire_all(self, order: Order) -> None:
        """Ask those to quit that take no more tasks: nobody waits for what they have in hand."""
        for worker in self.pool().workers.values():
            if not order.workers.get(worker.id, True):
                self.pool().quit(worker)

    def dismiss(self, worker_id: int) -> None:
        """Ask this worker to quit: its dataset has no more, and there will be no other epoch for it."""
        worker = self.pool().workers.get(worker_id)
        if worker is not None:
            self.pool().quit(worker)

    def taking_tasks(self) -> dict[int, bool]:
        """Worker ids, and whether each has not been asked to quit."""
        return {worker.id: not worker.quitting for worker in self.pool().workers.values()}

    # ---- deaths -----------------------------------------------------------------------------------------------------

    def not_in_vain(self) -> None:
        """A batch arrived. Only deaths without any in between are limited."""
        self._in_vain.clear()
        self._zygotes_in_vain.clear()

    def ended(self, worker: Worker, order: Order, epoch: int) -> None:
        """A worker is gone: as asked, or by itself, in this epoch. Raises WorkerDied when that cannot be made good.

        What was lost waits in `order` to be sent again, by `next()` or before a wait: here a batch may be in the middle of
        its decoding (Ctrl-C), and messages to workers carry the slots that were already given back.
        """
        notes = Notes(worker.book.region.notes())
        beat = self.heartbeat(worker)
        to_blame = beat.pid and beat.epoch == epoch and not worker.orphaned
        in_hand = order.tasks.get(beat.batch) if to_blame else None
        if in_hand is not None and in_hand.ready:  # its last one arrived, and it had begun no other
            in_hand = None
        lost = order.lost(worker.id, worker.serial, in_hand.number if in_hand is not None else -1)
        takes_more = order.workers.get(worker.id, False)
        if worker.quitting and not lost:
            self._leave(worker, order)
            return
        if not order.fixed and worker.why and len(order.active()) > 1:
            self._leave(worker, order)  # fork(2) was refused: the program trains on with the workers that are there
            return
        self._require_hope(worker, in_hand)
        if order.fixed:
            self.history(worker.id).died(notes.last(), {(epoch, task.number) for task in lost})
        if not worker.missed:
            self._tell_of(worker, in_hand)
            worker.missed = True
            self._tally.restarts += 1
            self._tally.redone += sum(task.attempts > 0 for task in lost)
        if takes_more:
            self._replace(worker, order)
        else:
            self._leave(worker, order)

    def _require_hope(self, worker: Worker, in_hand: Task | None) -> None:
        """Raises WorkerDied when it makes no sense to go on without this worker.

        Deaths are kept by their numbers, so that one which is looked at again after Ctrl-C counts once.
        """
        if worker.orphaned:
            self._zygotes_in_vain.add(worker.generation)
        else:
            self._in_vain.add(worker.serial)
        hopeless = (
            len(self._in_vain) > MAX_ATTEMPTS * max(1, len(self.pool().workers))
            or len(self._zygotes_in_vain) > MAX_ATTEMPTS
            or (in_hand is not None and len(in_hand.killed) >= MAX_ATTEMPTS)
        )
        barren = self.pool().barren()
        if hopeless or barren:
            how, next_step = how_it_died(worker), say("loader.worker_died_next")
            if barren:
                how, next_step = f"{how} {say('loader.zygote_gone')}", say("loader.zygote_gone_next")
            circumstances = self._circumstances(worker, in_hand)
            self.shut_down()
            raise WorkerDied(how, next_step=f"{circumstances} {next_step}")

    def _tell_of(self, worker: Worker, in_hand: Task | None) -> None:
        """One line in the log for a worker that died, or for all that died with their zygote."""
        if not worker.orphaned:
            how = how_it_died(worker).rstrip(".")
            replaced = say("loader.worker_replaced", how=how, made=self._circumstances(worker, in_hand))
        elif self._told_of_zygote <= worker.generation:
            self._told_of_zygote = worker.generation + 1
            pid, code = self.pool().fallen()
            cause = self._coroner.of_exit(code)
            replaced = say("loader.zygote_replaced", pid=pid, cause=f" {cause}" if cause else "")
        else:
            return
        logger.warning(" ".join([replaced, *self._how_its_stream_goes_on(worker.id)]))

    def _circumstances(self, worker: Worker, in_hand: Task | None) -> str:
        """What it made, where it was, and why it died, as far as that is known."""
        cause = self._coroner.of_worker(worker)
        made = self._what_it_made(worker, in_hand)
        return f"{made} {cause}" if cause else made

    def _what_it_made(self, worker: Worker, task: Task | None) -> str:
        if task is None:
            return say("loader.made_nothing", dataset=blame.name_of(self._dataset))
        place, beat = blame.place(self._dataset, task.number, task.index), self.heartbeat(worker)
        if beat.pid != worker.pid or beat.batch != task.number:
            return say("loader.made", place=place)
        return say("loader.made_at", place=place, phase=whereabouts.phase(beat), sample=whereabouts.sample(task, beat))

    def _how_its_stream_goes_on(self, worker_id: int) -> list[str]:
        history = self.history(worker_id)
        if isinstance(self._dataset, IterableDataset) and history.resumes():
            return [say("loader.stream_resumed", count=history.again())]
        if isinstance(self._dataset, IterableDataset) and history.again():
            return [say("loader.stream_read_again", count=history.again())]
        return []

    def _replace(self, worker: Worker, order: Order) -> None:
        """A new worker in the place of this one; none where no process can be had and others can do its work (shared mode)."""
        try:
            self.add(worker.id)  # at once: Ctrl-C finds one of the two
        except OSError:
            if order.fixed or len(order.active()) < 2:
                raise
            self._leave(worker, order)
            return
        self._forget(worker)

    def _leave(self, worker: Worker, order: Order) -> None:
        """This worker is gone and nobody takes its place."""
        order.workers.pop(worker.id, None)
        self._forget(worker)
        self._tally.workers = len(self.pool().workers)

    def _forget(self, worker: Worker) -> None:
        self.pool().forget(worker)
        if not worker.abandoned:
            self._shelf.put_back(worker.book)

    def renew(self, fork: Callable[[int], Zygote]) -> None:
        """End all workers together with what they are forked from, and go on with what `fork` makes of the program now."""
        self._pool.renew(fork)
        self._told_of_zygote = self._pool.generation()

    # ---- what they take ---------------------------------------------------------------------------------------------

    def weights(self) -> list[Weight]:
        """What each worker alive takes."""
        return [weight_of(worker) for worker in self.pool().workers.values() if not worker.gone]

    def worker_bytes(self) -> float:
        """Private memory of one worker, mean over those alive."""
        found = self.weights()
        return sum(weight.private_bytes for weight in found) / max(1, len(found))

    def transport_bytes(self) -> int:
        """Memory that the batches in preparation and in the program's hands take."""
        return sum(worker.book.region.bytes_in_use() for worker in self.pool().workers.values())


def _shut_down(pool: Pool, shelf: Shelf) -> None:
    """End a pool; regions whose worker is known to be dead go back to the shelf. This is a finalizer."""
    dead = pool.shut_down()
    for worker in dead:
        worker.book.abandon()
        shelf.put_back(worker.book)
    for worker in pool.workers.values():
        if worker not in dead and worker.book.region.pins is not None and pool.owner_pid == os.getpid():
            worker.book.abandon()
            bequeath(worker.book)
