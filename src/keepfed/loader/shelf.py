"""Regions that outlive their workers: the next epoch's workers write into pages that exist already.

Without persistent workers every epoch forks new ones. Their regions are kept here, per loader, and handed on; one that the
program still holds a part of (the loop variable of the last batch) waits until that is dropped. The shelf dies with its
loader, and the memory with the last thing that refers to it; what a GPU knows of it is left to the estate (`pinned.py`).
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from keepfed.loader.arena import Region
from keepfed.loader.device import pinning_device
from keepfed.loader.forks import close_in_children
from keepfed.loader.lease import LeaseBook
from keepfed.loader.pinned import Pinning, Pins, bequeath, settle


class Shelf:
    """Idle regions of one loader."""

    def __init__(self) -> None:
        self.pinning: Pinning | None = None
        """How its regions are registered with a GPU; None while no loader asked for that."""
        self._idle: list[LeaseBook] = []
        self._held: list[LeaseBook] = []
        self._all: set[weakref.ref[Region]] = set()
        close_in_children(self)
        weakref.finalize(self, _bequeath, self._idle, self._held).atexit = False

    def close(self) -> None:
        """In a forked child: these regions are the parent's, whose next workers write into them."""
        self._idle.clear()
        self._held.clear()
        self._all.clear()

    def pin_for(self, accelerator: str) -> None:
        """Regions that are taken from now on are registered with this kind of accelerator, where we can; empty for none."""
        if self.pinning is None and accelerator and (device := pinning_device(accelerator)) is not None:
            self.pinning = Pinning(device)

    def take(self, size_bytes: int) -> Region:
        """A region that nobody uses, or a new one. Raises OSError when none can be made."""
        settle()
        self._sort_out()
        region = self._idle.pop().region if self._idle else Region.create(size_bytes)
        if region.pins is None and self.pinning is not None:
            region.pins = Pins(self.pinning, region)
        self._all.add(weakref.ref(region, self._all.discard))
        return region

    def bytes_in_use(self) -> int:
        """Memory that all regions of this loader take, with those that workers have."""
        regions = [region for reference in self._all.copy() if (region := reference()) is not None]
        return sum(region.bytes_in_use() for region in regions)

    def trim(self) -> None:
        """Give the memory of idle regions back to the system.

        A region is off the shelf meanwhile (one call in C), so that a thread that takes one gets another.
        """
        self._sort_out()
        for _ in range(len(self._idle)):
            try:
                book = self._idle.pop(0)
            except IndexError:
                return
            pins, region = book.region.pins, book.region
            if region.may_be_punched() and (pins is None or pins.unpin_all()):
                region.punch(0, region.size_bytes)
            self._idle.append(book)

    def put_back(self, book: LeaseBook) -> None:
        """The worker of this region is gone: nobody writes there any more. Saying it twice does no harm.

        Looks at nothing, since it may be called by a finalizer.
        """
        if all(other.region is not book.region for other in (*self._held, *self._idle)):
            self._held.append(book)

    def _sort_out(self) -> None:
        for book in list(self._held):
            if book.returned():
                with contextlib.suppress(ValueError):  # another thread was faster
                    self._held.remove(book)
                    self._idle.append(book)


def _bequeath(*shelves: list[LeaseBook]) -> None:
    """The shelf is gone. Nothing but appending: this is a finalizer."""
    for books in shelves:
        for book in books:
            if book.region.pins is not None:
                bequeath(book)


_shelves: weakref.WeakKeyDictionary[Any, Shelf] = weakref.WeakKeyDictionary()


def shelf_of(loader: object) -> Shelf:
    """The shelf of this loader."""
    shelf = _shelves.get(loader)
    if shelf is None:
        shelf = _shelves[loader] = Shelf()
    return shelf
