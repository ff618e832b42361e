"""Ctrl-C at a chosen line: a stand-in for a signal that may come between any two bytecodes."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Collection
from typing import Any


class Interrupter:
    """Raises KeyboardInterrupt once, at the `position`-th line that runs inside these source files."""

    def __init__(self, files: Collection[str | None], position: int) -> None:
        self._files = files
        self._left = position
        self.at = ""
        """Where it was raised; empty until then."""

    def run(self, act: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """What `act` returned, and what it raised.

        In a thread of its own: an exception that a trace function raises inside an `except` block leaves CPython's record
        of handled exceptions behind, and with it every frame and object of that moment, until the thread ends.
        """
        outcome: list[Any] = [None, None]

        def body() -> None:
            sys.settrace(self._trace)
            try:
                outcome[0] = act()
            except BaseException as error:
                error.__traceback__ = error.__context__ = None
                outcome[1] = error
            finally:
                sys.settrace(None)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), f"it hangs after an interrupt at {self.at or 'no line'}"
        return outcome[0], outcome[1]

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line" and not self.at:
            self._left -= 1
            if self._left == 0:
                self.at = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self._trace
