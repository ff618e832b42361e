"""One run of the command with one value: started, watched from outside, ended in time, nothing of it left.

The time of a run is counted from the first progress that it shows. A limit from the start would measure how long the model
takes to load; and of two programs that are given 60 s, the one that starts 8 workers would be measured for less time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from keepfed.errors import UsageError
from keepfed.tuning.sweep.adoption import Adoption
from keepfed.tuning.sweep.output import Output
from keepfed.tuning.sweep.progress_lines import BarId, Metric, read_progress
from keepfed.tuning.sweep.rate import Sighting
from keepfed.tuning.sweep.screen import Screen
from keepfed.tuning.sweep.usage import TreeWatch, Usage

POLL_S = 0.1
"""Time between two looks at the output."""

AFTER_INTERRUPT_S = 20.0
"""Time for the program to end by itself after a Ctrl-C, which it was told of too."""


class Ending(StrEnum):
    """How a run ended."""

    TIME_UP = "time-up"
    """It was measured for as long as was wanted, and then stopped by us."""
    ENDED = "ended"
    """By itself, with exit code 0."""
    FAILED = "failed"
    """By itself, with another one or by a signal."""
    TOO_SLOW = "too-slow"
    """Stopped by us at the limit for a whole run."""
    NOT_STARTED = "not-started"
    """The command cannot be started."""
    INTERRUPTED = "interrupted"
    """By Ctrl-C, or by a signal that asks us to end."""


_BY_US = {Ending.TIME_UP, Ending.TOO_SLOW, Ending.INTERRUPTED}


@dataclass(frozen=True, slots=True)
class Run:
    """What was seen of one run."""

    value: str
    """What stood for {}."""

    ending: Ending
    """How it ended."""

    exit: int | None
    """Its exit code, 128 + n after signal n; None when it was not started."""

    seconds: float
    """From its start to its end, or to the moment at which we stopped it."""

    tracks: Mapping[BarId, Sequence[Sighting]]
    """What each of its bars showed."""

    usage: Usage | None
    """What it took; None when it was not started."""

    output: Path | None
    """Where its output is; None when it was not started."""

    note: str = ""
    """Why it could not be started, or why the file is not whole."""


class Program(Protocol):
    """A started program, as `keepfed.launch` offers it."""

    @property
    def pid(self) -> int:
        """Its first process."""

    @property
    def told(self) -> int | None:
        """The first signal by which somebody asked us, and so the program, to end."""

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, or None if it still runs after `timeout_s`."""

    def stop(self, grace_s: tuple[float, float] = ..., others: Iterable[Any] = ...) -> int:
        """End it and what is below it, politely first; its exit code."""


Start = Callable[[Sequence[str], int, Mapping[str, str]], AbstractContextManager[Program]]
"""Starts a command with stdout and stderr on a descriptor and an environment. Raises UsageError when it cannot be started."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a run may take."""

    each_s: float
    """From the first progress on."""

    whole_s: float
    """From the start on."""


@dataclass(slots=True)
class Watched:
    """Reads what a program draws."""

    metric: Metric | None
    screen: Screen = field(default_factory=Screen)
    tracks: dict[BarId, list[Sighting]] = field(default_factory=dict)
    first_s: float | None = None
    """When progress was seen for the first time."""

    def take(self, chunks: Iterable[tuple[float, bytes]], *, last: bool = False) -> None:
        """Take in what was written; `last`: nothing follows."""
        for at_s, data in chunks:
            self._read(self.screen.take(data, at_s))
        if last:
            self._read(self.screen.end())

    def _read(self, pieces: Iterable[tuple[float, str]]) -> None:
        for at_s, piece in pieces:
            reading = read_progress(piece) if self.metric is None else self.metric.read(piece)
            if reading is not None and not reading.bar.prepares:
                track = self.tracks.setdefault(reading.bar, [])
                track.append(Sighting(at_s, reading.done, reading.rate))
                moved = reading.done is None or track[0].done != reading.done
                if self.first_s is None and moved:
                    self.first_s = at_s


class Runner:
    """Makes runs, one at a time."""

    def __init__(
        self,
        start: Start,
        limits: Limits,
        environ: Mapping[str, str],
        metric: Metric | None = None,
        *,
        has_gpu: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`start` starts a command, `environ` is its environment; `has_gpu` False spares asking for GPUs all the time."""
        self.start, self.limits, self.environ, self.metric = start, limits, environ, metric
        self.has_gpu, self.clock = has_gpu, clock

    def run(self, value: str, command: Sequence[str], file: Path, seen: Callable[[Watched], None]) -> Run:
        """Run the command to its end or its limit; `seen` is called now and then with what was read so far.

        Raises OSError when `file`, which takes the output, cannot be made.
        """
        output, watched, began_s = Output(file, self.clock), Watched(self.metric), self.clock()
        try:
            with (
                Adoption() as adoption,
                self.start(command, output.descriptor, output.environment(self.environ)) as program,
            ):
                output.begin()
                watch = TreeWatch(program.pid, self.clock) if self.has_gpu else TreeWatch(program.pid, self.clock, None)
                ending, code, seconds = self._follow(program, output, watched, watch, began_s, seen)
                # Also after an end of its own: what it has left behind would run beside the next value.
                program.stop((0.0, 5.0), watch.seen | adoption.adopted())
                adoption.bury()
                usage = watch.usage()
        except UsageError as error:
            return Run(value, Ending.NOT_STARTED, getattr(error, "exit_code", None), 0.0, {}, None, None, str(error))
        finally:
            output.end()
        # What it draws once it was told to end (a bar that is closed after a checkpoint was saved) is no training any more.
        over_s = began_s + seconds if ending in _BY_US else math.inf
        watched.take(((at_s, data) for at_s, data in output.take() if at_s <= over_s), last=True)
        return Run(value, ending, code, seconds, watched.tracks, usage, file, output.lost)

    def _follow(
        self,
        program: Program,
        output: Output,
        watched: Watched,
        watch: TreeWatch,
        began_s: float,
        seen: Callable[[Watched], None],
    ) -> tuple[Ending, int, float]:
        while (code := program.wait(POLL_S)) is None:
            watched.take(output.take())
            watch.look()
            seen(watched)
            now_s = self.clock()
            if program.told is not None:
                break
            measured = watched.first_s is not None and now_s - watched.first_s >= self.limits.each_s
            if measured or now_s - began_s >= self.limits.whole_s:
                watch.look_at_last()
                code = program.stop(others=watch.seen)
                return (Ending.TIME_UP if measured else Ending.TOO_SLOW), code, now_s - began_s
        seconds = self.clock() - began_s
        if program.told is not None:
            if code is None and (code := program.wait(AFTER_INTERRUPT_S)) is None:
                code = program.stop((0.0, 10.0), watch.seen)
            return Ending.INTERRUPTED, code, seconds
        assert code is not None
        return (Ending.FAILED if code else Ending.ENDED), code, seconds
