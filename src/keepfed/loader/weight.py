"""How heavy a worker is: it weighs itself, now and then, and the trainer goes on from there.

What a forked worker really takes is in its page tables alone (`host/private.py`), and walking them takes 10 ms for a small
program and a third of a second for one of 10 GB. So the worker does it, between two batches, for a thousandth of its time, and
leaves the result in its page of notes. Between two weighings the trainer adds what the worker's anonymous memory has
grown by. It cannot see copies of shared pages by that; those come with the next weighing.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from keepfed.host.private import WALK_S_PER_BYTE, anonymous_bytes, read_private
from keepfed.host.tree import Tree
from keepfed.loader.notes import Notes, Weight

if TYPE_CHECKING:
    from keepfed.loader.handle import Worker

COST_SHARE = 1000
"""A worker weighs itself when so many times as long has passed as that takes."""
SOONEST_S = 1.0


class Scales:
    """On which a worker weighs itself."""

    def __init__(self, notes: Notes) -> None:
        """The first weight is what it has beyond the process that it was forked from: nothing, or a dataset of its own."""
        self._notes = notes
        self._anonymous_bytes = anonymous_bytes(os.getpid())
        private = max(0, self._anonymous_bytes - anonymous_bytes(os.getppid()))
        self._shared_bytes = self._anonymous_bytes - private
        self._due_s = time.monotonic() + max(SOONEST_S, COST_SHARE * WALK_S_PER_BYTE * self._anonymous_bytes)
        notes.weighed(Weight(private, self._anonymous_bytes, 0))

    def perhaps_weigh(self) -> None:
        """Note what this worker takes now, unless it is too soon."""
        began_s = time.monotonic()
        if began_s < self._due_s:
            return
        memory = read_private(Tree())
        if memory is not None:
            # What it has freed of the trainer's memory is shared no longer either, and is no copy.
            freed = max(0, self._anonymous_bytes - memory.anonymous_bytes)
            copied = max(0, self._shared_bytes - memory.shared_bytes - freed)
            self._notes.weighed(Weight(memory.private_bytes, memory.anonymous_bytes, copied))
        ended_s = time.monotonic()
        self._due_s = ended_s + max(SOONEST_S, COST_SHARE * (ended_s - began_s))


def weight_of(worker: Worker) -> Weight:
    """What this worker takes now, as far as that can be told from outside; nothing for one that has yet to start."""
    if worker.pidfd < 0 or worker.pid is None:
        return Weight(0, 0, 0)
    then, now = Notes(worker.book.region.notes()).weight(), anonymous_bytes(worker.pid)
    if not then.anonymous_bytes:
        return then
    return Weight(then.private_bytes + max(0, now - then.anonymous_bytes), now, then.copied_bytes)
