"""What the program holds: the trainer's side of one worker's region.

    lease ──▶ leased ──dropped──▶ [parked, while a forked child reads it] ──▶ [gate, while a GPU reads it] ──▶ idle ──▶ told

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
from keepfed.policy.gate import Gate, Mark


class Lease(weakref.ref[Owner]):
    """One slot in the program's hands: a weak reference to the owner array of a delivered batch."""

    __slots__ = ("checksum", "mark", "nbytes", "use", "witnesses")

    use: Use
    nbytes: int
    checksum: int | None
    witnesses: list[ForkWitness]
    mark: Mark | None
    """Covers everything on the GPU that reads the slot, where that is known."""


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
        self._gate: Gate[Use] = Gate()
        self._behind_gate: dict[Use, int] = {}
        self._was_leased: set[Use] = set()
        watch_leases(self)

    def arrived(self, uses: Iterable[Use]) -> None:
        """These carry a batch that has not been delivered yet: until then the region is nobody else's."""
        self._undelivered.update(uses)

    def abandon(self) -> None:
        """What has not been delivered never will be."""
        self._undelivered.clear()

    def lease(self, use: Use, nbytes: int, checksum: int | None = None, *, capacity: int = 0) -> Owner:
        """The owner array of a slot that is handed to the program; the use ends when the array dies.

        The slot's `capacity` is what a GPU registers.
        """
        self._idle.pop(use, None)  # decoded again: Ctrl-C took the first result before the program had it
        self._gate.withdraw(use)
        self._behind_gate.pop(use, None)
        self._was_leased.add(use)
        if self.region.pins is not None:
            self.region.pins.pin(use[0], capacity or nbytes)
        owner = self.region.owner(use[0], nbytes)
        lease = Lease(owner, self._dead.append)
        lease.use, lease.nbytes, lease.checksum, lease.witnesses, lease.mark = use, nbytes, checksum, [], None
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
        if use in self._was_leased:  # and Ctrl-C came: a copy to the GPU may have begun before
            self._over(use)
        else:
            self._idle[use] = None
        self._undelivered.discard(use)

    def covered(self, use: Use, mark: Mark) -> None:
        """Whatever on the GPU reads this use is before this mark: the program itself has never had it."""
        lease = self.leases.get(use)
        if lease is not None:
            lease.mark = mark

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
                    self._over(lease.use, lease.nbytes, lease.mark)
                if self.leases.pop(lease.use, None) is not None:
                    self.leased_bytes -= lease.nbytes
            self._dead.popleft()
        if self._parked:
            self._unpark()
        if self._gate:
            self.let_through()

    def _over(self, use: Use, nbytes: int = 0, mark: Mark | None = None) -> None:
        """Nobody holds this use; where a GPU knows the region, it may still read it."""
        if self.region.pins is None:
            self._idle[use] = None
        else:
            self._behind_gate[use] = nbytes
            self._gate.enter(use, mark)

    def let_through(self) -> None:
        """Give back what the GPU is done with; set a mark where one is needed."""
        device = self.region.pins.device if self.region.pins is not None else None
        if device is None or device.quiet():
            return
        if self._gate.unmarked():
            mark = device.mark()
            if mark is not None:
                self._gate.set_mark(mark)
        for use in self._gate.passed():
            self._idle[use] = None
            self._behind_gate.pop(use, None)
            self._gate.leave(use)

    def taken_bytes(self) -> int:
        """What the program holds, or a GPU may still read."""
        return self.leased_bytes + sum(self._behind_gate.values())

    def waits_for_gpu(self) -> int:
        """How many uses are over but for the GPU."""
        return len(self._gate)

    def oldest_mark(self) -> Mark | None:
        """The mark behind which the first of them waits; None while nothing may be asked."""
        pins = self.region.pins
        return None if pins is None or pins.device.quiet() else self._gate.oldest()

    def unpin(self, offset: int, nbytes: int) -> bool:
        """The worker wants to give the pages of this free slot back; whether it may."""
        readers = {*self.leases, *self._behind_gate, *self._undelivered, *(lease.use for lease in self._parked)}
        if any(use[0] == offset for use in readers):
            return False
        return self.region.pins is None or self.region.pins.unpin(offset, nbytes)

    def idle(self) -> tuple[Use, ...]:
        """Uses that are over and of which the worker has not been told."""
        return tuple(self._idle)

    def told(self, uses: tuple[Use, ...]) -> None:
        """The worker was told of these. Telling it twice does no harm: a stale generation is ignored."""
        for use in uses:
            self._idle.pop(use, None)
            self._was_leased.discard(use)

    def returned(self) -> bool:
        """Whether nothing of the region is on its way to the program, in its hands, in a forked child's, or a GPU's."""
        self.collect()
        return not (self.leases or self._parked or self._undelivered or self._gate)

    def _unpark(self) -> None:
        still = []
        for lease in self._parked:
            if all(witness.alone() for witness in lease.witnesses):
                self._over(lease.use, lease.nbytes, lease.mark)
            else:
                still.append(lease)
        self._parked = still
