"""Processes that the loader's tests look at: programs that are forked off, and whether what they started is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Watched:
    """Processes by descriptors that were opened while they lived, so that no pid is mistaken for another's."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds = {pid: os.pidfd_open(pid) for pid in pids}

    def alive(self) -> set[int]:
        """Those that still run."""
        return {pid for pid, pidfd in self._pidfds.items() if not _readable(pidfd, 0)}

    def left_after(self, seconds: float) -> set[int]:
        """Those that still run after this time; returns as soon as none does. Where processes queue for cores, all take longer."""
        end_s = time.monotonic() + seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        for pidfd in self._pidfds.values():
            _readable(pidfd, max(0.0, end_s - time.monotonic()))
        return self.alive()

    def close(self) -> None:
        """Close the descriptors, and kill what is left."""
        for pidfd in self._pidfds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


@contextmanager
def watching(pids: Iterable[int]) -> Iterator[Watched]:
    """These processes, watched; what is left of them at the end is killed."""
    watched = Watched(pids)
    try:
        yield watched
    finally:
        watched.close()


class Program:
    """A program of its own process and process group, forked off this one: torch is loaded already."""

    def __init__(self, main: Callable[[Connection], None]) -> None:
        self.pipe, theirs = Pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(main, theirs)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)

    def _run(self, main: Callable[[Connection], None], pipe: Connection) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            self.pipe.close()
            main(pipe)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def hear(self, seconds: float = 20.0) -> Any:
        """The next object that the program sent."""
        assert self.pipe.poll(seconds), "the program said nothing"
        return self.pipe.recv()

    def wait(self, seconds: float = 20.0) -> int:
        """Its exit code, as subprocess gives it."""
        assert _readable(self.pidfd, seconds), "the program did not end"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Kill and reap it, should it still be there."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.pidfd)


@contextmanager
def program(main: Callable[[Connection], None]) -> Iterator[Program]:
    """A forked program that is gone at the end of the block."""
    running = Program(main)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def script(text: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program of its own interpreter; stdin, stdout and stderr are pipes."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    arguments = [sys.executable, "-c", text]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def children_of(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def wait_until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for what has no handle to wait on."""
    end_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end_s, what
        time.sleep(0.002)


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
