"""Who has the keyboard: the program's process group in the foreground of the terminal, as a shell would do it.

A program in a background group is stopped when it reads from the terminal, and Ctrl-C does not reach it. But the terminal is
not always ours to give: not when we were started in the background (`&`), and not in a pipeline, whose other end
(`… | less`) needs the keyboard itself. There the terminal is handed over only when the program asks for it, which the
kernel does for it with SIGTTIN or SIGTTOU.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Self


class Terminal:
    """The controlling terminal on stdin. POSIX only; the process must ignore SIGTTOU while it changes hands."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own_group = os.getpgrp()

    @classmethod
    def attached(cls) -> Self | None:
        """The terminal on stdin; None where stdin is none, or not the one that controls us."""
        with contextlib.suppress(OSError, AttributeError):
            if os.isatty(0):
                os.tcgetpgrp(0)
                return cls(0)
        return None

    @property
    def is_ours(self) -> bool:
        """Whether our own group is in the foreground."""
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(self._descriptor) == self._own_group
        return False

    @property
    def is_ours_alone(self) -> bool:
        """Whether, besides, stdout is no pipe into another process of our group."""
        with contextlib.suppress(OSError):
            return self.is_ours and not stat.S_ISFIFO(os.fstat(1).st_mode)
        return self.is_ours

    def hand_to(self, group: int) -> bool:
        """Make `group` the foreground group; False where the kernel refuses."""
        try:
            os.tcsetpgrp(self._descriptor, group)
        except OSError:
            return False
        return True

    def take_back(self, group: int) -> None:
        """Take the terminal back from `group`, or from a group that no longer exists; never from a shell above us."""
        with contextlib.suppress(OSError):
            in_front = os.tcgetpgrp(self._descriptor)
            if in_front == group or (in_front != self._own_group and not _has_members(in_front)):
                os.tcsetpgrp(self._descriptor, self._own_group)


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
