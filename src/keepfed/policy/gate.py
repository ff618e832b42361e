"""When may memory be written again that a GPU may still be reading: not when the program drops it, but later.

`batch.to("cuda", non_blocking=True)` returns before the copy has begun. The program may drop the batch at once, and with
ordinary pinned memory that is safe: torch's allocator knows which stream used it. It knows nothing of ours. So a slot
that the program has dropped stands before a gate:

    leased to the program ──dropped──▶ waiting, unmarked ──mark──▶ waiting, marked ──the mark has passed──▶ given back

A *mark* is a point in everything that was submitted to the GPUs. It must be set after the slot was dropped and must cover
every stream on which the program may have started a copy: a mark on the current stream lets slots through while the copy
of a side stream still stands in its queue, and the bytes on the GPU are then those of another batch, without any error.

Every mark is asked for itself, not in the order of setting: one that never passes (a kernel that runs for ever) must not
keep back what others have let through. Every method may be repeated with the same arguments (Ctrl-C).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Mark(Protocol):
    """A point in what was submitted to the GPUs."""

    def passed(self) -> bool:
        """Whether everything before it is done. Once true, it stays true."""


Key = TypeVar("Key", bound=Hashable)


class Gate(Generic[Key]):
    """What was dropped and may still be read, and behind which mark it waits."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Mark | None] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, key: Key, mark: Mark | None = None) -> None:
        """The program has dropped this. `mark`: a mark that is known to cover all its readers; else the next one does."""
        self._waiting.setdefault(key, mark)

    def withdraw(self, key: Key) -> None:
        """This was not dropped after all."""
        self._waiting.pop(key, None)

    def unmarked(self) -> bool:
        """Whether a mark is needed."""
        return None in self._waiting.values()

    def set_mark(self, mark: Mark) -> None:
        """A mark was set just now: it covers all that has entered before."""
        for key in [key for key, behind in self._waiting.items() if behind is None]:
            self._waiting[key] = mark

    def passed(self) -> list[Key]:
        """What nobody reads any more; it stays until `leave`."""
        known: dict[int, bool] = {}
        passed = []
        for key, mark in self._waiting.items():
            if mark is not None:
                if id(mark) not in known:
                    known[id(mark)] = mark.passed()
                if known[id(mark)]:
                    passed.append(key)
        return passed

    def leave(self, key: Key) -> None:
        """This was given back."""
        self._waiting.pop(key, None)

    def oldest(self) -> Mark | None:
        """The mark that was set first of those that are waited for."""
        return next((mark for mark in self._waiting.values() if mark is not None), None)
