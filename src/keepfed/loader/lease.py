"""What the program holds: the trainer's side of one worker's region.

A delivered batch is a lease on the slots that carry it. The garbage collector may end a lease at any moment, in any
thread, inside any critical section; so all it does is append to a deque. Everything else happens in `collect()`, which
the loader calls from `next()`.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from keepfed.loader.arena import Owner, Region, Use
from keepfed.loader.forks import ForkWitness, watch_leases


class Lease(weakref.ref[Owner]):
    """One slot in the program's hands: a weak reference to the owner array of a delivered batch."""

    __slots__ = ("checksum", "nbytes", "use", "witnesses")

    use: Use
    nbytes: int
    checksum: int | None
    witnesses: list[ForkWitness]


class LeaseBook:
    """Which slots of one region the program holds, and which uses can go back to the worker."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.leases: dict[Use, Lease] = {}
        self.leased_bytes = 0
        self._dead: deque[Any] = deque()
        self._idle: dict[Use, None] = {}
        self._parked: list[Lease] = []
        self._undelivered: set[Use] = set()
        watch_leases(self)

    def arrived(self, uses: Iterable[Use]) -> None:
        """These carry a batch that has not been delivered yet: until then the region is nobody else's."""
        self._undelivered.update(uses)

    def abandon(self) -> None:
        """What has not been delivered never will be."""
        self._undelivered.clear()

    def lease(self, use: Use, nbytes: int, checksum: int | None = None) -> Owner:
        """The owner array of a slot that is handed to the program; the use ends when the array dies."""
        self._idle.pop(use, None)  # decoded again: Ctrl-C took the first result before the program had it
        owner = self.region.owner(use[0], nbytes)
        lease = Lease(owner, self._dead.append)
        lease.use, lease.nbytes, lease.checksum, lease.witnesses = use, nbytes, checksum, []
        self.leases[use] = lease
        self.leased_bytes += nbytes
        self._undelivered.discard(use)
        return owner

    def revoke(self, use: Use) -> None:
        """This lease never came to be: the death of its owner array will mean nothing."""
        lease = self.leases.pop(use, None)
        if lease is not None:
            self.leased_bytes -= lease.nbytes
            self._undelivered.add(use)

    def give_back(self, use: Use) -> None:
        """This use is over without the program ever having held it."""
        self._idle[use] = None
        self._undelivered.discard(use)

    def collect(self, ended: Callable[[Lease], None] | None = None) -> None:
        """Take in what the garbage collector reported; `ended` sees each lease before its slot goes back.

        Every step can be repeated, so that an exception (Ctrl-C) between any two of them loses nothing.
        """
        while self._dead:
            lease: Lease = self._dead[0]
            use = getattr(lease, "use", None)  # Ctrl-C may leave a lease without its fields
            if use is not None and self.leases.get(use) is lease:
                if ended is not None:
                    ended(lease)
                if lease.witnesses:
                    self._parked.append(lease)
                else:
                    self._idle[lease.use] = None
                if self.leases.pop(lease.use, None) is not None:
                    self.leased_bytes -= lease.nbytes
            self._dead.popleft()
        if self._parked:
            self._unpark()

    def idle(self) -> tuple[Use, ...]:
        """Uses that are over and of which the worker has not been told."""
        return tuple(self._idle)

    def told(self, uses: tuple[Use, ...]) -> None:
        """The worker was told of these. Telling it twice does no harm: a stale generation is ignored."""
        for use in uses:
            self._idle.pop(use, None)

    def returned(self) -> bool:
        """Whether nothing of the region is on its way to the program, in its hands, or in a forked child's."""
        self.collect()
        return not (self.leases or self._parked or self._undelivered)

    def _unpark(self) -> None:
        still = []
        for lease in self._parked:
            if all(witness.alone() for witness in lease.witnesses):
                self._idle[lease.use] = None
            else:
                still.append(lease)
        self._parked = still
