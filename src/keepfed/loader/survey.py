"""What would lift the limit? Measured once, in `keepfed tune`, when a loader has settled and before that is said.

    settled ─▶ stock up ─▶ probe ─▶ hand out the stock ─▶ go on ─▶ Surveyed, Settled ─▶ launcher
               next() waits while   a child times         the real steps, with every batch ready
               workers make real    samples while         and no worker at work: their time is what
               batches ahead        they rest             no loader can undercut

The ceiling is no model. The batches are those that the program would have got anyway, each once and in order; the program only
finds them ready, for as long as the stock lasts. On CUDA the steps are timed by events on the program's own stream: the host,
which runs ahead, may have been through them long before.

Where several ranks train in lock step nothing is held up: the others would wait, and be what is measured.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import time
from itertools import pairwise
from statistics import median
from typing import Any

from keepfed.errors import LoaderError
from keepfed.events import Event, Settled, Surveyed
from keepfed.loader.arena import SMALLEST_REGION, Region
from keepfed.loader.channel import TrainerEnd
from keepfed.loader.crew import Crew
from keepfed.loader.probe import ERRAND
from keepfed.loader.stall import StallMeter
from keepfed.policy.cost import Bounds
from keepfed.policy.window import GAP, Observation

logger = logging.getLogger("keepfed")
FEWEST_BATCHES = 8
"""With fewer batches in stock nothing is timed: single steps are no measurement."""
MOST_BATCHES = 64
STEPS_S = 1.0
"""So long the stock should last."""
FILL_S = 3.0
"""The program is held up for about so long at most while the stock is made; FEWEST_BATCHES may take three times that."""
PROBE_S = 2.0
"""How long the child times samples."""
START_S = 5.0
"""How much longer may pass until it answers: where workers are spawned it has to import the program first."""
MEMORY_SHARE = 0.25
"""Of the memory for this loader, what the stock may take."""
SAMPLES = 48
SHORTEST_GAP_S = 0.1
"""A pause in the steps that is shorter is none, however short the steps are."""
_PATIENCE_BATCHES = 64  # for the GPU to come to the end of the stock


class Survey:
    """One loader's, from the moment when it settled."""

    def __init__(self, settled: Settled, window: Observation, bounds: Bounds) -> None:
        """`window` was the last one, `bounds` what the loader may use."""
        self._settled, self._window = settled, window
        self._memory_bytes, self._cores = bounds.memory_bytes, bounds.cores
        self._crew: Crew | None = None
        self._steps = Steps()
        self._left = self._ready = 0
        self._wait_s = 0.0
        self._at_s: list[float] = []
        self._patience = _PATIENCE_BATCHES
        self._probe: dict[str, Any] | None = None

    def begin(self, iterator: Any) -> bool:
        """Make the stock and let samples be timed, while the program waits. Whether there are steps to be timed now."""
        crew = _crew_of(iterator)
        if crew is None:
            return False
        try:
            self._ready = self._left = self._stock(crew)
            self._probe = ask_probe(crew)
            if self._ready >= FEWEST_BATCHES:
                self._crew = crew
                self._at_s.append(time.perf_counter())
                self._steps.begin()
        finally:
            if self._crew is None:
                self._ready = self._left = 0
                crew.go_on()
        return self._crew is not None

    def _stock(self, crew: Crew) -> int:
        """How many batches are ready."""
        began_s, wanted = time.monotonic(), self._wanted(crew)
        ready = crew.stock_up(wanted, began_s + FILL_S)
        fewest = min(wanted, FEWEST_BATCHES)
        return ready if ready >= fewest else crew.stock_up(fewest, began_s + 3 * FILL_S)

    def _wanted(self, crew: Crew) -> int:
        """As many batches as last for a while and are made in a while, within memory and this epoch."""
        window = self._window
        step_s = max(1e-4, (window.elapsed_s - window.starve_s) / max(1, window.batches))
        rate = window.batches / max(1e-9, window.elapsed_s)
        enough = max(FEWEST_BATCHES, min(MOST_BATCHES, math.ceil(STEPS_S / step_s), math.floor(FILL_S * rate)))
        fits = int(MEMORY_SHARE * self._memory_bytes / window.batch_bytes) if window.batch_bytes > 0 else enough
        return max(1, min(enough, fits, crew.undelivered_count()))

    def delivered(self, now_s: float, wait_s: float) -> bool:
        """A batch was delivered at `now_s` after so long in `next()`; whether all is measured."""
        if self._left > 0:
            self._left -= 1
            self._wait_s += wait_s
            self._at_s.append(now_s)
            if self._left == 0:
                self._steps.end()
                self._release()
                if self._had_gap():
                    self._ready = 0
        self._patience -= self._left == 0
        return self._left == 0 and (not self._ready or self._steps.seconds() is not None or self._patience <= 0)

    def _had_gap(self) -> bool:
        """Whether the program did something else in between, such as an evaluation: that is no step."""
        cycles_s = [later - earlier for earlier, later in pairwise(self._at_s)]
        return max(cycles_s, default=0.0) > max(GAP * median(cycles_s), SHORTEST_GAP_S) if cycles_s else False

    def broken_off(self) -> None:
        """The program has left the epoch: what is in stock nobody will take."""
        if self._left:
            self._ready = self._left = 0
            self._release()

    def _release(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            with contextlib.suppress(Exception):  # it has ended, and has no more to make
                crew.go_on()

    def events(self) -> list[Event]:
        """What was found, and then that the loader has settled."""
        steps_s = self._steps.seconds() if self._ready else None
        found = Surveyed(
            self._settled.loader,
            self._settled.plan,
            self._ready if steps_s else 0,
            steps_s or 0.0,
            self._wait_s if steps_s else 0.0,
            self._cores,
            self._probe,
        )
        return [found, self._settled]


def _crew_of(iterator: Any) -> Crew | None:
    """The workers that make this iterator's batches, if there are any: a crew without workers makes them at home."""
    crew: Crew | None = None
    with contextlib.suppress(LoaderError):  # they were refused at this moment
        crew = getattr(iterator, "working_crew", None)
    return crew if crew is not None and crew.plan.num_workers > 0 else None


def pids_of(iterator: Any) -> list[int]:
    """The processes that make this iterator's batches."""
    crew = _crew_of(iterator)
    members = crew.roster.members if crew is not None else []
    return [member.forked_pid for member in members if member.forked_pid is not None and not member.gone]


class Steps:
    """How long the steps between two moments take: on CUDA on the GPU, else on the host."""

    def __init__(self) -> None:
        self._meter = StallMeter() if StallMeter.usable() else None
        self._marks: list[Any] = []
        self._seconds: float | None = None

    def begin(self) -> None:
        """The first step begins when this returns."""
        self._marks = [self._mark()]

    def end(self) -> None:
        """The last step was begun, and on the host it is over."""
        self._marks.append(self._mark())

    def _mark(self) -> Any:
        return time.perf_counter() if self._meter is None else self._meter.mark()

    def seconds(self) -> float | None:
        """None as long as they are not over, and where they could not be timed (while a CUDA graph was captured)."""
        if self._seconds is None and len(self._marks) == 2 and None not in self._marks:
            first, last = self._marks
            self._seconds = last - first if self._meter is None else self._meter.between(first, last)
        return self._seconds


def ask_probe(crew: Crew) -> dict[str, Any] | None:
    """What a child finds that times samples which come next anyway; None where it finds nothing or does not answer in time."""
    indices = crew.sample_indices(SAMPLES)
    if not indices:
        return None
    try:
        end = crew.roster.pool().send_out(ERRAND, Region.create(SMALLEST_REGION))
        with contextlib.closing(end):
            end.send("probe", indices, PROBE_S)
            found = _answer(end)
    except (LoaderError, OSError):
        # No descriptors, no process, no zygote; or it was quicker in ending than we in asking.
        return None
    return found if found and found["samples"] else None


def _answer(end: TrainerEnd) -> dict[str, Any] | None:
    """First the probe says who it is, so that one that comes to no end can be killed; then what it found."""
    began = _next_message(end, START_S)
    if began is None:
        return None
    pidfd = os.pidfd_open(began[1])
    try:
        answer = _next_message(end, PROBE_S + START_S)
        if answer is None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return None if answer is None else answer[1]


def _next_message(end: TrainerEnd, seconds: float) -> tuple[Any, ...] | None:
    until_s = time.monotonic() + seconds
    poll = select.poll()
    poll.register(end.sock, select.POLLIN)
    while not end.ended and time.monotonic() < until_s:
        end.flush()
        poll.poll(100)
        end.receive()
        if (message := end.peek()) is not None:
            end.done_with_first()
            return message
    return None
