"""Memory that is registered with the GPU: which, by whom, and until when.

A worker's region is sparse and as large as the host's memory, so slots are registered one by one, each once: at its first
delivery, when its pages exist (registering 1 GiB takes 0.04 s then, and 0.45 s before). It stays registered when a worker
or an epoch ends. Two things must never happen to it:

- *unmapping while registered*. CUDA goes on believing that the address is pinned. The next mapping may land there; its
  copies then succeed and carry the old bytes. So whoever registers also keeps the mapping: `_ranges` holds it until the
  driver has taken the registration back, whatever else is dropped in between.
- *punching while registered*. The file gets new pages there, the GPU keeps reading the old ones. So a worker that wants
  to give pages back asks first (`LeaseBook.unpin`).

         take ─▶ Region ─▶ pin (first delivery) ─▶ … reused … ─▶ loader gone ─▶ estate ─▶ leases over, GPU past it
                                                                                              ▼
                                                       unmapped ◀── let go of the mapping ◀── unregistered

The estate is looked through by `next()` and `iter()` of any loader, never by a finalizer: those run at any moment, in a
graph capture too. When the interpreter ends, nothing is done: the kernel takes it all back at once.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keepfed.loader.cuda import NOT_REGISTERED, DriverError
from keepfed.loader.device import Device
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.arena import Region
    from keepfed.loader.lease import LeaseBook

logger = logging.getLogger("keepfed")


@dataclass(slots=True)
class _Range:
    """Bytes that are registered, or are about to be."""

    end: int
    """The first address after them."""
    memory: Any
    """The mapping that they lie in: kept until they are unregistered."""


_ranges: dict[int, _Range] = {}
_estate: deque[LeaseBook] = deque()


class Pinning:
    """How one loader pins, until it is refused once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.refused = False
        """Whether the driver has refused: then torch copies each batch into pinned memory of its own."""

    def refuse(self, error: Exception) -> None:
        """No more of it for this loader."""
        if not self.refused:
            self.refused = True
            logger.warning(say("loader.unpinned", reason=str(error).strip().partition("\n")[0]))


class Pins:
    """What is registered of one region."""

    def __init__(self, pinning: Pinning, region: Region) -> None:
        self.device = pinning.device
        self._pinning = pinning
        self._memory, self._address, self._size_bytes = region.memory, region.address, region.size_bytes
        self._registered: dict[int, int] = {}
        self._met: set[int] = set()

    def meet(self, offset: int) -> bool:
        """Whether this slot is met for the first time: the worker had none left that was free."""
        new = offset not in self._met
        self._met.add(offset)
        return new and not self._pinning.refused

    def pin(self, offset: int, nbytes: int) -> None:
        """Register a slot, if that has not been done and can be done now.

        What else is registered there is of slots that an earlier worker had cut otherwise: nobody reads them any more.
        """
        if self._registered.get(offset) == nbytes or self._pinning.refused or self.device.quiet():
            return
        start = self._address + offset
        try:
            if not self.unpin(offset, nbytes):
                raise RuntimeError(f"what was registered at {start:#x} could not be unregistered")
            _register(self.device, self._memory, start, start + nbytes)
        except (DriverError, RuntimeError) as error:
            self._pinning.refuse(error)
            return
        self._registered[offset] = nbytes

    def unpin(self, offset: int, nbytes: int) -> bool:
        """Unregister whatever touches these bytes, which nobody reads; whether none of them is registered any more."""
        if self.device.quiet():
            return False
        start = self._address + offset
        for first, there in list(_ranges.items()):
            if there.memory is self._memory and first < start + nbytes and start < there.end:
                if not _unregister(self.device, first):
                    return False
                self._registered.pop(first - self._address, None)
        return True

    def unpin_all(self) -> bool:
        """Unregister everything; whether nothing is registered any more."""
        return self.unpin(0, self._size_bytes)


def _register(device: Device, memory: Any, start: int, end: int) -> None:
    """Register a range. It is noted before, so that its mapping is kept whatever happens in between (Ctrl-C)."""
    for other, there in list(_ranges.items()):
        if start < there.end and other < end:
            raise RuntimeError(f"{start:#x} to {end:#x} overlaps memory that is registered already")
    _ranges[start] = _Range(end, memory)
    try:
        device.register(start, end - start)
    except Exception:
        del _ranges[start]
        raise


def _unregister(device: Device, start: int) -> bool:
    """Unregister a range, then let go of its mapping. False when the driver refuses: then the mapping stays for ever."""
    try:
        device.unregister(start)
    except DriverError as error:
        if error.code != NOT_REGISTERED:
            return False
    _ranges.pop(start, None)
    return True


def bequeath(book: LeaseBook) -> None:
    """Nobody uses this region any more, but for what the program and the GPU still hold of it. May come from a finalizer."""
    _estate.append(book)


def settle() -> None:
    """Unregister what is over."""
    for _ in range(len(_estate)):
        try:
            book = _estate.popleft()
        except IndexError:  # another thread is at it
            return
        over = False
        try:
            pins = book.region.pins
            over = book.returned() and (pins is None or pins.unpin_all())
        finally:
            if not over:
                _estate.append(book)


def registered_bytes() -> int:
    """How much is registered now."""
    return sum(held.end - start for start, held in list(_ranges.items()))


def _in_child() -> None:
    """The registrations are the parent's, and so is CUDA."""
    _ranges.clear()
    _estate.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
