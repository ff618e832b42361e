"""How long the GPU idles because the program waits for data.

With asynchronous GPU work the host's wait says little: a loop bound by the GPU may spend 97 % of its time in `next()` while
the GPU idles 1 %, since the host runs ahead. So two events are recorded on the current stream, before and after the wait:
nothing is enqueued between them, so the time between them is the GPU's idle time that the wait caused. They are read
later, when they have passed, and never while a CUDA graph is being captured (querying would break the capture).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

MOST_PENDING = 256
"""Pairs that may be on their way; past that (a GPU that is far behind) waits are not measured."""


class StallMeter:
    """Measures on the current device and stream of the thread that waits."""

    def __init__(self, cuda: Any = None) -> None:
        """`cuda` stands for torch.cuda in tests."""
        self._cuda = torch.cuda if cuda is None else cuda
        self._before: Any = None
        self._pending: deque[tuple[Any, Any]] = deque()

    @staticmethod
    def usable() -> bool:
        """Whether this process trains on CUDA: it has been initialised."""
        cuda: Any = torch.cuda
        return bool(cuda.is_initialized())

    def begin(self) -> None:
        """The program begins to wait."""
        self._before = self.mark() if len(self._pending) < MOST_PENDING else None

    def end(self) -> None:
        """The wait is over."""
        before, self._before = self._before, None
        after = self.mark() if before is not None else None
        if after is not None:
            self._pending.append((before, after))

    def mark(self) -> Any:
        """An event at this point of the current stream; None while it is being captured, or when CUDA refuses."""
        try:
            if self._cuda.is_current_stream_capturing():
                return None
            event = self._cuda.Event(enable_timing=True)
            event.record()
        except RuntimeError:  # the program will meet it at its own next call, and should not meet it here
            return None
        return event

    def between(self, first: Any, last: Any) -> float | None:
        """Seconds from one mark to another on the GPU; None until it has passed both, and while a graph is captured."""
        try:
            if self._cuda.is_current_stream_capturing() or not last.query():
                return None
            return float(first.elapsed_time(last)) / 1000
        except RuntimeError:  # as above
            return None

    def measured(self) -> list[float]:
        """Seconds of idling of the waits whose events the GPU has passed since the last call."""
        found: list[float] = []
        try:
            if not self._pending or self._cuda.is_current_stream_capturing():
                return found
            while self._pending and self._pending[0][1].query():
                before, after = self._pending.popleft()
                found.append(before.elapsed_time(after) / 1000)
        except RuntimeError:  # the device was changed in between, or has failed: such waits are not measured
            self._pending.clear()
        return found
