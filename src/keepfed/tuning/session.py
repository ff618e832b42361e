"""One tuning session: start the program, listen, end it when enough is known.

The program is stopped from here and never by an exception out of `next()`: programs catch those, frameworks write
checkpoints on them, and one rank that raises leaves the others waiting in a collective for ever. A signal to the whole
process group is what a person at the keyboard would send.

The end must not hang on a loader that hardly matters: a sanity check of two batches, or a short evaluation that would
need ten more epochs to settle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from keepfed.events import Event, Window
from keepfed.tuning.results import LoaderResult, counting, share_of
from keepfed.tuning.summary import Tally

POLL_S = 0.2
"""Time between two looks at the reports: short for a person, nothing for a core."""

MAIN_SHARE = 0.5
"""A loader with this part of the measured time is what the program is about: its end is always waited for."""

PATIENCE_S = 60.0
"""Others are waited for at least this long after the last one settled; longer if settling took longer."""

HOPELESS_S = 60.0
"""When torch's own iterator has run every loader for this long, no other kind is expected any more."""

AFTER_INTERRUPT_S = 20.0
"""Time for the program to save and end after a Ctrl-C, before it is told more firmly."""

INTERRUPTED = 130
"""128 + SIGINT: what shells report for a program that ended by Ctrl-C."""


class Program(Protocol):
    """The running program, as `keepfed.launch` offers it. It passes on to the program what signals tell us."""

    @property
    def interrupted(self) -> bool:
        """Whether somebody pressed Ctrl-C, as far as we can know."""

    def start(self) -> None:
        """Start it."""

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, or None if it still runs after `timeout_s`."""

    def stop(self, grace_s: tuple[float, float] = ...) -> int:
        """End its process group, politely first; its exit code."""


class Reports(Protocol):
    """The events of all its processes, as `keepfed.feed` offers them."""

    def read_new(self) -> list[tuple[int, Event]]:
        """What was reported since the last call, with the pid of the reporter."""


class Ending(Enum):
    """Why a session ended."""

    SETTLED = "settled"
    TIME_UP = "time-up"
    HOPELESS = "hopeless"
    PROGRAM_ENDED = "program-ended"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended."""

    ending: Ending
    """Why."""

    code: int
    """The program's exit code, 128 + n after signal n."""

    results: tuple[LoaderResult, ...]
    """What was learned."""

    seconds: float
    """How long the program ran."""

    @property
    def exit_code(self) -> int:
        """The exit code of `keepfed tune`, see docs/design/tune.md."""
        if self.ending is Ending.INTERRUPTED:
            return INTERRUPTED
        if self.ending is Ending.PROGRAM_ENDED and self.code != 0:
            return self.code
        return verdict_code(self.results)


def verdict_code(results: tuple[LoaderResult, ...]) -> int:
    """0 when every loader that counts has settled, 4 when not, 3 when nothing was measured."""
    counted = counting(results)
    if not counted:
        return 3
    return 0 if all(result.settled for result in counted) else 4


class Session:
    """Follows one program. `heard` is called for every event that stands for its loader, `enough` once, when the search is over.

    `enough` gets the results and why; with `goes_on` the program is left running then.
    """

    def __init__(
        self,
        program: Program,
        reports: Reports,
        *,
        goes_on: bool,
        max_seconds: float,
        heard: Callable[[Event], None] = lambda _event: None,
        enough: Callable[[tuple[LoaderResult, ...], Ending], None] = lambda _results, _ending: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.program, self.reports = program, reports
        self.goes_on, self.max_seconds = goes_on, max_seconds
        self.heard, self.enough, self.clock = heard, enough, clock
        self.tally = Tally()
        self._over: Ending | None = None
        self._settled_s: dict[object, float] = {}
        self._left_s: float | None = None

    def run(self) -> Outcome:
        """Start the program and stay with it until the session is over."""
        began_s = self.clock()
        self.program.start()
        code = self._follow(began_s)
        self._listen()
        # While it was ours to stop the program, it ended of our signal. Before and after, its end is its own.
        if self._over is not None and not self.goes_on:
            ending = self._over
        elif self.program.interrupted:
            ending = Ending.INTERRUPTED
        else:
            ending = self._over if self._over is not None and code == 0 else Ending.PROGRAM_ENDED
        return Outcome(ending, code, self.tally.results(), self.clock() - began_s)

    def _follow(self, began_s: float) -> int:
        while (code := self.program.wait(POLL_S)) is None:
            self._listen()
            if self.program.interrupted:
                return self._after_interrupt()
            if self._over is None:
                self._over = self._verdict(began_s)
                if self._over is not None:
                    self.enough(self.tally.results(), self._over)
                    if not self.goes_on:
                        return self.program.stop()
        return code

    def _after_interrupt(self) -> int:
        """The program was told too. Telling it twice would cut short what it saves, so it gets its time first."""
        code = self.program.wait(AFTER_INTERRUPT_S)
        return self.program.stop((0.0, 10.0)) if code is None else code

    def _listen(self) -> None:
        now_s, being_ended = self.clock(), self._over is not None and not self.goes_on
        for pid, event in self.reports.read_new():
            if being_ended and isinstance(event, Window):
                continue  # whatever a program does that was told to end, it is no training to be measured
            self.tally.add(pid, event, now_s)
            loader = getattr(event, "loader", None)
            if loader is None or self.tally.decides(pid, loader):
                self.heard(event)

    def _verdict(self, began_s: float) -> Ending | None:
        now_s = self.clock()
        results = self.tally.results()
        for result in results:
            if result.settled:
                self._settled_s.setdefault(result.loader, now_s)
        if self._settled_s:
            last_s = max(self._settled_s.values())
            if not held_up_by(results, waited_s=now_s - last_s, took_s=last_s - began_s):
                return Ending.SETTLED
        if now_s - began_s >= self.max_seconds:
            return Ending.TIME_UP
        return Ending.HOPELESS if self._hopeless(results, now_s) else None

    def _hopeless(self, results: tuple[LoaderResult, ...], now_s: float) -> bool:
        """Training on to --max-seconds would bring nothing: there are loaders, and none that can be tuned."""
        if self.goes_on or not results or any(result.handled for result in results):
            self._left_s = None
            return False
        self._left_s = now_s if self._left_s is None else self._left_s
        return now_s - self._left_s >= HOPELESS_S


def held_up_by(results: tuple[LoaderResult, ...], *, waited_s: float, took_s: float) -> tuple[LoaderResult, ...]:
    """The unsettled loaders that are worth waiting for, once others have settled.

    `waited_s` have passed since the last one settled, which had taken `took_s`. A loader with most of the measured time is
    always waited for, one with a minor share never, the others for a while. One that has ended reports no more.
    """
    total_s = sum(result.measured_s for result in results)
    patient = waited_s < max(PATIENCE_S, took_s)
    return tuple(
        result
        for result in counting(results)
        if not result.settled and not result.ended and (patient or share_of(result, total_s) >= MAIN_SHARE)
    )
