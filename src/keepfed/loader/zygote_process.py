"""The zygote's own side: fork workers when asked, say how they ended, and keep an understudy (zygote.py has the picture).

An understudy is a copy of the zygote that waits for its end. It is forked once the zygote has lived for a moment, so that
an epoch of half a second does not pay for it (the page tables of a trainer of many GB are copied), and then waits in one
poll(2) for the end of the zygote or of the trainer. A zygote out of a nursery is small and has one at once.
Everything that it needs it has inherited: the dataset as it was at `iter()`, the control socket, a pidfd of the trainer.

What a zygote had taken from the control socket when it was killed is known to nobody. So every order to fork carries the
generation of the zygote that it was meant for, and a successor drops those that were meant for one before it: a worker is
never started twice, and never from an order whose sender believes it lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any, NoReturn

from keepfed.loader.arena import Region, leave_regions
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.control import DATA_BYTES, FDS_BYTES, descriptors, read, readable, tell
from keepfed.loader.oom import WORKER_POINTS, ZYGOTE_POINTS, offer

UNDERSTUDY_AFTER_S = 0.2
"""How long a zygote has lived, or has been without an understudy, when it forks one."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
WorkerMain = Callable[[int, WorkerEnd, Region], None]


class ZygoteProcess:
    """The zygote's own side. Never returns to the program's code that it was forked from."""

    def __init__(
        self, control: socket.socket, trainer: int, trainer_pid: int, main: WorkerMain, generation: int = 0
    ) -> None:
        """`trainer` is a pidfd."""
        self._control = control
        self._trainer = trainer
        self._trainer_pid = trainer_pid
        self._main = main
        self._generation = generation
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> serial, pid
        self._understudy: tuple[int, int] | None = None  # pidfd, pid
        self._understudy_due_s = 0.0
        self._sigchld = signal.getsignal(signal.SIGCHLD)
        self._mask: set[int] = set()

    def run(self, *, announced: bool = True) -> NoReturn:
        """Be a zygote until the end. `announced`: whether the trainer knows this process already."""
        status = 1
        try:
            if announced:
                self._understudy_due_s = time.monotonic() + UNDERSTUDY_AFTER_S
            else:
                self._announce()
            gc.freeze()  # a collection here or in a worker must not run the trainer's finalizers, nor touch its pages
            leave_regions()
            offer(ZYGOTE_POINTS)
            os.environ["KEEPFED_WORKER"] = "1"
            _drop_handlers()
            # Not for a zygote: whoever sends it to a whole process group asks the trainer, which may want its last batches.
            # Blocked, and not ignored, it reaches a worker also in the moment after its fork.
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would keep no exit status for us
            if self._serve():
                self._reap()
            status = 0
        finally:
            os._exit(status)

    def _announce(self) -> None:
        own = os.pidfd_open(os.getpid())
        self._say("hatched", self._generation, os.getpid(), fds=[own])
        os.close(own)

    def _serve(self) -> bool:
        """Until the trainer says quit (True) or is gone (False: then the kernel kills the workers)."""
        while True:
            events = self._poll()
            if self._trainer in events:
                return False
            for fd in events:
                if fd in self._children:
                    self._report_exit(fd)
                elif self._understudy is not None and fd == self._understudy[0]:
                    self._lose_understudy()
                elif not self._obey():
                    return True
            if self._understudy is None and time.monotonic() >= self._understudy_due_s:
                self._keep_understudy()

    def _poll(self) -> list[int]:
        """The descriptors that have something to say; none when an understudy is due."""
        poll = select.poll()
        for fd in (self._control.fileno(), self._trainer, *self._children):
            poll.register(fd, select.POLLIN)
        if self._understudy is not None:
            poll.register(self._understudy[0], select.POLLIN)
            return [fd for fd, _ in poll.poll()]
        return [fd for fd, _ in poll.poll(max(0.0, self._understudy_due_s - time.monotonic()) * 1000 + 1)]

    def _obey(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(DATA_BYTES, FDS_BYTES, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = descriptors(ancillary)
        kind, *rest = read(data)
        if kind == "fork":
            self._fork(fds, *rest)
        elif kind == "term" and rest[0] in {pid for _, pid in self._children.values()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rest[0], signal.SIGTERM)
        return bool(kind != "quit")

    def _fork(self, fds: list[int], generation: int, serial: int, worker_id: int, region_bytes: int) -> None:
        zygote = os.getpid()
        try:
            if generation != self._generation:
                return  # meant for a zygote that is dead: the trainer takes this worker for dead as well
            pid = os.fork()
            if pid == 0:
                self._become_worker(zygote, worker_id, region_bytes, fds)
        except OSError as error:  # too many processes, or no memory
            self._say("failed", serial, str(error))
            return
        finally:
            for fd in fds:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = serial, pid
        self._say("forked", serial, pid, fds=[pidfd])

    def _become_worker(self, zygote: int, worker_id: int, region_bytes: int, fds: list[int]) -> NoReturn:
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != zygote:
                os._exit(1)  # the zygote was gone before the line above
            offer(WORKER_POINTS - ZYGOTE_POINTS)
            self._control.close()
            self._let_go_of_children()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
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
        own = [self._understudy] if self._understudy is not None else []
        for pid in [pid for _, pid in (*self._children.values(), *own)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if own:
            self._lose_understudy()
        for pidfd in list(self._children):
            self._report_exit(pidfd)

    def _say(self, *message: Any, fds: list[int] | None = None) -> None:
        tell(self._control, message, fds or [])

    def _let_go_of_children(self) -> None:
        """In a child: the others are no children of this process."""
        for pidfd in self._children:
            os.close(pidfd)
        self._children.clear()
        if self._understudy is not None:
            os.close(self._understudy[0])
            self._understudy = None

    # ---- the understudy ---------------------------------------------------------------------------------------------

    def _keep_understudy(self) -> None:
        """Fork one. It returns from here as well, as the zygote, when this process has died before the trainer."""
        zygote = os.pidfd_open(os.getpid())
        try:
            pid = os.fork()
            if pid == 0:
                self._wait_for_cue(zygote)
                return
            self._understudy = os.pidfd_open(pid), pid
        except OSError:  # too many processes, or no memory: perhaps later
            self._understudy_due_s = time.monotonic() + 10 * UNDERSTUDY_AFTER_S
        finally:
            os.close(zygote)

    def _wait_for_cue(self, zygote: int) -> None:
        """Be the understudy: come back as the zygote, or not at all. A zygote that is told to quit ends us first."""
        try:
            self._let_go_of_children()
            poll = select.poll()
            poll.register(zygote, select.POLLIN)
            poll.register(self._trainer, select.POLLIN)
            poll.poll()
            if readable(self._trainer, 0):
                os._exit(0)
            self._generation += 1
            self._understudy_due_s = time.monotonic() + UNDERSTUDY_AFTER_S
            self._announce()
        except BaseException:
            os._exit(1)

    def _lose_understudy(self) -> None:
        if self._understudy is not None:
            pidfd, pid = self._understudy
            self._understudy = None
            self._understudy_due_s = time.monotonic() + UNDERSTUDY_AFTER_S
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _drop_handlers() -> None:
    """Leave the program's signal handlers to the program: a checkpoint is not saved from a worker.

    Handlers that do nothing are reset by exec(2); SIG_IGN would be inherited by every ffmpeg that a dataset starts.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else lambda _number, _frame: None)
