"""What a worker leaves behind when it dies: which batch it had in hand, and where its random streams stood.

With a fixed worker count each worker draws from one stream for its whole life, as torch's do. When it dies, the position of
that stream dies with it, and a batch that is made again by a new worker would have other augmentations than torch's run
of the same seed. So a worker notes its random states now and then, and after how many of the things that it was told:

    things told:   1   2   3   4   5   6   7 ✝ killed in the middle of 7
    notes:                     ▲
                               3
    its replacement:     restore note 3 ─▶ make 4, 5, 6 again for the sake of their draws ─▶ make 7, which is delivered

A note costs about 0.2 ms (most of it in NumPy), so it is written when the tasks since the last one took 100 times as long:
the cost stays below 1 %, and what is made again takes 20 ms or one task, whichever is longer.

They stand at the beginning of the worker's region, which outlives it. The page holds two notes, written in turn, and a note
is whole when its number stands there twice: a worker that is killed while it writes one leaves the other.
"""

from __future__ import annotations

import pickle
import struct
import time

from keepfed.loader.draws import States, states

COST_SHARE = 100
"""A note is written when the work since the last one took so many times as long as writing it."""
_IN_HAND = struct.Struct("<qq")  # epoch, number of the batch
_FRAME = struct.Struct("<qqq")  # number, the number again once the bytes are whole, their length
_NOTHING = -1


class Notes:
    """The page of one worker: it writes, and after its death the trainer reads."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` is shared by worker and trainer, with room for two notes of 11 KB."""
        self._memory = memory
        self._half = (len(memory) - _IN_HAND.size) // 2
        self._worked_s = 0.0
        self._cost_s = 0.0
        self._next = 0
        self.noted = -1
        """After which thing the last note was written; -1 when there is none."""

    def clear(self) -> None:
        """Forget what another worker noted here."""
        self.nothing_in_hand()
        for start in (0, self._half):
            _FRAME.pack_into(self._memory, start, 0, _NOTHING, 0)

    def take_in_hand(self, epoch: int, number: int) -> None:
        """The worker begins to make this batch."""
        _IN_HAND.pack_into(self._memory, 2 * self._half, epoch, number)

    def nothing_in_hand(self) -> None:
        """The worker makes no batch."""
        _IN_HAND.pack_into(self._memory, 2 * self._half, _NOTHING, _NOTHING)

    def in_hand(self) -> tuple[int, int]:
        """Epoch and number of the batch that the worker makes; (-1, -1) when it makes none."""
        epoch, number = _IN_HAND.unpack_from(self._memory, 2 * self._half)
        return epoch, number

    def thing_done(self, number: int, seconds: float) -> None:
        """The worker finished the `number`-th thing that it was told to do, which took this long."""
        self._worked_s += seconds
        if self._worked_s < COST_SHARE * self._cost_s:
            return
        began_s = time.thread_time()  # not the time by the clock: others may have had the core meanwhile
        self.write(number)
        self._cost_s, self._worked_s = time.thread_time() - began_s, 0.0

    def write(self, number: int) -> None:
        """Note the states as they are after the `number`-th thing."""
        data = pickle.dumps(tuple(states()), 5)
        if _FRAME.size + len(data) > self._half:
            return  # a generator that the program put in NumPy's place: the older note stays
        start, self._next = self._next, self._half - self._next
        _FRAME.pack_into(self._memory, start, number, _NOTHING, len(data))
        self._memory[start + _FRAME.size : start + _FRAME.size + len(data)] = data
        _FRAME.pack_into(self._memory, start, number, number, len(data))
        self.noted = number

    def last(self) -> tuple[int, States] | None:
        """The newest whole note: after which thing, and the states; None when there is none."""
        whole = [note for note in (self._note(0), self._note(self._half)) if note is not None]
        return max(whole, key=lambda note: note[0], default=None)

    def _note(self, start: int) -> tuple[int, States] | None:
        number, again, length = _FRAME.unpack_from(self._memory, start)
        if again != number or not 0 < length <= self._half - _FRAME.size:
            return None
        noted = self._memory[start + _FRAME.size : start + _FRAME.size + length]
        return number, States(*pickle.loads(noted))  # noqa: S301  # our own worker wrote it
