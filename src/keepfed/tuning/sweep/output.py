"""A program's output into a file, and to a listener at the moment it is written.

Through a pseudo terminal where there is one (pty(7)): rich draws nothing into a pipe until it has finished, and Lightning draws
with rich; C and Python keep their lines in a buffer of 8 kB until it is full. A wide window keeps the bars in one line. Where there
is none (Windows, a container without /dev/pts) it is a pipe, and Python programs are asked not to buffer.

The kernel keeps at most 4 kB of what we have not read, and the program waits when that is full: a thread reads, so that
the program never waits for us.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

ROWS, COLUMNS = 50, 200
CHUNK = 1 << 16


class Output:
    """Where one program writes. Make it, start the program with `descriptor`, call `begin`, and `end` after its end."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError when `file` cannot be made; it is private, and never one that exists."""
        self._clock = clock
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = os.open(file, flags, 0o600)
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = ""
        """Why the file is not whole; empty when it is."""
        try:
            self.is_terminal, (self._ours, self.descriptor) = True, _terminal()
        except (ImportError, AttributeError, OSError):  # Windows has none of it
            self.is_terminal, (self._ours, self.descriptor) = False, os.pipe()

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with what a program needs to know about where it writes."""
        if self.is_terminal:
            return {"TERM": "xterm-256color", **environ}
        return {**environ, "PYTHONUNBUFFERED": "1"}

    def begin(self) -> None:
        """The program has `descriptor` now: let go of it, or the end would never be seen; read."""
        self._let_go()
        # After the program was started: what runs between fork and exec in there must not meet other threads.
        self._thread = threading.Thread(target=self._read, name="keepfed-output", daemon=True)
        self._thread.start()

    def take(self) -> list[tuple[float, bytes]]:
        """What was written since the last call, with the time of each piece."""
        return [self._chunks.popleft() for _ in range(len(self._chunks))]

    def end(self) -> None:
        """Read what is left and close everything. The program and what it started are gone."""
        self._let_go()
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)
        if self._thread is None or not self._thread.is_alive():  # on Windows somebody may still hold the other end
            os.close(self._ours)
            os.close(self._file)

    def _let_go(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _read(self) -> None:
        while True:
            over = self._over.is_set()  # asked before reading: what was written before the end is then still read
            if os.name == "posix" and not select.select([self._ours], [], [], 0.0 if over else 0.1)[0]:
                if over:
                    return
                continue
            try:
                data = os.read(self._ours, CHUNK)
            except OSError:  # EIO: all others have closed the terminal
                return
            if not data:
                return
            self._chunks.append((self._clock(), data))
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        if self.lost:
            return
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:  # a full disk must not stop the measuring
            self.lost = error.strerror or str(error)


def _terminal() -> tuple[int, int]:
    """Our end and the program's end of a pseudo terminal that changes nothing of what passes."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    with contextlib.suppress(OSError, termios.error):
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.OPOST  # or every "\n" would be "\r\n" in the file
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    return ours, theirs
