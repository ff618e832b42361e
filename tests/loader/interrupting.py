"""Ctrl-C at a chosen line: a stand-in for a signal that may come between any two bytecodes."""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Interrupter:
    """Raises KeyboardInterrupt once, at the `position`-th line that runs inside these source files.

    In a thread of its own, to be closed: an exception that a trace function raises inside an `except` block leaves
    CPython's record of handled exceptions behind, and with it every frame and object of that moment, until the thread ends.
    """

    def __init__(self, files: Collection[str | None], position: int = 0) -> None:
        self._files = files
        self._thread = ThreadPoolExecutor(1)
        self.next_at(position)

    def next_at(self, position: int, after: str = "") -> None:
        """Interrupt at this line from now, or from where the function of this qualified name is entered; 0 for not at all."""
        self._left = position
        self._after = after
        self.at = ""  # where it was raised

    def run(self, act: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """What `act` returned, and what it raised."""
        try:
            outcome: tuple[Any, BaseException | None] = self._thread.submit(self._body, act).result(10)
        except TimeoutError:
            raise AssertionError(f"it hangs after an interrupt at {self.at or 'no line'}") from None
        return outcome

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    def _body(self, act: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        sys.settrace(self._trace)
        try:
            return act(), None
        except BaseException as error:
            error.__traceback__ = error.__context__ = None
            return None, error
        finally:
            sys.settrace(None)

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "call" and frame.f_code.co_qualname == self._after:
            self._after = ""
        if event == "line" and self._left and not self._after:
            self._left -= 1
            if self._left == 0:
                line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
                self.at = f"{frame.f_code.co_qualname}: {line}"
                raise KeyboardInterrupt
        return self._trace
