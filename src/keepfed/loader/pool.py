"""The workers of one iterator: start, add, retire, hear, watch, end.

    Pool.add(id) ──▶ zygote ──fork──▶ worker          Pool.hear(timeout): wait for messages and deaths
    Pool.send(id, …) ─────socket────▶                 worker.end.inbox    ◀── results
    Pool.retire(id)  ─────"quit"────▶                 worker.gone         ◀── pidfd: the process is dead, whatever
                                                                             multiprocessing's sentinel would say

Death is what a pidfd says (pidfd_open(2)): a pipe or sentinel stays open as long as a grandchild holds it, and a waitpid may
find that somebody else took the status. What a worker sent before it died still counts, so its socket is emptied first.

Ending (`close`): ask every worker to quit; after 0.5 s SIGTERM, from the zygote, since torch's handler exits with 0 only
when its parent sent it; after another 0.5 s SIGKILL; then the zygote, whose end kills what is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import weakref

from keepfed.loader.arena import Region
from keepfed.loader.channel import TrainerEnd, channel_pair
from keepfed.loader.forks import close_in_children
from keepfed.loader.lease import LeaseBook
from keepfed.loader.zygote import WorkerMain, Zygote, exit_code

GRACE_S = 0.5
"""How long a worker may take to end by itself, and again after SIGTERM."""


class Worker:
    """One worker process, with the methods of multiprocessing.Process that frameworks call on it."""

    def __init__(self, worker_id: int, pool: Pool, sock: socket.socket, region: Region) -> None:
        self.id = worker_id
        self.end = TrainerEnd(sock)
        self.book = LeaseBook(region)
        self.gone = False
        self.quitting = False
        self.exitcode: int | None = None
        self._pool = weakref.proxy(pool)
        self._pid: int | None = None
        self.pidfd = -1

    @property
    def name(self) -> str:
        """Name of the process, as its own multiprocessing.current_process() says it."""
        return f"keepfed-{self.id}"

    @property
    def pid(self) -> int | None:
        """Process id; waits for the fork. None when it never came to be."""
        while self._pid is None and not self.gone:
            self._pool.hear(1.0)
        return self._pid

    def forked(self, pid: int, pidfd: int) -> None:
        """The zygote forked this worker."""
        self._pid, self.pidfd = pid, pidfd

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
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Pool:
    """Worker processes, forked from one zygote."""

    def __init__(self, main: WorkerMain) -> None:
        """Fork the zygote, in which `main` and all it refers to stay as they are now."""
        self.owner_pid = os.getpid()
        self.workers: dict[int, Worker] = {}
        self.closed = False
        self._poll = select.poll()
        self._at: dict[int, Worker | None] = {}
        self._zygote = Zygote(main)
        for fd in (self._zygote.control.fileno(), self._zygote.pidfd):
            self._watch(fd, None)
        close_in_children(self)

    def add(self, worker_id: int, region: Region) -> Worker:
        """Start a worker. It can be sent tasks at once; they wait in its socket until it is up."""
        ours, theirs = channel_pair()
        worker = self.workers[worker_id] = Worker(worker_id, self, ours, region)
        self._watch(ours.fileno(), worker)
        self._zygote.fork_worker(worker_id, theirs, region)
        theirs.close()
        return worker

    def quit(self, worker: Worker) -> None:
        """Ask this worker to end after what it has in hand."""
        if not worker.quitting:
            worker.quitting = True
            worker.end.send("quit")

    def hear(self, timeout_s: float | None) -> bool:
        """Wait for news: messages go to the workers' inboxes, deaths to `gone`. False when the pool is closed."""
        if self.closed:
            return False
        for worker in self.workers.values():
            if worker.end.outbox and not worker.gone:
                self._poll.modify(worker.end.sock, select.POLLIN | select.POLLOUT)
        for fd, events in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            self._news(fd, events)
        return True

    def close(self) -> None:
        """Close the descriptors in a forked child, without a word to anybody."""
        if self.closed:
            return
        self.closed = True
        for worker in self.workers.values():
            worker.gone = True
            worker.close()
        self._zygote.close()

    def shut_down(self) -> list[Worker]:
        """End all workers and the zygote: gently, then firmly; those that are known to be dead. In a forked child: none."""
        if self.closed:
            return []
        if os.getpid() != self.owner_pid:
            self.close()
            return []
        for worker in self.workers.values():
            self.quit(worker)
        self._wait_for_end(GRACE_S)
        for worker in self._living():
            if worker.pid is not None:
                self._zygote.terminate(worker.pid)
        self._wait_for_end(GRACE_S)
        for worker in self._living():
            worker.kill()
        self._wait_for_end(GRACE_S)
        self._zygote.quit(GRACE_S)
        dead = [worker for worker in self.workers.values() if worker.gone]
        self.close()
        return dead

    def forget(self, worker: Worker) -> None:
        """Drop a worker that is gone."""
        self.workers.pop(worker.id, None)
        worker.close()

    def _living(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if not worker.gone]

    def _wait_for_end(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while self._living() and (left_s := end_s - time.monotonic()) > 0:
            self.hear(left_s)
            for worker in self.workers.values():
                worker.end.inbox.clear()

    def _watch(self, fd: int, worker: Worker | None) -> None:
        self._at[fd] = worker
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._at.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _news(self, fd: int, events: int) -> None:
        worker = self._at.get(fd)
        if worker is None:
            self._hear_zygote(fd)
        elif fd == worker.pidfd:
            self._ended(worker)
        else:
            if events & select.POLLOUT:
                worker.end.flush()
                if not worker.end.outbox:
                    self._poll.modify(fd, select.POLLIN)
            worker.end.receive()
            if worker.end.ended:
                self._unwatch(fd)

    def _hear_zygote(self, fd: int) -> None:
        for (kind, worker_id, pid, *rest), fds in self._zygote.messages():
            worker = self.workers.get(worker_id)
            if kind == "forked":
                if worker is None:
                    os.close(fds[0])
                    continue
                worker.forked(pid, fds[0])
                self._watch(fds[0], worker)
            elif worker is not None and worker.exitcode is None:
                worker.exitcode = exit_code(rest[0])
        if fd == self._zygote.pidfd:
            self._poll.unregister(fd)
            for worker in self._living():
                self._ended(worker)

    def _ended(self, worker: Worker) -> None:
        worker.end.receive()
        self._unwatch(worker.end.sock.fileno())
        self._unwatch(worker.pidfd)
        worker.gone = True
        if worker.exitcode is None:
            self._status_of(worker)

    def _status_of(self, worker: Worker) -> None:
        """Wait a moment for the zygote's word on how this worker ended; "unknown" (None) is an answer."""
        poll = select.poll()
        poll.register(self._zygote.control, select.POLLIN)
        end_s = time.monotonic() + GRACE_S
        while worker.exitcode is None and (left_s := end_s - time.monotonic()) > 0 and poll.poll(left_s * 1000):
            if not self._zygote_alive():
                return
            self._hear_zygote(self._zygote.control.fileno())

    def _zygote_alive(self) -> bool:
        poll = select.poll()
        poll.register(self._zygote.pidfd, select.POLLIN)
        return not poll.poll(0)
