"""The idle child from which workers are forked.

    trainer ──fork──▶ zygote ──fork──▶ worker 0
       │                 │ ──────────▶ worker 1
       │                 │ ──────────▶ worker 2 (minutes later, in mid-epoch)
       └── sockets to every worker, passed through the zygote ──

Workers that are added or replaced in mid-epoch must not be forked from the trainer: by then the program has changed its
dataset, started CUDA and threads, or stands in another thread. The zygote is forked once, at `iter()`, does nothing, and
so keeps the dataset as it was. It is single-threaded, so everything forked from it is sound, and PR_SET_PDEATHSIG, which
is tied to the forking *thread* (prctl(2)), means what it says. Where the program wants its workers spawned, the zygote is
not forked from the trainer but hatched in a clean interpreter (nursery.py), and has a parcel in the dataset's place.

Control socket, trainer to zygote: ("fork", serial, id, region size) with the worker's socket and region attached, ("term",
pid), ("quit",).
Zygote to trainer: ("hatched", 0, pid) with its own pidfd attached, from a nursery only; ("forked", serial, pid) with a
pidfd attached, ("failed", serial, why) when fork(2) refused, ("exited", serial, pid, wait status).

Endings. The zygote polls a pidfd of the trainer: killed or not, when the trainer is gone the zygote exits, the kernel
kills its workers (PDEATHSIG), and nothing is left. A worker whose zygote is gone is killed likewise.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import marshal
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from multiprocessing.context import ForkProcess
from operator import itemgetter
from typing import Any, NoReturn

from keepfed.loader.arena import Region, leave_regions
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.oom import WORKER_POINTS, ZYGOTE_POINTS, offer

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DATA_BYTES = 4096
_FDS_BYTES = socket.CMSG_SPACE(4 * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0
WorkerMain = Callable[[int, WorkerEnd, Region], None]


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
    """The trainer's handle on its zygote."""

    def __init__(self, control: socket.socket, pid: int = 0, pidfd: int = -1) -> None:
        """`pid` and `pidfd` are told later by one that has yet to hatch."""
        self.control, self.pid, self.pidfd = control, pid, pidfd
        # Blocks when sending; receiving asks not to. Switching the socket to and fro would leave it in the wrong state
        # when Ctrl-C comes in between.
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        self._receive = partial(self.control.recvmsg, _DATA_BYTES, _FDS_BYTES, flags)
        self._inbox: deque[tuple[Any, ...]] = deque()

    @classmethod
    def forked(cls, main: WorkerMain) -> Zygote:
        """Fork one. `main(worker_id, end, region)` is what workers will run; it and all it refers to are frozen now."""
        control, theirs = control_pair()
        trainer_pid = os.getpid()
        trainer = os.pidfd_open(trainer_pid)
        for stream in (sys.stdout, sys.stderr):  # else every worker would print the program's unwritten text again
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.flush()
        pid = os.fork()
        if pid == 0:
            control.close()
            ZygoteProcess(theirs, trainer, trainer_pid, main).run()
        theirs.close()
        os.close(trainer)
        return cls(control, pid, os.pidfd_open(pid))

    @property
    def hatched(self) -> bool:
        """Whether the process is known to be there."""
        return self.pidfd >= 0

    def told_of(self, pid: int, pidfd: int) -> None:
        """It hatched. Saying it twice does no harm (Ctrl-C in between)."""
        self.pid, self.pidfd = pid, pidfd

    def fork_worker(self, serial: int, worker_id: int, sock: socket.socket, region: Region) -> None:
        """Ask for a worker; it is announced by a "forked" message with the same serial number."""
        self._send(("fork", serial, worker_id, region.size_bytes), [sock.fileno(), region.fd])

    def terminate(self, pid: int) -> None:
        """Send SIGTERM to a worker. Only from its parent does torch's handler take it as an order to exit with 0."""
        self._send(("term", pid), [])

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

    def done_with_first(self) -> None:
        """Drop the first message."""
        self._inbox.popleft()

    def alive(self) -> bool:
        """Whether the process runs, or may still hatch: only it and its nursery hold the other end of the socket."""
        if self.hatched:
            return not readable(self.pidfd, 0)
        return self.control.fileno() >= 0 and not readable(self.control.fileno(), 0, 0)

    def quit(self, timeout_s: float) -> None:
        """End the zygote, and by that every worker that is left; reap it. One that has yet to hatch then ends at once."""
        self._send(("quit",), [])
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
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def _send(self, message: tuple[Any, ...], fds: list[int]) -> None:
        with contextlib.suppress(OSError):  # a dead zygote is noticed by its pidfd
            socket.send_fds(self.control, [marshal.dumps(message)], fds)


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends for short messages with descriptors."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    return list(fds)


