"""All runs of a sweep in their order: every value once per round, every other round backwards.

What is measured later is measured on a warmer host: its files are in the page cache, its GPU is hot. Backwards, each value
is as late in the mean as any other.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from keepfed.tuning.sweep.run import Ending, Run, Runner, Watched
from keepfed.tuning.sweep.values import PLACEHOLDER, with_value


@dataclass(frozen=True, slots=True)
class Turn:
    """One run to be made."""

    number: int
    """Its place among all of them, from 1."""

    value: str
    """What stands for {}."""


def turns(values: Sequence[str], repeat: int) -> list[Turn]:
    """The order of the runs."""
    order = [value for lap in range(repeat) for value in (values if lap % 2 == 0 else values[::-1])]
    return [Turn(number, value) for number, value in enumerate(order, 1)]


def output_file(folder: Path, turn: Turn) -> Path:
    """Where the output of a run goes: its number and its value, as far as that is fit for a file name."""
    word = re.sub(r"[^\w.=-]+", "_", turn.value)[:40]
    return folder / f"output-{turn.number}-{word}.log"


def sweep(
    runner: Runner,
    command: Sequence[str],
    order: Sequence[Turn],
    folder: Path,
    began: Callable[[Turn], None],
    seen: Callable[[Turn, Watched], None],
    ended: Callable[[Turn, Run], None],
) -> tuple[list[Run], bool]:
    """Make the runs. Returns them, and whether somebody interrupted: then the rest is not made. Nor is it after a hopeless one.

    `began`, `seen` and `ended` are told of each. Raises OSError when the output has no place.
    """
    runs: list[Run] = []
    with _Interrupts() as interrupts:
        for turn in order:
            began(turn)
            words, file = with_value(command, turn.value), output_file(folder, turn)
            run = runner.run(turn.value, words, file, partial(seen, turn))
            runs.append(run)
            ended(turn, run)
            if interrupts.came or run.ending is Ending.INTERRUPTED:
                return runs, True
            if _hopeless(run, command):
                break
    return runs, False


class _Interrupts:
    """Notes a Ctrl-C between two runs, where an exception could cut any line in half; during a run the program gets it."""

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, _signum: int, _frame: object) -> None:
        self.came = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _hopeless(run: Run, command: Sequence[str]) -> bool:
    """Whether the other values would end in the same way: the command does not exist, or shows nothing for ten minutes."""
    if run.ending is Ending.NOT_STARTED:
        return PLACEHOLDER not in command[0]
    return run.ending is Ending.TOO_SLOW and not run.tracks
