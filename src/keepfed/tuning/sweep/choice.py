"""Runs → one row per value, and which value to take.

The largest of several noisy numbers is too large, and mostly luck: with five equal values, somebody is 3 % ahead. So values
are called equal as long as the runs cannot tell them apart, and of equal ones the cheapest is named: least CPU time per
iteration, then least memory, then the one that was given first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import mean, median, variance
from typing import Any

from keepfed.tuning.sweep.progress_lines import BarId
from keepfed.tuning.sweep.rate import Sighting, Steady, epoch_seconds, moves_s, steady, typical_epoch
from keepfed.tuning.sweep.run import Ending, Run
from keepfed.tuning.sweep.usage import Usage, cpu_between

SINGLE_BAND = 0.05
"""Without repetition nothing finer than 5 % is told apart: two cores, one program against itself: -2.7 % to +2.9 %."""

LEAST_BAND = 0.02
"""With repetitions the runs themselves say how much they scatter; below 2 % nobody gains anything."""

SAME_COST = 0.05
"""CPU time or memory within 5 % of the least is as cheap."""

# Student's t, 97.5 %, by degrees of freedom; beyond the table it falls from 2.2 to 1.96.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_T_BEYOND = 2.2

_ENOUGH_MOVES = 3
_LEAST_CPU_S = 0.05  # the kernel counts in ticks of 10 ms
_BarKey = tuple[str, str]


class How(StrEnum):
    """What became of a value."""

    MEASURED = "measured"
    NO_RATE = "no-rate"
    FAILED = "failed"
    NOT_STARTED = "not-started"
    INTERRUPTED = "interrupted"


class By(StrEnum):
    """What values are compared by."""

    RATE = "rate"
    """Iterations per second."""
    EPOCH = "epoch"
    """Seconds of an epoch: where every value has shown two or more, this includes what the rate leaves out, its start."""
    SECONDS = "seconds"
    """Seconds of the whole run, where no rate was seen and every run has ended by itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One value; with repetitions the medians of its runs."""

    value: str
    """What stood for {}."""

    how: How
    """What became of it."""

    exit: int | None
    """Exit code of the run that failed, else of the last one; None when it was not started."""

    runs: tuple[Run, ...]
    """Its runs."""

    rates: tuple[float, ...]
    """Iterations per second of each run that showed them."""

    unit: str
    """What is counted, "it"; empty where nothing is named."""

    epoch_s: float | None
    """Seconds of a whole epoch; None when none was seen from its start to its end."""

    epochs: int
    """How many were seen, in the run with the fewest."""

    seconds: float
    """From the start to the end, or until we stopped it."""

    cpu_s: float | None
    """CPU seconds of the whole tree."""

    cpu_s_per_batch: float | None
    """CPU seconds per iteration in the steady part."""

    peak_bytes: int | None
    """Highest sum of the memory of the tree."""

    memory_kind: str
    """What it is a sum of: "pss", "uss" or "rss"."""

    read_bytes: int | None
    """Bytes read from storage in the first of its runs."""

    gpu_busy: float | None
    """Share of the steady part in which its GPU ran a kernel."""

    warm: bool
    """Whether every run was long enough to leave out a beginning."""

    change: float
    """The second half of the steady part against the first, in the run where they differ most."""

    @property
    def rate(self) -> float | None:
        """Iterations per second."""
        return median(self.rates) if self.rates else None

    def to_json(self) -> dict[str, Any]:
        """The object that `tune --json` writes for a value."""
        return {
            "value": self.value,
            "how": str(self.how),
            "exit": self.exit,
            "runs": len(self.runs),
            "batches_per_s": _rounded(self.rate),
            "low": _rounded(min(self.rates)) if len(self.rates) > 1 else None,
            "high": _rounded(max(self.rates)) if len(self.rates) > 1 else None,
            "unit": self.unit,
            "epoch_s": _rounded(self.epoch_s),
            "seconds": round(self.seconds, 2),
            "cpu_s": _rounded(self.cpu_s),
            "cpu_s_per_batch": _rounded(self.cpu_s_per_batch),
            "peak_pss_bytes": self.peak_bytes,
            "memory_kind": self.memory_kind,
            "read_bytes": self.read_bytes,
            "gpu_busy": _rounded(self.gpu_busy),
            "output": [str(run.output) for run in self.runs if run.output is not None],
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """Which value to take."""

    best: Row
    """The cheapest of those that cannot be told from the fastest."""

    fastest: Row
    """The one with the best number."""

    equal: tuple[Row, ...]
    """All that cannot be told from the fastest, in the order given."""

    by: By
    """What was compared."""

    band: float
    """Relative difference below which values are equal."""

    repeated: bool
    """Whether the band comes from the scatter of the runs."""


def rows(runs: Sequence[Run], values: Iterable[str]) -> tuple[Row, ...]:
    """One row per value that was run, in the order of `values`."""
    key = main_bar(runs)
    grouped = {value: tuple(run for run in runs if run.value == value) for value in values}
    return tuple(_row(value, own, key) for value, own in grouped.items() if own)


def main_bar(runs: Iterable[Run]) -> _BarKey | None:
    """Which bar is the training's: over all runs, the one that moved most often; a log's rates where no bar counts."""
    moved: Counter[_BarKey] = Counter()
    said: Counter[_BarKey] = Counter()
    for run in runs:
        for bar, track in run.tracks.items():
            moved[bar.words, bar.unit] += len(moves_s(track))
            said[bar.words, bar.unit] += sum(1 for one in track if one.rate)
    if not moved:
        return None
    key, moves = moved.most_common(1)[0]
    return key if moves >= _ENOUGH_MOVES else said.most_common(1)[0][0]


def _row(value: str, runs: tuple[Run, ...], key: _BarKey | None) -> Row:
    tracks = [_track(run, key) for run in runs]
    found = [steady(track, _others_s(run, bar)) for run, (bar, track) in zip(runs, tracks, strict=True)]
    epochs = [epoch_seconds(track, bar.total) if bar else () for bar, track in tracks]
    usages = [run.usage for run in runs if run.usage is not None]
    parts = [(run.usage, part) for run, part in zip(runs, found, strict=True) if run.usage and part]
    how = _how(runs, found)
    return Row(
        value=value,
        how=how,
        exit=next((run.exit for run in runs if run.ending is Ending.FAILED), runs[-1].exit),
        runs=runs,
        rates=tuple(part.rate for part in found if part),
        unit=next((bar.unit for bar, _ in tracks if bar), ""),
        epoch_s=_median(typical_epoch(seconds) for seconds in epochs),
        epochs=min(len(seconds) for seconds in epochs),
        seconds=median(run.seconds for run in runs),
        cpu_s=_median(usage.cpu_s for usage in usages),
        cpu_s_per_batch=_median(_cpu_per_batch(usage, part) for usage, part in parts),
        peak_bytes=max((usage.peak_bytes for usage in usages if usage.peak_bytes), default=None),
        memory_kind=usages[0].memory_kind if usages else "pss",
        read_bytes=usages[0].read_bytes if usages else None,
        gpu_busy=_median(_busy(usage, part) for usage, part in parts),
        warm=all(part.warm for part in found if part),
        change=max((part.change for part in found if part), key=abs, default=0.0),
    )


def _track(run: Run, key: _BarKey | None) -> tuple[BarId | None, Sequence[Sighting]]:
    """The main bar of one run; of several that are named alike (training and evaluation) the one that moved most."""
    own = [(bar, track) for bar, track in run.tracks.items() if (bar.words, bar.unit) == key]
    return max(own, key=lambda one: (len(moves_s(one[1])), len(one[1])), default=(None, ()))


def _others_s(run: Run, own: BarId | None) -> list[float]:
    """When the other bars of a run moved."""
    return sorted(at_s for bar, track in run.tracks.items() if bar != own for at_s in moves_s(track))


def _how(runs: Iterable[Run], found: Iterable[Steady | None]) -> How:
    endings = {run.ending for run in runs}
    for ending, how in (
        (Ending.NOT_STARTED, How.NOT_STARTED),
        (Ending.FAILED, How.FAILED),
        (Ending.INTERRUPTED, How.INTERRUPTED),
    ):
        if ending in endings:
            return how
    return How.MEASURED if all(found) else How.NO_RATE


def _cpu_per_batch(usage: Usage, part: Steady) -> float | None:
    taken_s = cpu_between(usage.cpu, part.from_s, part.to_s)
    done = part.rate * (part.to_s - part.from_s) if part.done is None else part.done
    return None if taken_s is None or taken_s < _LEAST_CPU_S or done <= 0 else taken_s / done


def _busy(usage: Usage, part: Steady) -> float | None:
    shares = [share for at_s, share in usage.gpu if part.from_s <= at_s <= part.to_s]
    return mean(shares) if shares else None


# ------------------------------------------------------------------------------------------------------------- the choice


def choose(found: Sequence[Row]) -> Choice | None:
    """The value to take; None when no value was measured. Values that failed once are not taken."""
    measured = [row for row in found if row.how is How.MEASURED]
    by = By.RATE
    if measured and all(row.epochs >= 2 for row in measured):
        by = By.EPOCH
    elif not measured:
        ended = [row for row in found if {run.ending for run in row.runs} == {Ending.ENDED}]
        measured, by = (ended, By.SECONDS) if len(ended) == len(found) else ([], By.SECONDS)
    if not measured:
        return None
    band, repeated = _band(measured, by)
    fastest = max(measured, key=lambda row: _score(row, by))
    equal = tuple(row for row in measured if _score(row, by) >= (1 - band) * _score(fastest, by))
    return Choice(_cheapest(equal), fastest, equal, by, band, repeated)


def _score(row: Row, by: By) -> float:
    """More is better."""
    if by is By.RATE:
        return row.rate or 0.0
    return 1 / max(1e-9, row.seconds if by is By.SECONDS else row.epoch_s or math.inf)


def _band(measured: Iterable[Row], by: By) -> tuple[float, bool]:
    """How far two medians may lie apart by chance: from the scatter of repeated runs around their value's mean."""
    groups = [
        [run.seconds for run in row.runs] if by is By.SECONDS else list(row.rates) for row in measured
    ]  # an epoch scatters as its rate does
    groups = [group for group in groups if len(group) > 1 and mean(group) > 0]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return SINGLE_BAND, False
    squares = sum(variance(group) / mean(group) ** 2 * (len(group) - 1) for group in groups)
    factor = _T[degrees - 1] if degrees <= len(_T) else _T_BEYOND
    count = min(len(group) for group in groups)
    return max(LEAST_BAND, factor * math.sqrt(squares / degrees) * math.sqrt(2 / count)), True


def _cheapest(equal: Sequence[Row]) -> Row:
    costs: tuple[Callable[[Row], float | None], ...] = (lambda row: row.cpu_s_per_batch, lambda row: row.peak_bytes)
    left = list(equal)
    for cost in costs:
        known = [number for row in left if (number := cost(row)) is not None]
        if len(known) == len(left):
            left = [row for row in left if (cost(row) or 0.0) <= (1 + SAME_COST) * min(known)]
    return left[0]


def warmer(found: Sequence[Row]) -> Mapping[str, int] | None:
    """Bytes read from storage by value, when the first run read far more than the others: they had a warm page cache."""
    read = {row.value: row.read_bytes for row in found if row.read_bytes is not None}
    first, *others = read.values() or [0]
    if not others or first < 64 << 20 or first < 4 * max(others):
        return None
    return read


def _median(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return median(known) if known else None


def _rounded(number: float | None) -> float | None:
    """Four digits that mean something."""
    return None if number is None else float(f"{number:.4g}")
