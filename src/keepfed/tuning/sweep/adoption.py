"""Processes of a run that lose their parent come to us, and not to init (Linux).

A daemon that a program starts (two forks, a session of its own) belongs to nobody's tree any more: it cannot be found, it
runs on beside the next value, and its CPU seconds are charged to init. A "child subreaper" is the next ancestor that asked
for orphans (prctl(2), PR_SET_CHILD_SUBREAPER); as the one, we find them all, end them, and by waiting for them get their
CPU seconds. On other systems this does nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Self

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Adoption:
    """While entered, orphans below this process become its children. Not inherited by the programs that are started."""

    def __init__(self) -> None:
        self._own: set[psutil.Process] = set()
        self._on = False

    def __enter__(self) -> Self:
        self._own = set(psutil.Process().children())
        self._on = _set_subreaper(on=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            _set_subreaper(on=False)

    def adopted(self) -> set[psutil.Process]:
        """The children that have come since, and what is below them."""
        if not self._on:
            return set()
        found: set[psutil.Process] = set()
        for child in set(psutil.Process().children()) - self._own:
            found.add(child)
            with contextlib.suppress(psutil.Error):
                found |= set(child.children(recursive=True))
        return found

    def bury(self) -> None:
        """Wait for those of them that have ended, which also passes their CPU seconds on to us."""
        for process in self.adopted():
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, os.WNOHANG)


def _set_subreaper(*, on: bool) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # a static interpreter, a sandbox
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) == 0)
    return False
