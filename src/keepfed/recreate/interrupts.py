"""Ctrl-C and its like while containers change places: noted at once, obeyed where it does no harm.

A terminal that is closed (SIGHUP) or a service that is stopped (SIGTERM) would otherwise leave a container stopped under a name that
nobody knows.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupts:
    """Signals that came in since `noted` was entered."""

    def __init__(self) -> None:
        self.number: int | None = None

    def obey(self) -> None:
        """Raise KeyboardInterrupt if one has come in."""
        if self.number is not None:
            raise KeyboardInterrupt(signal.Signals(self.number).name)

    @contextmanager
    def noted(self) -> Iterator[Self]:
        """Note signals inside the block instead of obeying them; outside the main thread this does nothing."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                # One that is ignored (nohup) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._note)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
