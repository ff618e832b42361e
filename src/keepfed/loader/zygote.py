"""The idle child from which workers are forked.

    trainer ──fork──▶ zygote ──fork──▶ worker 0
       │                 │ ──────────▶ worker 1
       │                 │ ──────────▶ worker 2 (minutes later, in mid-epoch)
       │                 └ ──────────▶ understudy (a moment after the start; waits)
       └── sockets to every worker, passed through the zygote ──

Workers that are added or replaced in mid-epoch must not be forked from the trainer: by then the program has changed its
dataset, started CUDA and threads, or stands in another thread. The zygote is forked once, at `iter()`, does nothing, and
so keeps the dataset as it was. It is single-threaded, so everything forked from it is sound, and PR_SET_PDEATHSIG, which
is tied to the forking *thread* (prctl(2)), means what it says. Where the program wants its workers spawned, the zygote is
not forked from the trainer but hatched in a clean interpreter (nursery.py), and has a parcel in the dataset's place.

Its own death must not end the epoch either, and nothing but a copy of it has the dataset as it was. So it keeps one, the
understudy, which holds the same control socket and reads nothing from it while the zygote lives:

    zygote ✝ killed ─────▶ the kernel kills its workers (PDEATHSIG)
       │ pidfd
       ▼
    understudy ──"hatched", 1──▶ trainer: new workers of the same ids, from here on of generation 1; nobody is blamed
       │
       └──fork──▶ an understudy of its own, a moment later

Orders to fork carry a generation. What the dead one had read is lost, what it had not read its successor drops, and the
trainer takes the workers of both for dead as soon as nobody holds their sockets. When the control socket hangs up, nobody
is left: the zygote died before it had an understudy, or together with it.

Control socket, trainer to zygote: ("fork", generation, serial, id, region size) with the worker's socket and region
attached, ("term", pid), ("quit",).
Zygote to trainer: ("hatched", generation, pid) with its own pidfd attached, from a nursery or an understudy; ("forked",
serial, pid) with a pidfd attached, ("failed", serial, why) when fork(2) refused, ("exited", serial, pid, wait status).

Endings. A zygote that is told to quit ends its understudy first. Both poll a pidfd of the trainer: killed or not, when the
trainer is gone they exit, the kernel kills the workers (PDEATHSIG), and nothing is left. A worker whose zygote is gone is
killed likewise.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections import deque
from functools import partial
from itertools import takewhile
from operator import itemgetter
from typing import Any

from keepfed.loader.arena import Region
from keepfed.loader.control import DATA_BYTES, FDS_BYTES, control_pair, descriptors, read, readable, tell
from keepfed.loader.zygote_process import WorkerMain, ZygoteProcess


def supported() -> bool:
    """Whether this platform can hold and watch children the way the zygote does (Linux 5.3 and later)."""
    if not all(hasattr(os, name) for name in ("fork", "pidfd_open")) or not hasattr(socket, "send_fds"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class Zygote:
    """The trainer's handle on its zygote, and on those that take its place."""

    def __init__(self, control: socket.socket, pid: int = 0, pidfd: int = -1, generation: int = 0) -> None:
        """`pid` and `pidfd` are told later by one that has yet to hatch."""
        self.control = control
        self._present = generation, pid, pidfd
        self.fallen: tuple[int, int | None] = 0, None
        """Pid and exit code of the zygote before this one; the code is None where somebody else took it."""
        self._given_up = False
        # Blocks when sending; receiving asks not to. Switching the socket to and fro would leave it in the wrong state
        # when Ctrl-C comes in between.
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        self._receive = partial(self.control.recvmsg, DATA_BYTES, FDS_BYTES, flags)
        self._inbox: deque[tuple[Any, ...]] = deque()

    @classmethod
    def forked(cls, main: WorkerMain, generation: int = 0) -> Zygote:
        """Fork one. `main(worker_id, end, region)` is what workers will run; it and all it refers to are frozen now.

        Raises OSError when there is no room for another process.
        """
        control, theirs = control_pair()
        trainer_pid = os.getpid()
        trainer = os.pidfd_open(trainer_pid)
        for stream in (sys.stdout, sys.stderr):  # else every worker would print the program's unwritten text again
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.flush()
        try:
            pid = os.fork()
            if pid == 0:
                control.close()
                ZygoteProcess(theirs, trainer, trainer_pid, main, generation).run()
        except OSError:
            control.close()
            raise
        finally:
            theirs.close()
            os.close(trainer)
        return cls(control, pid, os.pidfd_open(pid), generation)

    @property
    def generation(self) -> int:
        """How many zygotes there were before this one."""
        return self._present[0]

    @property
    def pid(self) -> int:
        """Its process id; 0 while it has yet to hatch."""
        return self._present[1]

    @property
    def pidfd(self) -> int:
        """A descriptor of the process; -1 while it has yet to hatch."""
        return self._present[2]

    @property
    def hatched(self) -> bool:
        """Whether the process is known to be there."""
        return self.pidfd >= 0

    def told_of(self, generation: int, pid: int, pidfd: int) -> None:
        """It hatched, or its understudy took its place. Saying it twice does no harm (Ctrl-C in between)."""
        _, old_pid, old_pidfd = self._present
        if pidfd == old_pidfd:
            return
        if old_pidfd >= 0:
            self.fallen = old_pid, reap(old_pidfd)
        self._present = generation, pid, pidfd
        if old_pidfd >= 0:
            os.close(old_pidfd)

    def fork_worker(self, serial: int, worker_id: int, sock: socket.socket, region: Region) -> None:
        """Ask for a worker; it is announced by a "forked" message with the same serial number."""
        order = ("fork", self.generation, serial, worker_id, region.size_bytes)
        tell(self.control, order, [sock.fileno(), region.fd])

    def terminate(self, pid: int) -> None:
        """Send SIGTERM to a worker. Only from its parent does torch's handler take it as an order to exit with 0."""
        tell(self.control, ("term", pid), [])

    def receive(self) -> None:
        """Take in what the zygote said. One call in C, as in channel.py: Ctrl-C loses no message and no descriptor."""
        with contextlib.suppress(OSError):
            self._inbox.extend(takewhile(itemgetter(0), iter(self._receive, None)))  # no data: the end of the file

    def first(self) -> tuple[tuple[Any, ...], list[int]] | None:
        """The first message with the descriptors that came along; it stays until `done_with_first`."""
        if not self._inbox:
            return None
        data, ancillary, _, _ = self._inbox[0]
        return read(data), descriptors(ancillary)

    def close_first_descriptors(self) -> None:
        """Nobody wants what came along with the first message.

        Forgotten first: were they closed a second time after Ctrl-C, the numbers might be somebody else's by then.
        """
        data, ancillary, flags, sender = self._inbox[0]
        self._inbox[0] = data, [], flags, sender
        for fd in descriptors(ancillary):
            os.close(fd)

    def done_with_first(self) -> None:
        """Drop the first message."""
        self._inbox.popleft()

    def dead(self) -> bool:
        """Whether the process is gone; an understudy may be about to take its place."""
        return self.hatched and readable(self.pidfd, 0)

    def alive(self) -> bool:
        """Whether there is a zygote, or will be: only it, its understudy and its nursery hold the other end of the socket."""
        return not self._given_up and self.control.fileno() >= 0 and not readable(self.control.fileno(), 0, 0)

    def give_up(self) -> None:
        """Whoever still holds the other end will not be heard any more."""
        self._given_up = True
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)

    @property
    def given_up(self) -> bool:
        """Whether somebody may still be there who did not answer in time."""
        return self._given_up

    def quit(self, timeout_s: float) -> None:
        """End the zygote, and by that every worker that is left; reap it. One that has yet to hatch then ends at once."""
        tell(self.control, ("quit",), [])
        if self.hatched:
            if not readable(self.pidfd, timeout_s):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self.control.close()
        generation, pid, pidfd = self._present
        self._present = generation, pid, -1
        if pidfd >= 0:
            os.close(pidfd)


def reap(pidfd: int) -> int | None:
    """Exit code of a process that is gone, where it was a child of this one and nobody else has asked; else None.

    -N for signal N, as multiprocessing has it. Orphans are children of a trainer that is the first process of a container.
    """
    with contextlib.suppress(OSError):  # not a child of ours; or Linux 5.3, which has no P_PIDFD (waitid(2))
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return None


def exit_code(status: int) -> int | None:
    """A wait status as multiprocessing gives it: -N for signal N; None when somebody else took it."""
    return None if status < 0 else os.waitstatus_to_exitcode(status)