def readable(fd: int, timeout_s: float, events: int = 1) -> bool:
    """Whether there is something to read within this time; with `events=0`, whether the other end is gone."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout_s * 1000))


class ZygoteProcess:
    """The zygote's own side. Never returns to the program's code that it was forked from."""

    def __init__(self, control: socket.socket, trainer: int, trainer_pid: int, main: WorkerMain) -> None:
        """`trainer` is a pidfd."""
        self._control = control
        self._trainer = trainer
        self._trainer_pid = trainer_pid
        self._main = main
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> serial, pid
        self._sigchld = signal.getsignal(signal.SIGCHLD)

    def run(self, *, announced: bool = True) -> NoReturn:
        """Be a zygote until the end. `announced`: whether the trainer knows this process already."""
        status = 1
        try:
            if not announced:
                self._announce()
            gc.freeze()  # a collection here or in a worker must not run the trainer's finalizers, nor touch its pages
            leave_regions()
            offer(ZYGOTE_POINTS)
            os.environ["KEEPFED_WORKER"] = "1"
            _drop_handlers()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would keep no exit status for us
            if self._serve():
                self._reap()
            status = 0
        finally:
            os._exit(status)

    def _announce(self) -> None:
        own = os.pidfd_open(os.getpid())
        self._say("hatched", 0, os.getpid(), fds=[own])
        os.close(own)

    def _serve(self) -> bool:
        """Until the trainer says quit (True) or is gone (False: then the kernel kills the workers)."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._trainer, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._trainer:
                    return False
                if fd == self._control.fileno():
                    if not self._obey(poll):
                        return True
                else:
                    poll.unregister(fd)
                    self._report_exit(fd)

    def _obey(self, poll: select.poll) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(_DATA_BYTES, _FDS_BYTES, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = descriptors(ancillary)
        kind, *rest = read(data)
        if kind == "fork":
            self._fork(poll, fds, *rest)
        elif kind == "term" and rest[0] in {pid for _, pid in self._children.values()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rest[0], signal.SIGTERM)
        return bool(kind != "quit")

    def _fork(self, poll: select.poll, fds: list[int], serial: int, worker_id: int, region_bytes: int) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory
            self._say("failed", serial, str(error))
            return
        else:
            if pid == 0:
                self._become_worker(zygote, worker_id, region_bytes, fds)
        finally:
            for fd in fds:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = serial, pid
        poll.register(pidfd, select.POLLIN)
        self._say("forked", serial, pid, fds=[pidfd])

    def _become_worker(self, zygote: int, worker_id: int, region_bytes: int, fds: list[int]) -> NoReturn:
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != zygote:
                os._exit(1)  # the zygote was gone before the line above
            offer(WORKER_POINTS - ZYGOTE_POINTS)
            self._control.close()
            for pidfd in self._children:
                os.close(pidfd)
            if self._sigchld is signal.SIG_IGN:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as the program has it
            end, region = WorkerEnd(socket.socket(fileno=fds[0])), Region(fds[1], region_bytes)
            process = ForkProcess(target=self._main, args=(worker_id, end, region), name=f"keepfed-{worker_id}")
            process.daemon = True
            process._identity = (worker_id + 1,)  # as the trainer would count them
            process._parent_pid = self._trainer_pid  # type: ignore[attr-defined]  # what parent_process() will say
            code = process._bootstrap(parent_sentinel=self._trainer)  # type: ignore[attr-defined]  # Popen's own way
        finally:
            os._exit(code)

    def _report_exit(self, pidfd: int) -> None:
        serial, pid = self._children.pop(pidfd)
        os.close(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            status = -1
        self._say("exited", serial, pid, status)

    def _reap(self) -> None:
        """Leave no zombies to a trainer that is the first process of a container, where nobody else waits for them."""
        for _, pid in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pidfd in list(self._children):
            self._report_exit(pidfd)

    def _say(self, *message: Any, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):  # the trainer is gone: its pidfd ends the loop
            socket.send_fds(self._control, [marshal.dumps(message)], fds or [])


def read(data: bytes) -> tuple[Any, ...]:
    """A message, as it was dumped by marshal."""
    message: tuple[Any, ...] = marshal.loads(data)  # noqa: S302  # a private socket pair within one process tree
    return message


def _drop_handlers() -> None:
    """Leave the program's signal handlers to the program: a checkpoint is not saved from a worker.

    Handlers that do nothing are reset by exec(2); SIG_IGN would be inherited by every ffmpeg that a dataset starts.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else lambda _number, _frame: None)


def exit_code(status: int) -> int | None:
    """A wait status as multiprocessing gives it: -N for signal N; None when somebody else took it."""
    return None if status < 0 else os.waitstatus_to_exitcode(status)
