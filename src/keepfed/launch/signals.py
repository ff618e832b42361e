"""Passes on to the program what the launcher is told by signals, and wakes the launcher when a child changes state.

Signals that a terminal sends go to a whole process group, so they are handed to the program's whole group. Signals
that people and batch systems send to one process go to the program's first process alone: a trainer that saves a checkpoint on
SIGTERM would otherwise lose its loader workers to that very signal and save an error message.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

TO_GROUP = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTSTP", "SIGWINCH", "SIGCONT", "SIGBREAK")
TO_PROCESS = ("SIGTERM", "SIGUSR1", "SIGUSR2")


class SignalRelay:
    """While entered, hands every signal of the two tables to `deliver(signum)`; `wait` sleeps until one or a SIGCHLD comes.

    Signals that are ignored stay ignored, here and in the program (`nohup`). Outside the main thread, where Python allows
    no handlers, nothing is relayed and `wait` looks every 50 ms.
    """

    def __init__(self, deliver: Callable[[int], None]) -> None:
        self._deliver = deliver
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        if hasattr(signal, "SIGCHLD"):  # where select works on pipes
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._take(signal.SIGCHLD, lambda _signum, _frame: None)
        for name in (*TO_GROUP, *TO_PROCESS):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._take(number, lambda signum, _frame: self._deliver(signum))
        if hasattr(signal, "SIGTTOU"):  # or writing a line, and changing hands in the terminal, would stop us
            self._take(signal.SIGTTOU, signal.SIG_IGN)
        return self

    def _take(self, number: int, handler: Any) -> None:
        self._before[number] = signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(TypeError, ValueError):  # None: a handler that was not installed from Python
                signal.signal(number, handler)
        self._before.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal comes, `timeout_s` at most."""
        if self._pipe is None:
            threading.Event().wait(min(timeout_s, 0.05))
            return
        if select.select([self._pipe[0]], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe[0], 4096)

    def in_child(self) -> None:
        """Give SIGTTOU back its meaning in the forked child: an ignored signal would stay ignored in the program."""
        if hasattr(signal, "SIGTTOU") and signal.SIGTTOU in self._before:
            signal.signal(signal.SIGTTOU, self._before[signal.SIGTTOU])

    @contextlib.contextmanager
    def default(self, number: int) -> Any:
        """`number` has its default action inside: needed to stop ourselves with it."""
        before = signal.signal(number, signal.SIG_DFL)
        try:
            yield
        finally:
            signal.signal(number, before)
