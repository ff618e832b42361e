"""When and whom the soak strikes.

    delivered ──▶ enough since the last strike? ──▶ choose whom, open their pidfds ──▶ at once, or arm a timer ─┐
                                                                                                                ▼
                 the trainer goes on: next(), decoding, sending tasks, waiting in poll(2) ◀── SIGALRM: strike, wherever it is

The handler only sends signals through descriptors that were opened before (pidfd_send_signal(2)): it may run between any
two bytecodes of the loader, and a pid may be somebody else's by then.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterable
from typing import Any

from fault_cases import parent_of

LATEST_S = 0.02
"""Until when a timer may go off: some batches later."""
UNDERSTUDY_S = 1.5
"""The forking process is killed no sooner after the last such kill, or the start of its workers: one death at a time."""


class Striker:
    """Strikes the workers of one loader after another."""

    def __init__(self, seed: str, score: Any, *, stops: float, zygotes: float) -> None:
        """Counts in `score`; `stops` and `zygotes` are shares of the strikes."""
        self._dice, self._score = random.Random(seed), score
        self._stops, self._zygotes = stops, zygotes
        self._in_preparation = 0
        self._quiet = 0  # batches to come out before the next strike
        self._again = False
        self._struck_s = 0.0
        self._targets: list[int] = []
        self._signal = signal.SIGKILL

    def begin(self, *, in_preparation: int) -> None:
        """An epoch begins: so many batches may be in preparation at a time."""
        self._in_preparation, self._again = in_preparation, False
        self._quiet = self._dice.randint(0, in_preparation)
        signal.signal(signal.SIGALRM, self._goes_off)

    def delivered(self) -> None:
        """A batch came out."""
        self._score.batches += 1
        self._quiet -= 1
        if self._struck_s and self._signal is signal.SIGKILL:
            self._score.slowest_s = max(self._score.slowest_s, time.monotonic() - self._struck_s)
        self._struck_s = 0.0

    def strike_or_not(self, iterator: Any) -> None:
        """Perhaps strike now, or soon."""
        if self._quiet > 0 or self._targets:
            return
        # Then all that is in preparation now comes out first: no batch has more than two deaths, of three that end an epoch.
        self._quiet = 1 if not self._again and self._dice.random() < 0.25 else self._in_preparation + 1
        self._again = self._quiet == 1
        alive = [worker.pid for worker in iterator._workers if worker.is_alive()]
        self._aim([pid for pid in alive if pid])
        if self._targets and self._dice.random() < 0.8:
            signal.setitimer(signal.ITIMER_REAL, self._dice.uniform(1e-4, LATEST_S))
        else:
            self._strike()

    def disarm(self) -> None:
        """No timer goes off any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self._let_go()

    def _aim(self, alive: list[int]) -> None:
        dice = self._dice.random()
        if not alive:
            return
        victims = [self._dice.choice(alive)]
        self._signal = signal.SIGKILL
        if dice < self._stops:
            self._signal = signal.SIGSTOP
            self._quiet = self._in_preparation + 1
            self._score.stops += 1
        elif dice < self._stops + self._zygotes:
            time.sleep(UNDERSTUDY_S)
            victims = [parent_of(victims[0])]
            self._score.zygotes += 1
        elif dice > 0.9:
            victims = alive
        self._targets = list(self._opened(victims))

    def _opened(self, pids: Iterable[int]) -> Iterable[int]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if pid not in {0, 1, os.getpid(), os.getppid()}:
                    yield os.pidfd_open(pid)

    def _goes_off(self, _number: int, _frame: object) -> None:
        self._strike()

    def _strike(self) -> None:
        for pidfd in self._targets:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, self._signal)
                self._score.kills += self._signal is signal.SIGKILL
        self._struck_s = time.monotonic() if self._targets else 0.0
        self._let_go()

    def _let_go(self) -> None:
        while self._targets:
            with contextlib.suppress(OSError):
                os.close(self._targets.pop())
