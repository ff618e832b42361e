"""The nursery's own side: an interpreter that imports torch once and forks a zygote whenever it is asked (nursery.py).

Imports at the top are few: until `main` has said who it belongs to, a trainer that is killed would leave it behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_DATA_BYTES = 1 << 16
_MOST_FDS = 253  # SCM_MAX_FD, unix(7)


def main(control: int, trainer: int, trainer_pid: int, tied: bool) -> NoReturn:
    """Be a nursery until the trainer is gone. `trainer` is its pidfd; `tied`: whether its main thread started us."""
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NAME, b"keepfed-nursery")  # what ps and top show instead of a long command line
    if tied:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != trainer_pid:
            os._exit(0)  # it was gone before the line above
    importlib.import_module("keepfed.loader.unpack")  # brings torch, numpy and our worker
    gc.collect()
    gc.freeze()
    _Nursery(socket.socket(fileno=control), trainer).serve()
    os._exit(0)


class _Nursery:
    def __init__(self, control: socket.socket, trainer: int) -> None:
        self._control = control
        self._trainer = trainer
        self._carried: tuple[int, list[int]] = 0, []
        self._zygotes: dict[int, int] = {}  # pidfd -> pid

    def serve(self) -> None:
        """Until the trainer is gone, or has let go."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._trainer, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._trainer:
                    return
                if fd != self._control.fileno():
                    poll.unregister(fd)
                    self._reap(fd)
                elif not self._obey(poll):
                    return

    def _obey(self, poll: select.poll) -> bool:
        from keepfed.loader.control import descriptors, read

        space = socket.CMSG_SPACE(_MOST_FDS * 4)
        data, ancillary, _, _ = self._control.recvmsg(_DATA_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        kind, *rest = read(data)
        if kind == "preload":
            _preload(**rest[0])
        else:
            serial, *rest = rest
            fds = [
                *(self._carried[1] if self._carried[0] == serial else _closed(self._carried[1])),
                *descriptors(ancillary),
            ]
            self._carried = serial, fds
            if kind == "hatch":
                self._hatch(poll, fds, *rest)
        return True

    def _hatch(self, poll: select.poll, fds: list[int], trainer_pid: int, output: list[int], sizes: list[int]) -> None:
        from keepfed.loader.control import readable

        self._carried = 0, []
        control = socket.socket(fileno=fds.pop(0))
        if readable(control.fileno(), 0, 0):
            control.close()
            _closed(fds)  # the iterator is gone before its first worker came to be
            return
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: the trainer sees the socket hang up
            sys.stderr.write(f"keepfed: no process for the workers: {error}\n")
        else:
            if pid == 0:
                self._become_zygote(control, fds, trainer_pid, output, sizes)
            pidfd = os.pidfd_open(pid)
            self._zygotes[pidfd] = pid
            poll.register(pidfd, select.POLLIN)
        control.close()
        _closed(fds)

    def _become_zygote(
        self, control: socket.socket, fds: list[int], trainer_pid: int, output: list[int], sizes: list[int]
    ) -> NoReturn:
        from keepfed.loader.unpack import Contents, work_on
        from keepfed.loader.zygote_process import ZygoteProcess

        try:
            self._control.close()
            _closed(list(self._zygotes))
            for number, fd in zip(output, fds[: len(output)], strict=True):
                os.dup2(fd, number)
            _closed(fds[: len(output)])
            job = functools.partial(work_on, Contents(fds[len(output) :], *sizes))
            zygote = ZygoteProcess(control, self._trainer, trainer_pid, job)
            del job  # the zygote alone decides how long the parcel is kept
            zygote.run(announced=False)
        finally:
            os._exit(1)

    def _reap(self, pidfd: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._zygotes.pop(pidfd), 0)
        os.close(pidfd)


def _closed(fds: list[int]) -> list[int]:
    """Close these; nothing is left of them."""
    for fd in fds:
        os.close(fd)
    return []


def _preload(modules: list[str] | None = None, main_path: str | None = None) -> None:
    """As multiprocessing.forkserver.main: what cannot be imported here raises in the worker that needs it."""
    from multiprocessing import process, spawn

    current: Any = process.current_process()
    current._inheriting = True
    try:
        if main_path is not None:
            with contextlib.suppress(Exception, SystemExit):
                spawn.import_main_path(main_path)
    finally:
        del current._inheriting
    for module in modules or ():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
