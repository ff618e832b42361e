"""What a worker of a fixed count has been told, as far as its replacement would have to go through it again.

    told:   task 1   task 2   resume   task 3   task 4 │ task 5   task 6
            ───────────────────────────────── answered │ lost: sent again by the order of the epoch
                               ▲ noted: after the third thing (notes.py)
    what the replacement hears first:   restore, again 3, again 4

With a fixed count a batch depends on all the batches that its worker made before: each moves the random streams, and an
iterable dataset has its iterator advanced. A replacement is brought to the same place: from the last note of the random
states on, everything is done again, without being delivered again. Map-style datasets need milliseconds for that, and so do
streams that can say where they are (`place.py`). Of other streams the worker writes a note when the epoch begins, and its
replacement reads the stream from there, on the assumption that it gives the same samples when it is read a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from operator import is_
from typing import Any

Key = tuple[str, int, int]
Message = tuple[Any, ...]


@dataclass(slots=True)
class History:
    """The things one worker was told, in order, numbered from 1 over the lives of all that had its id."""

    noted: int = 0
    """The random states after so many things are known: those before are done for good."""
    states: Any = None
    """What a dead worker had noted after `noted` things (a Noted), for its replacement; None before the first death."""
    _things: dict[Key, tuple[int, Message]] = field(default_factory=dict)
    _blanks: dict[int, list[None]] = field(default_factory=dict)

    def task(self, epoch: int, number: int, index: Any) -> None:
        """It is about to be sent this task. Saying it twice does no harm."""
        self._told(("task", epoch, number), ("again", epoch, number, self._kept(index)))

    def not_told(self, epoch: int, number: int) -> None:
        """It could not be sent this task after all."""
        self._things.pop(("task", epoch, number), None)

    def resume(self, epoch: int, shared_seed: int | None) -> None:
        """It is about to be told that this epoch begins."""
        self._told(("resume", epoch, 0), ("resume", shared_seed))

    def has_noted(self, number: int) -> None:
        """It has noted its random states after the `number`-th thing."""
        if number > self.noted:  # most answers bring no new note
            self.noted = number
            self._things = {key: thing for key, thing in self._things.items() if thing[0] > number}

    def died(self, note: tuple[int, Any] | None, lost: set[tuple[int, int]]) -> None:
        """It died. `note` is the last that it left; `lost` are the tasks, by epoch and number, that will be sent again."""
        if note is not None and note[0] >= self.noted:
            self.states = note[1]
            self.has_noted(note[0])
        for epoch, number in lost:
            self._things.pop(("task", epoch, number), None)

    def opening(self) -> list[Message]:
        """What its replacement has to do first, to stand where it stood."""
        first = [] if self.states is None else [("restore", self.noted, self.states)]
        return [*first, *(message for thing, message in self._things.values() if thing > self.noted)]

    def again(self) -> int:
        """How many batches that makes anew."""
        return sum(message[0] == "again" for message in self.opening())

    def resumes(self) -> bool:
        """Whether its replacement's stream goes on from a state that the stream gave of itself."""
        return bool(getattr(self.states, "stream", b""))

    def _kept(self, index: Any) -> Any:
        """A stream is told a None per sample, batch for batch, and what it was told is kept for a whole epoch: one such list."""
        if type(index) is list and all(map(is_, index, repeat(None))):
            return self._blanks.setdefault(len(index), index)
        return index

    def _told(self, key: Key, message: Message) -> None:
        if key not in self._things:  # the number and the thing in one step: Ctrl-C leaves no gap in the numbers
            self._things[key] = self._last() + 1, message

    def _last(self) -> int:
        return max(next(reversed(self._things.values()))[0], self.noted) if self._things else self.noted
