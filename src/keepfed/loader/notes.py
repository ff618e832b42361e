"""What a worker leaves behind when it dies: where its random streams stood.

With a fixed worker count each worker draws from one stream for its whole life, as torch's do. When it dies, the position of
that stream dies with it, and a batch that is made again by a new worker would have other augmentations than torch's run
of the same seed. So a worker notes its random states now and then, and after how many of the things that it was told:

    things told:   1   2   3   4   5   6   7 ✝ killed in the middle of 7
    notes:                     ▲
                               3
    its replacement:     restore note 3 ─▶ make 4, 5, 6 again for the sake of their draws ─▶ make 7, which is delivered

A note costs about 0.2 ms (most of it in NumPy), so it is written when the tasks since the last one took 300 times as long:
the cost stays below 0.4 %, and what is made again takes 60 ms or one task, whichever is longer.

A note for a stream also says where the stream stands, if it can (place.py).

They stand at the beginning of the worker's region, which outlives it. The page holds two notes, written in turn, and a note
is whole when its number stands there twice: a worker that is killed while it writes one leaves the other.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from keepfed.loader.draws import States, states

COST_SHARE = 300
"""A note is written when the work since the last one took so many times as long as writing it."""
_FRAME = struct.Struct("<qqq")  # number, the number again once the bytes are whole, their length
_WEIGHT = struct.Struct("<qqq")
_NOTHING = -1


class Noted(NamedTuple):
    """What one note says."""

    states: States
    """The random states."""
    stream: bytes
    """Where the stream stands (place.py); empty where it is at the beginning of an epoch, or is no stream."""


class Weight(NamedTuple):
    """What one worker takes (weight.py)."""

    private_bytes: int
    """Its own pages: all that goes when it goes, but for its batches."""
    anonymous_bytes: int
    """Those, and the ones that it shares with the trainer since the fork; 0 when it has not been weighed."""
    copied_bytes: int
    """Pages of the trainer's that it has written to, and has a copy of since."""


class Notes:
    """The page of one worker: it writes, and after its death the trainer reads."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` is shared by worker and trainer, with room for two notes of 11 KB, and for what streams say of themselves."""
        self._memory = memory
        self._half = (len(memory) - _WEIGHT.size) // 2
        self._worked_s = 0.0
        self._cost_s = 0.0
        self._next = 0
        self.noted = -1
        """After which thing the last note was written; -1 when there is none."""

    def clear(self) -> None:
        """Forget what another worker noted here."""
        self.weighed(Weight(0, 0, 0))
        for start in (0, self._half):
            _FRAME.pack_into(self._memory, start, 0, _NOTHING, 0)

    def weighed(self, weight: Weight) -> None:
        """The worker has weighed itself."""
        _WEIGHT.pack_into(self._memory, 2 * self._half, *weight)

    def weight(self) -> Weight:
        """What the worker took when it last weighed itself. Not whole when it is read in the middle: good enough here."""
        return Weight(*_WEIGHT.unpack_from(self._memory, 2 * self._half))

    def thing_done(self, number: int, seconds: float, stream: Callable[[], bytes] | None = None) -> None:
        """The worker finished the `number`-th thing that it was told to do, which took this long.

        `stream` says where its stream stands, if it reads one. When that says nothing, nothing is noted.
        """
        self._worked_s += seconds
        if self._worked_s < COST_SHARE * self._cost_s:
            return
        clock = time.thread_time  # not the time by the clock: others may have had the core meanwhile
        if stream is not None:
            clock = time.perf_counter  # a state_dict may wait for something
        began_s = clock()
        where = b"" if stream is None else stream()
        if where or stream is None:
            self.write(number, where)
        self._cost_s, self._worked_s = clock() - began_s, 0.0

    def write(self, number: int, stream: bytes = b"") -> None:
        """Note the states as they are after the `number`-th thing."""
        data = pickle.dumps((tuple(states()), stream), 5)
        if _FRAME.size + len(data) > self._half:
            return  # a generator that the program put in NumPy's place, a stream with a buffer: the older note stays
        start, self._next = self._next, self._half - self._next
        _FRAME.pack_into(self._memory, start, number, _NOTHING, len(data))
        self._memory[start + _FRAME.size : start + _FRAME.size + len(data)] = data
        _FRAME.pack_into(self._memory, start, number, number, len(data))
        self.noted = number

    def last(self) -> tuple[int, Noted] | None:
        """The newest whole note: after which thing, and what it says; None when there is none."""
        whole = [note for note in (self._note(0), self._note(self._half)) if note is not None]
        return max(whole, key=lambda note: note[0], default=None)

    def _note(self, start: int) -> tuple[int, Noted] | None:
        number, again, length = _FRAME.unpack_from(self._memory, start)
        if again != number or not 0 < length <= self._half - _FRAME.size:
            return None
        noted = self._memory[start + _FRAME.size : start + _FRAME.size + length]
        told, stream = pickle.loads(noted)  # noqa: S301  # our own worker wrote it
        return number, Noted(States(*told), stream)
