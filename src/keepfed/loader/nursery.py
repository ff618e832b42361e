"""The clean interpreter in which zygotes hatch when the program wants its workers spawned.

    trainer ──exec──▶ nursery: imports torch, then waits            (one per process, lives as long as the trainer)
       │                 │
       │ ("hatch", …)    ├──fork──▶ zygote of iterator 1 ──fork──▶ worker 0, worker 1, …
       │  with sockets   ├──fork──▶ zygote of iterator 2 ──fork──▶ …
       │  and a parcel   ┆
       └────── control socket of each zygote, sockets and regions of each worker (zygote.py) ──────▶

`spawn` and `forkserver` are chosen to have workers that inherit nothing of the trainer: no CUDA, no threads, no locks. What
it costs under torch is an interpreter and an `import torch` per worker, one to two seconds of CPU each, in every epoch
without persistent workers; eight workers on two cores take ten seconds to their first batch. Nothing of that depends on the
dataset, so it is done once. The nursery imports torch, numpy and our worker, nothing of the program's; it does nothing but
fork, and so stays as clean as a new interpreter. Everything of the program's own (its main module, its dataset, its
environment, working folder and search path as they are at `iter()`) is in a parcel, which every worker unpacks for itself.

The trainer waits for nobody: messages to the nursery, to the zygote and to the workers wait in their sockets until these
are up. A nursery that dies takes what it has not hatched along (their sockets hang up); the next iterator starts another.

`forkserver` has a list of modules that its server imports for all of its children (multiprocessing.set_forkserver_preload);
they are imported in the nursery. Programs with different lists or methods in one process have a nursery for each list.

Endings: the nursery watches a pidfd of the trainer, like every zygote. While it still imports torch it cannot; then
PR_SET_PDEATHSIG does, where the starting thread is the main one (prctl(2): the signal comes when the *thread* ends).
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import spawn, util
from typing import Any

from keepfed.loader.control import control_pair, readable
from keepfed.loader.forks import close_in_children
from keepfed.loader.parcel import Parcel, preparation
from keepfed.loader.worker import WorkerJob
from keepfed.loader.zygote import Zygote

METHODS = ("spawn", "forkserver")
FDS_PER_MESSAGE = 200
"""Descriptors that go with one message; the kernel takes 253 (SCM_MAX_FD, unix(7))."""
_PROGRAM = "import sys; sys.path[:] = {path!r}; from keepfed.loader.nursery_process import main; main({arguments})"


def supported() -> bool:
    """Whether there is an interpreter to start: in a frozen program, sys.executable is the program itself."""
    return not getattr(sys, "frozen", False) and spawn.get_executable() is not None


def hatch(job: WorkerJob, method: str) -> Zygote:
    """A zygote for this job, in the nursery of this process; it may have yet to hatch when this returns.

    Raises what pickling the job raises, RuntimeError while the main module is being imported (see `parcel.preparation`),
    OSError when no process or memory file can be had.
    """
    data = preparation()
    with _lock:
        nursery = _nursery_for(method, data)  # first: it starts while we pickle
    parcel = Parcel.pack(job, data, method)
    try:
        with _lock:
            return nursery.hatch(parcel)
    finally:
        parcel.close()


def close() -> None:
    """End the nurseries of this process. Zygotes that have hatched live on until their iterators end."""
    with _lock:
        while _nurseries:
            _nurseries.popitem()[1].end()


class Nursery:
    """The trainer's handle on one nursery."""

    def __init__(self, preload: dict[str, Any]) -> None:
        """Start the interpreter. `preload`: the modules that it imports besides ours."""
        self.owner_pid = os.getpid()
        self._hatchings = 0
        self._control, theirs = control_pair()
        trainer = os.pidfd_open(self.owner_pid)
        try:
            self.pid = _start([theirs.fileno(), trainer])
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self._control.close()
            raise
        finally:
            os.close(trainer)
            theirs.close()
        close_in_children(self)
        self._send(("preload", preload), [])

    def usable(self) -> bool:
        """Whether it runs, and belongs to this process."""
        return self.owner_pid == os.getpid() and self._pidfd >= 0 and not readable(self._pidfd, 0)

    def hatch(self, parcel: Parcel) -> Zygote:
        """Ask for a zygote with this parcel."""
        control, theirs = control_pair()
        self._hatchings += 1
        output = [fd for fd in (1, 2) if _is_open(fd)]
        fds = [theirs.fileno(), *output, *parcel.fds]
        while len(fds) > FDS_PER_MESSAGE:
            self._send(("carry", self._hatchings), fds[:FDS_PER_MESSAGE])
            del fds[:FDS_PER_MESSAGE]
        self._send(("hatch", self._hatchings, self.owner_pid, output, parcel.sizes), fds)
        theirs.close()
        return Zygote(control)

    def end(self) -> None:
        """Kill the process and wait for it."""
        if self.usable():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self.owner_pid == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self._control.close()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def descriptors(self) -> set[int]:
        """The descriptors that it keeps open in this process."""
        return {self._control.fileno(), self._pidfd}

    def _send(self, message: tuple[Any, ...], fds: list[int]) -> None:
        with contextlib.suppress(OSError):  # a dead nursery is noticed by the hang-up of what it should have hatched
            socket.send_fds(self._control, [marshal.dumps(message)], fds)


def _start(fds: list[int]) -> int:
    tied = threading.current_thread() is threading.main_thread()
    arguments = ", ".join(map(repr, [*fds, os.getpid(), tied]))
    program = _PROGRAM.format(path=[os.path.abspath(entry) for entry in sys.path], arguments=arguments)
    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing starts its own
    command = [os.fsdecode(spawn.get_executable()), *flags, "-c", program]
    environment = {**os.environ, "KEEPFED_WORKER": "1"}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the trainer, also in these 2 s
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=fds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.returncode = 0  # from here on it is ours, by its pidfd: subprocess would warn of it at exit
    return process.pid


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


_lock = threading.RLock()
_nurseries: dict[bytes, Nursery] = {}


def _nursery_for(method: str, data: dict[str, Any]) -> Nursery:
    preload = _preload(data) if method == "forkserver" else {}
    key = marshal.dumps(preload)
    nursery = _nurseries.get(key)
    if nursery is None or not nursery.usable():
        if nursery is not None:
            nursery.end()
        nursery = _nurseries[key] = Nursery(preload)
    return nursery


def _preload(data: dict[str, Any]) -> dict[str, Any]:
    """What multiprocessing's own fork server imports once for all of its children."""
    from multiprocessing import forkserver

    modules = list(forkserver._forkserver._preload_modules)  # type: ignore[attr-defined]  # has no getter
    if "__main__" in modules:
        modules.remove("__main__")
        if _main_is_preloaded() and "init_main_from_path" in data:
            return {"modules": modules, "main_path": data["init_main_from_path"]}
    return {"modules": modules} if modules else {}


def _main_is_preloaded() -> bool:
    """Whether this Python's fork server does what it always said, import the main module (cpython issue 126631)."""
    return sys.version_info >= (3, 12, 8) and sys.version_info[:3] != (3, 13, 0)


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _nurseries.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
