"""When slow becomes stuck.

A worker that computes for ten minutes, one that waits ten minutes for a download, and one that waits for a lock that
nobody will ever release look alike from a queue that stays empty. torch waits for all three for ever, or gives the run up
with `timeout=`. Here time without progress is counted per worker, and only two things end a worker's life: proof that it
can never go on, or a limit that is far beyond everything that this loader has needed so far.

    pulses of the workers, every second that the program waits in next()
                  │
        a gap between two looks? (Ctrl-Z, a suspended machine) ──▶ forget all timers: it was us who slept
                  │
        heartbeat moved, or nothing in hand ──▶ timer to zero
                  │
        proof (stopped alone, lock without owner, pipe without writer), kept for PROOF_S ──▶ replace
        limit ──▶ warn once, with a stack       5 x limit, while others are well ──▶ replace
        a limit that the user gave ──▶ at once what the user asked for: replace, raise or warn

What counts is only time in which the watcher itself looked: Ctrl-Z, a frozen cgroup, a suspended machine and a debugger
stop the watcher too, and afterwards every worker would look stuck at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal

LONGEST_SLICE_S = 3.0
"""The watcher looks every second; a longer gap between two looks means that the watcher itself was stopped."""
PROOF_S = 5.0
"""How long proof must hold: a tool may stop a worker for an instant to look at its stack."""
FLOOR_S = 120.0
"""No task is called stuck sooner than this unless the user says so."""
FIRST_BATCH_S = 600.0
"""The same before anything was delivered: datasets download, unpack and index themselves on first use."""
TIMES_THE_SLOWEST = 20.0
"""... or than this many times the 99th percentile of the tasks so far."""
TIMES_THE_LIMIT = 5.0
"""Without proof, a worker is given up only after this many times the limit."""
REMEMBERED_TASKS = 1_000

Action = Literal["replace", "raise", "warn"]


@dataclass(frozen=True, slots=True)
class Pulse:
    """One look at one worker."""

    worker: int
    """Its id."""
    serial: int
    """Which process it is: an id is used again after a replacement."""
    task: Hashable
    """The batch that it has to make; None when it has nothing to do."""
    beat: Hashable
    """Changes with every sample and every phase."""
    proof: str = ""
    """Why it can never go on; empty when nothing proves that."""
    traced: bool = False
    """Whether a debugger or a freezer holds it: then it is somebody's business that it stands still."""
    starting: bool = False
    """Whether it has yet to come up (imports, unpickling): that takes its time, whatever limit the user gave for batches."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about one worker."""

    worker: int
    """Its id."""
    action: Action
    """Replace the worker, raise in the program, or say so."""
    stuck_s: float
    """Watched time without progress."""
    limit_s: float
    """The limit that this is measured by."""
    proof: str
    """The proof, where there is one."""


@dataclass(slots=True)
class _Timer:
    serial: int
    task: Hashable
    beat: Hashable
    stuck_s: float = 0.0
    proof: str = ""
    proven_s: float = 0.0
    warned: bool = False

    def same_as(self, pulse: Pulse) -> bool:
        return (self.serial, self.task, self.beat) == (pulse.serial, pulse.task, pulse.beat)


@dataclass(slots=True)
class Watchdog:
    """Counts time without progress and says when it is too much."""

    limit_s: float | None = None
    """The user's `stall_timeout`; None for a limit that follows what tasks have needed so far."""
    on_stall: Action = "replace"
    """What the user wants done at that limit."""
    _timers: dict[int, _Timer] = field(default_factory=dict)
    _last_s: float | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_TASKS))
    _given_up: set[Hashable] = field(default_factory=set)

    def finished(self, seconds: float) -> None:
        """A task was finished after this long."""
        self._recent.append(seconds)

    def limit(self) -> float:
        """Seconds without progress after which a worker is called stuck."""
        if self.limit_s is not None:
            return self.limit_s
        if not self._recent:
            return FIRST_BATCH_S
        slowest = sorted(self._recent)
        percentile = slowest[int(0.99 * (len(slowest) - 1))]
        return max(FLOOR_S, TIMES_THE_SLOWEST * percentile)

    def away(self) -> None:
        """The program left next(): until it waits again nobody looks, and what passes does not count."""
        self._last_s = None

    def stuck_s(self, worker: int) -> float:
        """For how long this worker has been seen at one place."""
        timer = self._timers.get(worker)
        return timer.stuck_s if timer is not None else 0.0

    def look(self, now_s: float, pulses: Iterable[Pulse]) -> list[Verdict]:
        """Take one look at all workers; at most one of them is to be replaced."""
        pulses = list(pulses)
        slice_s = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        if slice_s > LONGEST_SLICE_S:
            self._timers.clear()
            slice_s = 0.0
        timers = self._timers
        self._timers = {pulse.worker: self._advanced(timers.get(pulse.worker), pulse, slice_s) for pulse in pulses}
        return self._verdicts(pulses)

    def _advanced(self, timer: _Timer | None, pulse: Pulse, slice_s: float) -> _Timer:
        if timer is None or not timer.same_as(pulse) or pulse.task is None or pulse.traced:
            return _Timer(pulse.serial, pulse.task, pulse.beat)
        timer.stuck_s += slice_s
        timer.proven_s = timer.proven_s + slice_s if pulse.proof and pulse.proof == timer.proof else 0.0
        timer.proof = pulse.proof
        return timer

    def _verdicts(self, pulses: list[Pulse]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        usual_s = self.limit()
        for pulse in pulses:
            timer = self._timers[pulse.worker]
            limit_s = max(usual_s, FIRST_BATCH_S) if pulse.starting else usual_s
            action = self._action(timer, limit_s)
            if action == "replace" and any(verdict.action == "replace" for verdict in verdicts):
                continue  # one at a time: the next look is a second away
            if action is not None:
                verdicts.append(Verdict(pulse.worker, action, timer.stuck_s, limit_s, timer.proof))
                self._said(timer, action)
        return verdicts

    def _said(self, timer: _Timer, action: Action) -> None:
        """A verdict is given once; who is asked to go gets as much time again before the next."""
        timer.warned = True
        if action == "replace":
            self._given_up.add(timer.task)
            timer.stuck_s = timer.proven_s = 0.0
        elif action == "raise":
            timer.stuck_s = 0.0  # a program that goes on after the exception waits as long again

    def _action(self, timer: _Timer, limit_s: float) -> Action | None:
        if timer.proven_s >= PROOF_S and self.on_stall == "replace":
            return "replace"
        if timer.stuck_s < limit_s:
            return None
        if self.limit_s is not None and self.on_stall != "warn":
            return self.on_stall
        if self.limit_s is None and self._beyond_hope(timer, limit_s):
            return self.on_stall
        return None if timer.warned else "warn"

    def _beyond_hope(self, timer: _Timer, limit_s: float) -> bool:
        """Without proof: once for each batch, and not when all are stuck: new workers would not mend a file system."""
        if self.on_stall == "warn" or timer.stuck_s < TIMES_THE_LIMIT * limit_s:
            return False
        all_stuck = len(self._timers) > 1 and all(other.stuck_s >= limit_s for other in self._timers.values())
        return not all_stuck and timer.task not in self._given_up
