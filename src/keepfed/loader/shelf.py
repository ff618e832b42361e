"""Regions that outlive their workers: the next epoch's workers write into pages that exist already.

Without persistent workers every epoch forks new ones. Their regions are kept here, per loader, and handed on; one that the
program still holds a part of (the loop variable of the last batch) waits until that is dropped. The shelf dies with its
loader, and the memory with the last thing that refers to it.
"""

from __future__ import annotations

import weakref
from typing import Any

from keepfed.loader.arena import Region
from keepfed.loader.forks import close_in_children
from keepfed.loader.lease import LeaseBook


class Shelf:
    """Idle regions of one loader."""

    def __init__(self) -> None:
        self._idle: list[Region] = []
        self._held: list[LeaseBook] = []
        self._all: set[weakref.ref[Region]] = set()
        close_in_children(self)

    def close(self) -> None:
        """In a forked child: these regions are the parent's, whose next workers write into them."""
        self._idle.clear()
        self._held.clear()
        self._all.clear()

    def take(self, size_bytes: int) -> Region:
        """A region that nobody uses, or a new one. Raises OSError when none can be made."""
        self._sort_out()
        region = self._idle.pop() if self._idle else Region.create(size_bytes)
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
                region = self._idle.pop(0)
            except IndexError:
                return
            if region.may_be_punched():
                region.punch(0, region.size_bytes)
            self._idle.append(region)

    def put_back(self, book: LeaseBook) -> None:
        """The worker of this region is gone: nobody writes there any more. Saying it twice does no harm."""
        if book not in self._held and book.region not in self._idle:
            self._held.append(book)
        self._sort_out()

    def _sort_out(self) -> None:
        held, self._held = self._held, []
        for book in held:
            if book.returned():
                self._idle.append(book.region)
            else:
                self._held.append(book)


_shelves: weakref.WeakKeyDictionary[Any, Shelf] = weakref.WeakKeyDictionary()


def shelf_of(loader: object) -> Shelf:
    """The shelf of this loader."""
    shelf = _shelves.get(loader)
    if shelf is None:
        shelf = _shelves[loader] = Shelf()
    return shelf
