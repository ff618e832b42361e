"""Why a worker died, in words: torch's, which people and programs search for, and then the likely cause.

    wait status, counters of the OOM killer, /dev/shm ──▶ policy/death.py ──▶ one sentence of what to do

Counters are read when the crew starts and at every death, and only differences count.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time

from keepfed.host.headroom import MemoryGauge
from keepfed.host.oom import OomCounter, OomKills
from keepfed.host.probe import SHM_PATH
from keepfed.host.tree import Tree
from keepfed.host.words import amount
from keepfed.loader.handle import Worker
from keepfed.policy.death import Cause, Evidence, Ledger, likely_cause
from keepfed.text import say


def how_it_died(worker: Worker) -> str:
    """torch's words."""
    pid, code = worker.pid, worker.exitcode
    text = f"DataLoader worker (pid(s) {pid}) exited unexpectedly"
    if code is not None and code < 0:
        text += f": DataLoader worker (pid {pid}) is killed by signal: {signal.strsignal(-code)}."
    elif code is not None:
        text += f" with exit code {code}"
    if worker.why or worker.last_words:
        text += f" ({worker.why or worker.last_words})"
    return text


_counter = functools.cache(OomCounter)  # found once: every iter() starts from here


class Coroner:
    """Finds out why processes of one crew died."""

    def __init__(self, tree: Tree | None = None) -> None:
        """`tree` are the kernel's files: those of this machine, if none are given. From here on their counters count."""
        self._tree = tree or Tree()
        self._counter = _counter(self._tree)
        before = self._counter.read()
        self._group, self._host = Ledger(before.group), Ledger(before.host)

    def of_worker(self, worker: Worker) -> str:
        """The likely cause of this worker's death in one or two sentences; nothing where it is in `how_it_died` already.

        Found out once: the counters have moved on when somebody asks again.
        """
        if worker.cause is None:
            worker.cause = "" if worker.why or worker.last_words else self.of_exit(worker.exitcode)
        return worker.cause

    def of_exit(self, code: int | None) -> str:
        """The same for a process that ended with this code, -N for signal N; None where nobody knows it."""
        kills, now_s = self._counter.read(), time.monotonic()
        evidence = Evidence(
            signal=_name(-code) if code is not None and code < 0 else "",
            exit_code=code if code is not None and code >= 0 else None,
            group_kills=self._group.look(kills.group, now_s),
            host_kills=self._host.look(kills.host, now_s),
            shm_left_bytes=_left_in_shm(),
        )
        cause = likely_cause(evidence)
        if cause in (Cause.OOM, Cause.OOM_ON_HOST):
            self._group.explains_one()
            self._host.explains_one()
        return self._in_words(cause, evidence, kills)

    def _in_words(self, cause: Cause, evidence: Evidence, kills: OomKills) -> str:
        if cause is Cause.UNKNOWN:
            return ""
        room = MemoryGauge(self._tree).read() if cause in (Cause.OOM, Cause.OOM_ON_HOST) else None
        said = say(
            f"loader.cause_{cause}",
            signal=evidence.signal,
            code=evidence.exit_code,
            source=kills.source,
            used=amount(room.used_bytes if room is not None else None),
            limit=amount(room.limit_bytes if room is not None else None),
            left=amount(evidence.shm_left_bytes),
        )
        all_at_once = cause is Cause.OOM and kills.all_at_once
        return " ".join([said, say("loader.cause_oom_all")]) if all_at_once else said


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def _left_in_shm() -> int | None:
    with contextlib.suppress(OSError, AttributeError):  # none there; Windows
        found = os.statvfs(SHM_PATH)
        return found.f_bavail * found.f_frsize
    return None
