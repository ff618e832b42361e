"""What comes from the workers: batches, ends of streams, wants, last words, and their deaths.

Messages stay in a worker's inbox until all that follows from them is done, and everything may be done twice: Ctrl-C loses
none of them. What a worker sent before it died comes first.
"""

from __future__ import annotations

from typing import Any

from keepfed.loader.codec import Encoded
from keepfed.loader.handle import Worker
from keepfed.loader.listener import Listener
from keepfed.loader.phases import Parts
from keepfed.loader.releases import Releases, give_back, unpin
from keepfed.loader.roster import Roster
from keepfed.loader.stats import Tally
from keepfed.loader.watcher import Watcher
from keepfed.policy.order import Order


class Intake:
    """Takes in what the workers of one crew have sent."""

    def __init__(self, roster: Roster, releases: Releases, watcher: Watcher, tally: Tally) -> None:
        self._roster, self._releases, self._watcher, self._tally = roster, releases, watcher, tally
        self.listener: Listener | None = None
        """Who is told of every batch that was made."""

    def take_in(self, order: Order, epoch: int) -> None:
        """Everything that has arrived. Raises as `Roster.ended` when a death cannot be made good."""
        for worker in list(self._roster.pool().workers.values()):
            while (message := worker.end.peek()) is not None:
                self._heard(order, epoch, worker, *message)
                worker.end.done_with_first()
            if worker.gone:
                self._releases.gone(worker.id)
                self._roster.ended(worker, order, epoch)

    def made_here(self, seconds: float, cpu_s: float) -> None:
        """The training process itself made a batch."""
        self._tally.made += 1
        self._tally.made_s += seconds
        if self.listener is not None:
            self.listener.made(-1, seconds, cpu_s, 0)

    def _heard(self, order: Order, epoch: int, worker: Worker, kind: str, *rest: Any) -> None:
        if kind == "dry":
            self._releases.dry(worker.id)
        elif kind == "unpin":
            unpin(worker, *rest)
        elif kind == "done":
            self._result(order, epoch, worker, *rest)
        elif kind == "leaving":
            (worker.last_words,) = rest
        elif kind == "traces":
            (self._tally.traces,) = rest
        elif rest[0] == epoch:
            order.ended(rest[1], worker.id, worker.serial)

    def _result(
        self,
        order: Order,
        epoch: int,
        worker: Worker,
        of: int,
        number: int,
        encoded: Any,
        times: tuple[float, float, Parts],
        noted: int,
        skipped: tuple[Any, ...] = (),
    ) -> None:
        if noted >= 0:
            self._roster.history(worker.id).has_noted(noted)
        if of != epoch:
            give_back(Encoded(*encoded), worker.book)
            return
        worker.book.arrived(use[:2] for use in encoded[0])
        if not order.finished(number, worker.id, worker.serial, (Encoded(*encoded), worker.book), skipped):
            if not order.has_result_of(number, worker.id):
                give_back(Encoded(*encoded), worker.book)
            return
        self._roster.not_in_vain()
        self._watcher.finished(times[0])
        self._count(worker, times, sum(use[2] for use in encoded[0]))
        if not order.workers.get(worker.id, True):
            self._roster.retire_idle(order)

    def _count(self, worker: Worker, times: tuple[float, float, Parts], nbytes: int) -> None:
        self._tally.made += 1
        self._tally.made_s += times[0]
        self._tally.bytes += nbytes
        if self.listener is not None:
            seconds, cpu_s, parts = times
            self.listener.made(worker.id, seconds, cpu_s, nbytes, parts)
