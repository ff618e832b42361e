"""A worker that makes no progress while the program waits: named, then ended, so that another makes its batch.

    Crew._wait ── once a second ──▶ look: heartbeats ─▶ policy/watchdog.py ─▶ verdict
                                                                               │
        warn     one line: which sample, which phase, for how long, the stack ◀┤
        raise    the same as WorkerStuck out of next()                        ◀┤
        replace  SIGTERM ─ GRACE_S ─▶ SIGKILL ─ ABANDON_S ─▶ abandoned        ◀┘
                    │                    │                      │
                    └──── its pidfd says that it is dead ───────┴──▶ Roster: a new worker, the batch made again

A lock that another thread of the program held when the zygote was forked is held in everything that is forked from it, and
nobody is left to release it. So a batch that meets a dead lock for the second time gets workers of a new zygote, forked from
the program as it is by then.

A process that waits inside the kernel for a device (state D) cannot be killed, and may still write into its region when it
comes back. It is left alone: nobody waits for it, and its region is never used again.

Only time in which the program waits in `next()` counts, and nothing runs while it computes: see `policy/watchdog.py`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from keepfed.errors import WorkerStuck
from keepfed.heartbeat import Heartbeat, Phase
from keepfed.host.stacks import stack_of
from keepfed.host.stuck import proof_of_no_return, read_state
from keepfed.loader import blame, whereabouts
from keepfed.loader.handle import Worker
from keepfed.loader.requests import Requests
from keepfed.loader.roster import Roster
from keepfed.loader.zygote import Zygote
from keepfed.policy.order import Order, Task
from keepfed.policy.watchdog import Pulse, Verdict, Watchdog
from keepfed.text import say

logger = logging.getLogger("keepfed")
SLICE_S = 1.0
"""How often the workers are looked at."""
GRACE_S = 1.0
"""How long a stuck worker may take to end after SIGTERM: files that it has half written may be closed by then."""
ABANDON_S = 5.0
"""How long after SIGKILL a worker that is still there is taken to wait in the kernel."""
RENEWED_AT = (2, 3)
"""The how manieth dead lock of a batch gets it workers of a new zygote. After that the batch is to blame."""


class Watcher:
    """Looks after the workers of one crew."""

    def __init__(
        self, roster: Roster, requests: Requests, dataset: object, fork: Callable[[int], Zygote] | None = None
    ) -> None:
        """`requests` say when a worker is stuck and what is done then; the dataset is named in messages.

        `fork(generation)` makes another zygote from the program as it is; None where workers are not forked from it.
        """
        self._roster, self._dataset, self._fork = roster, dataset, fork
        self._dog = Watchdog(requests.stall_timeout_s, requests.on_stall)
        self.finished = self._dog.finished
        self.slice_s = min(SLICE_S, (requests.stall_timeout_s or SLICE_S) / 4)
        """How long the crew may wait before it looks again."""
        self._last_s: float | None = None
        self._ending: dict[int, tuple[float, bool]] = {}  # serial -> when it was told to end, and whether by SIGKILL
        self._locked: Counter[tuple[int, int]] = Counter()  # epoch and number of batches that met a dead lock

    def begin(self) -> None:
        """The program begins to wait."""
        self._last_s = None

    def look(self, order: Order, epoch: int) -> None:
        """The program still waits. Raises WorkerStuck where it asked for that."""
        now_s = time.monotonic()
        if self._last_s is None:  # the first look of a wait only starts the clock
            self._dog.away()
            self._last_s = now_s
        if now_s - self._last_s < self.slice_s:
            return
        self._last_s = now_s
        workers = self._roster.pool().workers
        for worker in list(workers.values()):
            if worker.serial in self._ending:
                self._press(worker, now_s)
        pulses = [self._pulse(worker, order, epoch) for worker in workers.values() if worker.serial not in self._ending]
        verdicts = self._dog.look(now_s, pulses)
        for verdict in verdicts:
            self._carry_out(verdict, workers[verdict.worker], order, epoch)
        if verdicts:
            self.begin()  # to read a stack takes seconds, in which nobody looked at the others

    def _pulse(self, worker: Worker, order: Order, epoch: int) -> Pulse:
        beat = self._roster.heartbeat(worker)
        task = _in_hand(worker, order, epoch, beat)
        proof, traced = "", False
        if task is not None and self._dog.stuck_s(worker.id) >= SLICE_S and worker.is_up and worker.pid:
            # Its pid as the zygote says it: it may have been stopped before its first heartbeat.
            state = read_state(worker.pid)
            traced = state is not None and (bool(state.tracer_pid) or state.frozen)
            proof = proof_of_no_return(worker.pid)
        waits = task is None or beat.phase is Phase.WAITING_FOR_ROOM  # for the program, or for another worker's batch
        place = None if task is None or waits else (epoch, task.number)
        return Pulse(worker.id, worker.serial, place, beat, proof, traced, starting=not beat.pid)

    def _carry_out(self, verdict: Verdict, worker: Worker, order: Order, epoch: int) -> None:
        said = self._described(verdict, worker, order, epoch)
        if verdict.action == "raise":
            raise WorkerStuck(said, next_step=say("loader.stuck_next"))
        if verdict.action == "warn" or not worker.is_up:
            logger.warning(say("loader.stuck_waits", said=said))
            return
        if verdict.proof == "lock" and self._renewed(order, epoch, worker, said):
            return
        logger.warning(say("loader.stuck_replaced", said=said))
        worker.last_words = say("loader.was_stuck")
        self._ending[worker.serial] = time.monotonic(), False
        worker.terminate()
        if verdict.proof == "stopped":
            worker.wake()

    def _renewed(self, order: Order, epoch: int, worker: Worker, said: str) -> bool:
        """Whether this batch met a dead lock before, and all workers were forked anew because of that: twice at most."""
        task = _in_hand(worker, order, epoch, self._roster.heartbeat(worker))
        if task is None or self._fork is None:
            return False
        self._locked[epoch, task.number] += 1
        if self._locked[epoch, task.number] not in RENEWED_AT:
            return False
        try:
            self._roster.renew(self._fork)
        except OSError:  # no room for another process: this worker alone is replaced
            return False
        for old in self._roster.pool().workers.values():  # killed with their zygote, but for any that cannot be
            self._ending[old.serial] = time.monotonic(), True
        logger.warning(say("loader.stuck_renewed", said=said))
        return True

    def _press(self, worker: Worker, now_s: float) -> None:
        """This worker was told to end, and is still there."""
        told_s, killed = self._ending[worker.serial]
        if not killed and now_s - told_s >= GRACE_S:
            self._ending[worker.serial] = now_s, True
            worker.kill()
        elif killed and now_s - told_s >= ABANDON_S:
            logger.warning(say("loader.abandoned", worker=worker.id, pid=worker.pid))
            self._roster.pool().abandon(worker)

    def _described(self, verdict: Verdict, worker: Worker, order: Order, epoch: int) -> str:
        beat = self._roster.heartbeat(worker)
        task = _in_hand(worker, order, epoch, beat)
        pid = worker.pid if worker.is_up else None
        facts: dict[str, Any] = {
            "worker": worker.id,
            "pid": pid,
            "seconds": verdict.stuck_s,
            "phase": whereabouts.phase(beat),
            "sample": whereabouts.sample(task, beat),
            "place": self._place(task),
        }
        said = say("loader.stuck", **facts)
        if verdict.proof:
            said = say("loader.stuck_why", said=said, why=say(f"loader.proof_{verdict.proof}"))
        stack = stack_of(pid, native=verdict.action == "replace") if pid is not None else None
        return said + (f"\n{stack.in_words(most_frames=8)}" if stack is not None else "")

    def _place(self, task: Task | None) -> str:
        if task is None:
            return blame.name_of(self._dataset)
        return blame.place(self._dataset, task.number, task.index)


def _in_hand(worker: Worker, order: Order, epoch: int, beat: Heartbeat) -> Task | None:
    """The task that it is at, by its own word, else the first that it was sent; None when it has nothing to do."""
    mine = [task for task in order.tasks.values() if task.worker == worker.id and task.sent and not task.ready]
    noted = order.tasks.get(beat.batch) if beat.epoch == epoch else None
    return noted if noted in mine else next(iter(mine), None)
