"""The trainer's handle on one worker process: its socket, its region, its pidfd, and what is known of its end.

Frameworks find these in `iterator._workers` and treat them as multiprocessing's processes: they ask for pids and exit codes,
join and kill. What a worker is told, and when it is taken for dead, is its pool's to decide (`pool.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import weakref
from typing import Protocol

from keepfed.loader.arena import Region
from keepfed.loader.channel import TrainerEnd
from keepfed.loader.lease import LeaseBook


class Hearing(Protocol):
    """Who hears what happens to workers."""

    def hear(self, timeout_s: float | None) -> bool:
        """Wait for news. False when there will be none any more."""


class Worker:
    """One worker process, with the methods of multiprocessing.Process that frameworks call on it."""

    def __init__(
        self, worker_id: int, serial: int, generation: int, pool: Hearing, sock: socket.socket, region: Region
    ) -> None:
        self.id = worker_id
        self.serial = serial
        """Its number among all workers of the pool, while an id is used again after its worker is gone."""
        self.generation = generation
        """Of the zygote that was asked to fork it."""
        self.end = TrainerEnd(sock)
        self.book = LeaseBook(region)
        self.gone = False
        self.orphaned = False
        """Whether it ended because its zygote did."""
        self.quitting = False
        self.missed = False
        """Whether its death was told and counted: Ctrl-C may have it made good in two attempts."""
        self.exitcode: int | None = None
        self.why = ""
        """Why it never came to be: fork(2) was refused."""
        self.last_words = ""
        """The exception that ended it, where one got through torch's loop."""
        self.cause: str | None = None
        """Why it died, in words, once somebody has found out."""
        self.abandoned = False
        """Whether nobody waits for its end any more: the kernel does not let it die."""
        self._pool = weakref.proxy(pool)
        self.forked_pid: int | None = None
        """Its process id, once the zygote has said it."""
        self.pidfd = -1

    def __del__(self) -> None:
        """Close the descriptor of one that was dropped half made (Ctrl-C)."""
        if getattr(self, "pidfd", -1) >= 0:
            with contextlib.suppress(OSError):
                os.close(self.pidfd)

    @property
    def name(self) -> str:
        """Name of the process, as its own multiprocessing.current_process() says it."""
        return f"keepfed-{self.id}"

    @property
    def pid(self) -> int | None:
        """Process id; waits for the fork. None when it never came to be."""
        while self.forked_pid is None and not self.gone and self._hear(1.0):
            pass
        return self.forked_pid

    @property
    def is_up(self) -> bool:
        """Whether the process is known to have been forked."""
        return self.pidfd >= 0

    def forked(self, pid: int, pidfd: int) -> None:
        """The zygote forked this worker."""
        self.forked_pid, self.pidfd = pid, pidfd

    def is_alive(self) -> bool:
        """Whether the process runs."""
        self._hear()
        return not self.gone

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process ended, for `timeout` seconds at most."""
        end_s = None if timeout is None else time.monotonic() + timeout
        while not self.gone and (end_s is None or time.monotonic() < end_s):
            if not self._hear(1.0 if end_s is None else max(0.0, end_s - time.monotonic())):
                return

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def wake(self) -> None:
        """Send SIGCONT: a stopped process heeds nothing but SIGKILL."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _hear(self, timeout_s: float = 0.0) -> bool:
        with contextlib.suppress(ReferenceError):
            return bool(self._pool.hear(timeout_s))
        return False

    def _signal(self, number: int) -> None:
        if self.pid is not None and not self.gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Close the descriptors of this handle."""
        self.end.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
