"""The workers of one iterator: start, add, retire, hear, watch, end.

    Pool.add(id) ──▶ zygote ──fork──▶ worker          Pool.hear(timeout): wait for messages and deaths
    worker.end.send(…) ───socket────▶                 worker.end.inbox    ◀── results
    Pool.quit(worker) ────"quit"────▶                 worker.gone         ◀── pidfd: the process is dead, whatever
                                                                             multiprocessing's sentinel would say

Death is what a pidfd says (pidfd_open(2)): a pipe or sentinel stays open as long as a grandchild holds it, and a waitpid may
find that somebody else took the status. What a worker sent before it died still counts, so its socket is emptied first.
A worker of which no pidfd came before its zygote died is dead when nobody holds the other end of its socket any more: until
then it may be running, and its region must not be anybody else's.

Ending (`shut_down`): ask every worker to quit; after 0.5 s SIGTERM, from the zygote, since torch's handler exits with 0 only
when its parent sent it; after another 0.5 s SIGKILL; then the zygote, whose end kills what is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

from keepfed.errors import LoaderError
from keepfed.loader.arena import Region
from keepfed.loader.channel import TrainerEnd, channel_pair
from keepfed.loader.control import readable
from keepfed.loader.descriptors import explained
from keepfed.loader.forks import close_in_children
from keepfed.loader.handle import Worker
from keepfed.loader.zygote import Zygote, exit_code, reap
from keepfed.text import say

GRACE_S = 0.5
"""How long a worker may take to end by itself, and again after SIGTERM."""
SUCCESSION_WAITS = 10
"""For how many waits of a second an understudy may take to announce itself. Waits, not seconds: a job that was suspended
with its understudies finds its clock far ahead, and loses one."""


class Pool:
    """Worker processes, forked from one zygote."""

    def __init__(self, zygote: Zygote) -> None:
        """Workers will be forked from this zygote, which may have yet to hatch."""
        self.owner_pid = os.getpid()
        self.workers: dict[int, Worker] = {}
        self.closed = False
        self._poll = select.poll()
        self._at: dict[int, Worker | None] = {}
        self._started = 0
        self._zygote = zygote
        self._watch(zygote.control.fileno(), None)
        if zygote.hatched:
            self._watch(zygote.pidfd, None)
        close_in_children(self)

    def add(self, worker_id: int, region: Region, opening: Iterable[tuple[Any, ...]] = ()) -> Worker:
        """Start a worker. It can be sent tasks at once; they wait in its socket until it is up, after these `opening` messages.

        Raises LoaderError when the zygote was killed: by now, nothing else has the dataset as it was at `iter()`.
        """
        self._await_successor()
        if self.barren():
            raise LoaderError(say("loader.zygote_gone"), next_step=say("loader.zygote_gone_next"))
        ours, theirs = channel_pair()
        self._started += 1
        worker = Worker(worker_id, self._started, self._zygote.generation, self, ours, region)
        self._zygote.fork_worker(worker.serial, worker_id, theirs, region)
        theirs.close()
        for message in opening:
            worker.end.send(*message)
        self._watch(ours.fileno(), worker)
        self.workers[worker_id] = worker  # last: a worker that is known is heard, whenever Ctrl-C comes
        return worker

    def send_out(self, errand: int, region: Region) -> TrainerEnd:
        """Start a process that makes no batches; `worker(errand, end, region)` says what it does. Its end is what is returned.

        Nobody watches it: when it is gone, or never came to be, that end has `ended`. It dies with the zygote.
        """
        ours, theirs = channel_pair()
        self._started += 1
        try:
            self._zygote.fork_worker(self._started, errand, theirs, region)
        finally:
            theirs.close()
        return TrainerEnd(ours)

    def barren(self) -> bool:
        """Whether no worker can be added any more, since the zygote was killed and nobody took its place."""
        return not self._zygote.alive()

    def renew(self, fork: Callable[[int], Zygote]) -> None:
        """Fork workers from a new zygote from now on. Those of the present one die with it.

        `fork(generation)` makes it. An old one that Ctrl-C saves from being told to quit ends when its socket is closed.
        """
        old, new = self._zygote, fork(self._zygote.generation + 1)
        new.fallen = old.pid, None
        self._unwatch(old.control.fileno())
        self._unwatch(old.pidfd)
        self._zygote = new
        self._watch(new.control.fileno(), None)
        self._watch(new.pidfd, None)
        old.quit(GRACE_S)

    def generation(self) -> int:
        """How many zygotes there were before the present one."""
        return self._zygote.generation

    def fallen(self) -> tuple[int, int | None]:
        """Pid and exit code of the zygote that died last; the code is None where it is not known."""
        return self._zygote.fallen

    def quit(self, worker: Worker) -> None:
        """Ask this worker to end after what it has in hand."""
        if not worker.quitting:
            worker.quitting = True
            worker.end.send("quit")

    def hear(self, timeout_s: float | None) -> bool:
        """Wait for news: messages go to the workers' inboxes, deaths to `gone`. False when there will be none any more."""
        if self.closed or not (self._living() or self._zygote.alive()):
            return False
        if self._note() or self._bury_unborn():
            return True  # Ctrl-C came between their receipt and here
        for worker in self.workers.values():
            if worker.end.outbox and worker.end.sock.fileno() in self._at:
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
        dead: list[Worker] = []
        try:
            self._await_successor()
            if self._zygote.hatched:  # else it ends as soon as it hatches, and nobody waits for that
                self._end_workers()
        finally:  # Ctrl-C in the middle: the end of the zygote is the end of all that is left
            self._zygote.quit(GRACE_S)
            dead += [worker for worker in self.workers.values() if worker.gone and not worker.abandoned]
            self.close()
        return dead

    def _end_workers(self) -> None:
        for worker in self.workers.values():
            self.quit(worker)
        self._wait_for_end(GRACE_S)
        for worker in self._living():
            if worker.is_up and worker.pid is not None:  # else `pid` waits for a zygote that may have been stopped
                self._zygote.terminate(worker.pid)
        self._wait_for_end(GRACE_S)
        for worker in self._living():
            if worker.is_up:
                worker.kill()
        self._wait_for_end(GRACE_S)

    def abandon(self, worker: Worker) -> None:
        """Take a worker that cannot be killed (state D) for gone. What it may still write to must never be used again."""
        worker.end.receive()
        worker.abandoned = worker.gone = True
        self._unwatch(worker.end.sock.fileno())
        self._unwatch(worker.pidfd)

    def forget(self, worker: Worker) -> None:
        """Drop a worker that is gone. One that has its id by now stays."""
        worker.close()
        if self.workers.get(worker.id) is worker:
            del self.workers[worker.id]

    def _living(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if not worker.gone]

    def _wait_for_end(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while self._living() and (left_s := end_s - time.monotonic()) > 0 and self.hear(left_s):
            for worker in self.workers.values():
                worker.end.inbox.clear()

    def _watch(self, fd: int, worker: Worker | None) -> None:
        self._at[fd] = worker
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if fd in self._at:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
            del self._at[fd]

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
                self._bury_unborn()

    def _hear_zygote(self, fd: int) -> None:
        if fd == self._zygote.pidfd:
            self._await_successor()
        gone = not self._zygote.alive()  # before its last words are read
        self._zygote.receive()
        self._note()
        if gone:
            self._unwatch(fd)
            self._unwatch(self._zygote.pidfd)
            self._unwatch(self._zygote.control.fileno())
        self._bury_unborn()

    def _await_successor(self) -> None:
        """If the zygote is dead: wait for the word of its understudy, or for the hang-up that says that there is none."""
        for _ in range(SUCCESSION_WAITS):
            if not self._zygote.dead() or not self._zygote.alive():
                return
            readable(self._zygote.control.fileno(), 1.0)
            self._zygote.receive()
            self._note()
        if self._zygote.dead():
            self._zygote.give_up()

    def _bury_unborn(self) -> bool:
        """Workers whose zygote died before it said that they are there: gone when nobody holds their sockets any more.

        All others are being killed when their zygote dies, and their pidfds will say when they are gone. Returns whether
        there were any.
        """
        unborn = [worker for worker in self.workers.values() if worker.pidfd < 0 and not worker.gone]
        lost = [worker for worker in unborn if worker.generation < self._zygote.generation or self.barren()]
        for worker in lost:
            if worker.end.ended or self._zygote.given_up:
                worker.why = worker.why or ("" if self._zygote.hatched else say("loader.nursery_gone"))
                self._ended(worker)
        return any(worker.gone for worker in lost)

    def _note(self) -> bool:
        """Take note of what the zygote said; whether there was anything."""
        anything = False
        while (first := self._zygote.first()) is not None:
            anything = True
            self._noted(*first)
            self._zygote.done_with_first()
        return anything

    def _noted(self, message: tuple[Any, ...], fds: list[int]) -> None:
        """One thing that the zygote said. May come twice (Ctrl-C in between)."""
        kind, serial, *rest = message
        worker = next((worker for worker in self.workers.values() if worker.serial == serial), None)
        if kind == "hatched":
            pidfd = _pidfd(rest[0], fds)
            if pidfd != self._zygote.pidfd:
                self._unwatch(self._zygote.pidfd)
            self._zygote.told_of(serial, rest[0], pidfd)
            self._watch(pidfd, None)
            self._bury_unborn()
        elif kind == "forked" and worker is None:
            self._zygote.close_first_descriptors()
        elif kind == "forked" and worker is not None:
            pidfd = _pidfd(rest[0], fds)
            worker.forked(rest[0], pidfd)
            self._watch(pidfd, worker)
        elif kind == "failed" and worker is not None:
            worker.why = rest[0]
            self._ended(worker)
        elif kind == "exited" and worker is not None and worker.forked_pid == rest[0] and worker.exitcode is None:
            worker.exitcode = exit_code(rest[1])

    def _ended(self, worker: Worker) -> None:
        worker.end.receive()
        if worker.exitcode is None and worker.pidfd >= 0:
            self._status_of(worker)
        if worker.exitcode is None and not worker.why and self._fatherless(worker):
            worker.orphaned = True
            worker.exitcode = reap(worker.pidfd) if worker.pidfd >= 0 else None
        worker.gone = True
        self._unwatch(worker.end.sock.fileno())
        self._unwatch(worker.pidfd)

    def _status_of(self, worker: Worker) -> None:
        """Wait a moment for the zygote's word on how this worker ended; "unknown" (None) is an answer."""
        poll = select.poll()
        poll.register(self._zygote.control, select.POLLIN)
        end_s = time.monotonic() + GRACE_S
        while worker.exitcode is None and (left_s := end_s - time.monotonic()) > 0:
            dead = self._fatherless(worker)  # before its last words are read
            if not dead:
                poll.poll(left_s * 1000)
            self._zygote.receive()
            self._note()
            if dead:
                return

    def _fatherless(self, worker: Worker) -> bool:
        """Whether the zygote that forked this worker, or was to, is dead."""
        zygote = self._zygote
        return worker.generation < zygote.generation or zygote.dead() or not zygote.alive()


def _pidfd(pid: int, fds: list[int]) -> int:
    """The pidfd that came with a message. One for which there was no room was dropped on its way (recvmsg(2))."""
    with explained(1):
        return fds[0] if fds else os.pidfd_open(pid)
