"""What one loader takes of the memory, looked at from `next()`, and what it gives up before the limit is reached.

    once a second:   workers' private memory + batches ─┐
                     limit (memory_limit=, else the     ├─▶ policy/governor.py ─▶ how many batches may be under way (Order.at_most)
                     control group's or the machine's) ─┘         │               how many workers may take tasks (shared mode)
                                                                  └─▶ what batches may take in bytes (Account.limit)

With a limit of the program's own, what counts is what this loader takes. Without one it is all that is in use under the limit
that binds first, whoever uses it: the trainer is the one who is killed.

Nothing runs while the program computes, so the look comes with the next `next()`, and while that waits, once a second. It takes
no more than a thousandth of the time.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import traceback

from keepfed.errors import LoaderError
from keepfed.host.headroom import MemoryGauge
from keepfed.host.tree import Tree
from keepfed.loader import copies
from keepfed.loader.budget import WORKER_BYTES, Account
from keepfed.loader.roster import Roster
from keepfed.loader.shelf import Shelf
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.policy.governor import Change, Governor, Reading, Rung
from keepfed.policy.order import Order
from keepfed.text import say

logger = logging.getLogger("keepfed")
LOOK_S = 1.0
NEAR_S = 0.25
"""Instead, while memory is tight or about to be."""
COST_SHARE = 1000
"""The next look comes when so many times as long has passed as the last one took."""


class MemoryWatch:
    """Keeps one crew within its memory."""

    def __init__(
        self, terms: Terms, tally: Tally, roster: Roster, shelf: Shelf, account: Account, dataset: object
    ) -> None:
        """`shelf` and `roster` tell what is used; `account` and `roster` are told what may be."""
        self._terms, self._tally = terms, tally
        self._roster, self._shelf, self._account = roster, shelf, account
        self._dataset = dataset
        self._governor = Governor(_full(terms.plan), fixed=terms.fixed)
        self._limit_bytes = terms.requests.memory_limit_bytes
        self._gauge = None if self._limit_bytes else MemoryGauge(Tree())
        self.room_bytes: int | None = None
        """What this loader may take, workers and batches together; None where its memory matters to nobody."""
        self._due_s = time.monotonic() + min(NEAR_S, LOOK_S)
        self._cost_s = 0.0
        if self._limit_bytes:
            kept = min(terms.plan.num_workers * WORKER_BYTES, self._limit_bytes // 4)
            account.limit(Reading(0.0, kept, self._limit_bytes, kept).slots_bytes)

    @property
    def at_most(self) -> int:
        """So many batches may be under way; 0 for as many as the plan says."""
        return self._governor.allowed.batches if self._governor.limited else 0

    @property
    def allowed(self) -> Rung | None:
        """What is left of the plan; None while that is all of it."""
        return self._governor.allowed if self._governor.limited else None

    def look(self, plan: Plan, order: Order) -> bool:
        """Look, if it is time to. True when memory is short and workers shall be told what they may take."""
        began_s = time.monotonic()
        if began_s < self._due_s:
            return False
        try:
            self._look(plan, order, began_s)
        except Exception:  # whatever is wrong with us must not end somebody's training
            self._due_s = math.inf
            # As text: a handler that keeps records would keep the workers with the traceback.
            logger.error("%s\n%s", say("loader.memory_lost"), traceback.format_exc())  # noqa: TRY400  # see above
            return False
        ended_s = time.monotonic()
        # The cheaper of two: one look that was held up (a page fault, another process's turn) must not blind us for seconds.
        cost_s, self._cost_s = min(self._cost_s, ended_s - began_s), ended_s - began_s
        usual_s = NEAR_S if self._governor.near else LOOK_S
        self._due_s = ended_s + max(usual_s, COST_SHARE * cost_s)
        return self._governor.limited

    def follow(self, plan: Plan, order: Order) -> None:
        """Put this plan into force, as far as memory allows. Raises as `Roster.add`."""
        self._governor.resize(_full(plan))
        order.at_most = self.at_most
        if not self._terms.fixed:
            workers = min(plan.num_workers, self._governor.allowed.workers)
            self._roster.resize(workers, order)
            self._account.resize(workers)

    def _look(self, plan: Plan, order: Order, now_s: float) -> None:
        weights = self._roster.weights()
        transport = self._shelf.bytes_in_use()
        own = transport + sum(weight.private_bytes for weight in weights)
        self._tally.memory_bytes = own
        copies.tell(weights, self._dataset, self._tally)
        reading, source = self._reading(now_s, own, transport)
        if reading is None:
            return
        binds = self._limit_bytes is not None or reading.matters
        self._account.limit(reading.slots_bytes if binds else None)
        self.room_bytes = max(0, own + reading.high_bytes - reading.used_bytes) if binds else None
        self._governor.resize(_full(plan))
        change = self._governor.observe(reading)
        if self._governor.limited:
            self._shelf.trim()
        if change is not None:
            with contextlib.suppress(LoaderError, OSError):  # no process can be had: those that are there go on
                self.follow(plan, order)
            self._tell(change, source)

    def _reading(self, now_s: float, own: int, transport: int) -> tuple[Reading | None, str]:
        if self._limit_bytes:
            return Reading(now_s, own, self._limit_bytes, own, transport), "memory_limit"
        found = self._gauge.read() if self._gauge is not None else None
        if found is None:
            return None, ""
        return Reading(now_s, found.used_bytes, found.limit_bytes, own, transport, found.pressure), found.source

    def _tell(self, change: Change, source: str) -> None:
        """Say once why it has become slower; the numbers show the rest."""
        if not self._governor.limited:
            self._tally.limited_by_memory = ""
            return
        full, reading = self._governor.full, change.reading
        self._tally.limited_by_memory = said = say(
            "loader.memory_short",
            used=reading.used_bytes / 1e6,
            limit=reading.limit_bytes / 1e6,
            source=source,
            own=reading.own_bytes / 1e6,
            batches=change.rung.batches,
            all_batches=full.batches,
            workers=change.rung.workers,
            all_workers=full.workers,
        )
        in_use = reading.used_bytes >= reading.low_bytes  # else it is only coming, and may not come
        if in_use and not self._tally.told_of_memory:
            self._tally.told_of_memory = True
            logger.warning(say("loader.memory_limited", said=said))


def _full(plan: Plan) -> Rung:
    workers = max(1, plan.num_workers)
    return Rung(workers, workers * plan.prefetch_factor)
