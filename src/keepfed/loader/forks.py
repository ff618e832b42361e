"""What happens to a running loader when the program forks.

A fork copies the trainer with everything in it: mapped regions, sockets to workers, half an epoch. Three things follow.

- **Slots that are leased at the fork are parked.** The child shares their memory: refilled, they would change under a
  child that still reads its batch (torch never reuses memory, so there the child's copy stays). A *witness* tells when
  every descendant is gone: a pipe whose write end only they hold.
- **The child closes our descriptors** without a message, so that a worker's end of file still means "the trainer is
  gone", and so that no second process talks to a worker.
- **Entry points compare the process id** (`epoch.py`), so that an inherited iterator raises instead of stealing batches,
  and an inherited finalizer does not shut the parent's workers down.

`subprocess` does not come here: it forks in C and executes at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from keepfed.loader.lease import LeaseBook


class Closable(Protocol):
    """Something that owns descriptors which a forked child must not keep."""

    def close(self) -> None:
        """Close them, silently."""


class ForkWitness:
    """Tells when every process that a fork created, directly or later, is gone (or has executed another program)."""

    def __init__(self) -> None:
        self._read_end = self._write_end = -1
        with contextlib.suppress(OSError):  # out of descriptors: then it can never tell, which is safe
            self._read_end, self._write_end = os.pipe()
            os.set_blocking(self._read_end, False)

    def in_parent(self) -> None:
        """After the fork: from now on only descendants hold the write end."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def in_child(self) -> None:
        """After the fork: keep the write end open until this process ends, whatever happens to this object."""
        if self._read_end >= 0:
            os.close(self._read_end)
        self._read_end = self._write_end = -1

    def alone(self) -> bool:
        """Whether no descendant is left."""
        try:
            return os.read(self._read_end, 1) == b""
        except OSError:
            return False

    def __del__(self) -> None:
        for fd in (self._read_end, self._write_end):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)


_books: weakref.WeakSet[LeaseBook] = weakref.WeakSet()
_descriptors: weakref.WeakSet[Closable] = weakref.WeakSet()
_loaders: weakref.WeakSet[Any] = weakref.WeakSet()
_forking = threading.local()  # two threads may be about to fork at the same time


def watch_leases(book: LeaseBook) -> None:
    """Park what this book has leased whenever the program forks."""
    _books.add(book)


def close_in_children(owner: Closable) -> None:
    """Close this object's descriptors in every forked child."""
    _descriptors.add(owner)


def start_anew_in_children(loader: object) -> None:
    """A forked child shall not find the iterator that this loader keeps for its persistent workers."""
    _loaders.add(loader)


def _before() -> None:
    # A lease whose owner array is dead is over, though nobody has collected it yet: the child has nothing to read there.
    leases = [lease for book in list(_books) for lease in list(book.leases.values()) if lease() is not None]
    witness = ForkWitness() if leases else None
    for lease in leases:
        lease.witnesses.append(witness)  # type: ignore[arg-type]  # a witness exists where leases do
    _forking.witness = witness


def _in_parent() -> None:
    witness, _forking.witness = _forking.witness, None
    if witness is not None:
        witness.in_parent()


def _in_child() -> None:
    witness, _forking.witness = _forking.witness, None
    if witness is not None:
        witness.in_child()
    for loader in list(_loaders):
        loader._iterator = None
    for owner in list(_descriptors):
        owner.close()
    _descriptors.clear()
    _books.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
