"""How much memory batches may take: one budget for all loaders of the process, from what the host has to spare.

Leaving /dev/shm means leaving the bound that used to turn too large a prefetch into an error: without a budget of our own
it would be the OOM killer. Half of the free memory may be in the program's hands (kept batches), three tenths on its way;
past the first, batches are copied into ordinary memory at delivery, and past the second, workers wait.

A program has several loaders (training, validation, two that it zips together), and what each took for itself would add up
to more than there is. So all of them share:

    budget ── less what idle loaders still hold ──▶ active loaders, every worker of theirs the same part
                                                       │ changes when an epoch begins or ends, or workers come and go
                                                       └──▶ each task tells its worker how much it may take now

What a loader holds beyond its new part it gives up in its own next batches; until then a newcomer gets what is there.
A loader with a memory limit of its own, or on a host that is running out of memory, gets less than its part (memory.py).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
from keepfed.loader.arena import SMALLEST_REGION
from keepfed.loader.room import largest_region_bytes
from keepfed.loader.shelf import Shelf

HELD_SHARE = 0.5
MOVING_SHARE = 0.3
WORKER_BYTES = 64 << 20
"""What a worker takes for itself before it has made anything: the pages of the trainer's that it touches. Not of the batches' part,
but for no more than a quarter of what is free."""
T = TypeVar("T")
_UNKNOWN_AVAILABLE_BYTES = 4 << 30


def available_bytes() -> int:
    """This rank's part of the memory that is free on this host now (of the cgroup's limit, where that is less)."""
    facts = read_host(gpus=skip_gpus)
    available = facts.memory_available_bytes or _UNKNOWN_AVAILABLE_BYTES
    return available // max(1, facts.ranks.count)


class Resting(Protocol):
    """A crew between two epochs."""

    def tell_resting(self) -> None:
        """Give resting workers back what the program has dropped."""


class Account:
    """What one crew may take; kept up to date by the budget."""

    def __init__(self, budget: Budget, shelf: Shelf, workers: int) -> None:
        self.shelf = shelf
        self.rested_in = 0
        """The thread in which the last epoch ended; 0 while one is under way."""
        self.owner: weakref.ref[Resting] | None = None
        """The crew, once it rests. Weak: a cycle would keep its workers until the next garbage collection."""
        self.workers = workers
        self.held_bytes = 0
        """Of one worker's slots, what the program may hold; past that batches are copied at delivery."""
        self.fair_bytes = 0
        """All slots of one worker together, once every other loader keeps to its part."""
        self.limit_bytes: int | None = None
        """What all slots of this crew may take, where that is less than its part."""
        self._budget = budget
        self._now_bytes = 0

    def allowance_bytes(self) -> int:
        """All slots of one worker together, at this moment; past that the worker waits for one to come back."""
        if self._now_bytes != self.fair_bytes:
            self._now_bytes = max(0, min(self.fair_bytes, self._budget.free_for(self) // self.workers))
        return self._now_bytes

    def begin(self) -> None:
        """An epoch begins: what idle loaders hold without need is given back to the system."""
        self.rested_in = 0
        self._budget.activate(self)
        self._now_bytes = -1

    def end(self) -> None:
        """The epoch is over: the others may have this part."""
        self.rested_in = threading.get_ident()
        self._budget.rest(self)

    def limit(self, nbytes: int | None) -> None:
        """All slots of this crew may take so much together, however large its part is; None for its part."""
        if nbytes != self.limit_bytes:
            self.limit_bytes = nbytes
            self._budget.divide()

    def resize(self, workers: int) -> None:
        """So many workers take tasks from now on."""
        self.workers = max(1, workers)
        self._budget.divide()


class Budget:
    """The memory for batches of one process."""

    def __init__(self, available: Callable[[], int] = available_bytes, worker_bytes: int = WORKER_BYTES) -> None:
        """`available()` is what is free beside the batches that there are; `worker_bytes` of it are left to each worker."""
        self._available = available
        self._worker_bytes = worker_bytes
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._total = 0
        # Plain sets of weak references: copying one is one call in C, whatever other threads add.
        self._accounts: set[weakref.ref[Account]] = set()
        self._resting: set[weakref.ref[Account]] = set()
        self._owners: set[weakref.ref[Shelf]] = set()

    @property
    def slots_bytes(self) -> int:
        """What all slots of all loaders may take together."""
        return int(self._total * (HELD_SHARE + MOVING_SHARE))

    def region_bytes(self, workers: int) -> int:
        """Address space for one worker's region: it is sparse, and twice what there is leaves room for slots of all sizes."""
        wanted = max(2 * self._total, SMALLEST_REGION)
        largest = largest_region_bytes(workers)
        return wanted if largest is None else min(wanted, largest)

    def open(self, shelf: Shelf, workers: int) -> Account:
        """An account for a crew of so many workers, whose regions come from `shelf`. Counts the memory anew."""
        if self._pid != os.getpid():  # forked by the program: the loaders so far are the parent's
            self._start_anew()
        self._owners.add(weakref.ref(shelf, self._owners.discard))
        free = self._available()
        free -= min(workers * self._worker_bytes, free // 4)
        self._total = free + sum(shelf.bytes_in_use() for shelf in _alive(self._owners))
        account = Account(self, shelf, max(1, workers))
        account.begin()
        return account

    def activate(self, account: Account) -> None:
        """This account's crew begins an epoch."""
        self._resting.discard(weakref.ref(account))
        self._accounts.add(weakref.ref(account, self._accounts.discard))
        for other in _alive(self._resting):
            crew = other.owner() if other.owner is not None else None
            if crew is not None and other.rested_in == threading.get_ident():  # no other thread is at work on it
                crew.tell_resting()
        for shelf in self._idle():
            shelf.trim()
        self.divide()

    def rest(self, account: Account) -> None:
        """This account's crew has nothing to do until its next epoch."""
        self._accounts.discard(weakref.ref(account))
        self._resting.add(weakref.ref(account, self._resting.discard))
        self.divide()

    def divide(self) -> None:
        """Tell every account its part."""
        active = _alive(self._accounts)
        workers = sum(account.workers for account in active)
        total = max(0, self._total - sum(shelf.bytes_in_use() for shelf in self._idle()))
        for account in active:
            part = total * (HELD_SHARE + MOVING_SHARE) / workers
            if account.limit_bytes is not None:
                part = min(part, account.limit_bytes / account.workers)
            account.held_bytes = int(part * HELD_SHARE / (HELD_SHARE + MOVING_SHARE))
            account.fair_bytes = int(part)

    def free_for(self, account: Account) -> int:
        """What the other loaders leave of the budget at this moment."""
        return self.slots_bytes - sum(
            shelf.bytes_in_use() for shelf in _alive(self._owners) if shelf is not account.shelf
        )

    def _idle(self) -> list[Shelf]:
        busy = {id(account.shelf) for account in _alive(self._accounts)}
        return [shelf for shelf in _alive(self._owners) if id(shelf) not in busy]


def _alive(references: set[weakref.ref[T]]) -> list[T]:
    return [thing for reference in references.copy() if (thing := reference()) is not None]


shared = Budget()
"""The budget of this process."""
