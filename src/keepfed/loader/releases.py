"""Slots on their way back to the workers that own them.

A slot that the program has dropped goes back with the next task that its worker is sent; that costs nothing, and there is
always a next task soon. But not always: a worker may have no room for the batch that it is making, and get no new task
before that one is delivered. It then says that it is *dry* and waits:

    worker: all slots are out ── "dry" ──▶ trainer, while the program waits for a batch:
                                             slots of this worker came back   ─▶ "release" with them
                                             none, but its batch comes next   ─▶ "release" of nothing: go past the allowance
                                             none, and another batch is next  ─▶ let it wait: that one will bring some back

Some that the program has dropped may still be read by a GPU (`policy/gate.py`). Those are waited for, but only a moment: a
rank that waits for its GPU here while another rank's GPU waits for this one's next batch would wait for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from keepfed.loader.codec import Encoded
from keepfed.loader.decode import changed_while_leased
from keepfed.loader.handle import Worker
from keepfed.loader.home import Made
from keepfed.loader.lease import Lease, LeaseBook
from keepfed.loader.pinned import settle
from keepfed.loader.stats import Tally
from keepfed.policy.order import Order
from keepfed.text import say

logger = logging.getLogger("keepfed")
GPU_PATIENCE_S = 0.05
"""How long `next()` waits at most for a GPU to be done with a slot."""
_GPU_LOOK_S = 0.0005


class Releases:
    """What the program has dropped, and who waits for it."""

    def __init__(self, tally: Tally, *, verify: bool) -> None:
        """With `verify`, bytes that the program changed while it held them are counted."""
        self._tally = tally
        self._verify = verify
        self._dry: set[int] = set()

    def dry(self, worker_id: int) -> None:
        """This worker has no slot left for the batch that it makes, and waits."""
        self._dry.add(worker_id)

    def gone(self, worker_id: int) -> None:
        """This worker waits for nothing any more."""
        self._dry.discard(worker_id)

    def collect(self, workers: Iterable[Worker]) -> None:
        """Take in what the garbage collector reported of these workers' slots, and of those of loaders that are gone."""
        settle()
        for worker in workers:
            worker.book.collect(self._check(worker.book) if self._verify else None)

    def supply(self, workers: Mapping[int, Worker], order: Order) -> None:
        """Answer workers whose slots are all out, while the program waits: releases travel with tasks, and may be no more.

        One that the program waits for goes past its allowance when there is nothing to give back: what fills its slots is
        in the program's own hands, and waiting for that could take for ever.
        """
        if not self._dry:
            return
        self.collect(workers.values())
        first = next(iter(order.tasks.values()), None)
        for worker_id in list(self._dry):
            book = workers[worker_id].book
            is_first = not order.in_order or (first is not None and first.worker == worker_id)
            if is_first and not book.idle():
                wait_for_gpu(book)
            idle = book.idle()
            if idle or is_first:
                workers[worker_id].end.send("release", idle)
                book.told(idle)
                self._dry.discard(worker_id)

    def _check(self, book: LeaseBook) -> Callable[[Lease], None]:
        def check(lease: Lease) -> None:
            if changed_while_leased(lease, book):
                self._tally.edited += 1
                if self._tally.edited == 1:
                    logger.info(say("loader.edited"))

        return check


def unpin(worker: Worker, number: int, slots: tuple[tuple[int, int], ...]) -> None:
    """A worker wants to give the pages of these free slots back to the system: say which of them no GPU knows any more.

    By offset and size, since an earlier worker may have cut the region otherwise.
    """
    worker.end.send("unpinned", number, tuple(slot[0] for slot in slots if worker.book.unpin(*slot)))


def wait_for_gpu(book: LeaseBook) -> None:
    """Wait until the GPU is done with the slot for which it was longest, but not longer than `GPU_PATIENCE_S`."""
    end_s = time.monotonic() + GPU_PATIENCE_S
    waited_for = book.oldest_mark()
    while waited_for is not None and book.oldest_mark() is waited_for and time.monotonic() < end_s:
        book.let_through()
        time.sleep(_GPU_LOOK_S)


def give_back(encoded: Encoded | Made, book: LeaseBook) -> None:
    """The slots of this batch are free again: the program will never hold it."""
    for use in encoded.slots:
        book.give_back(use[:2])
