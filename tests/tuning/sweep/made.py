"""Runs as they would have been seen, made from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keepfed.tuning.sweep.progress_lines import BarId
from keepfed.tuning.sweep.rate import Sighting
from keepfed.tuning.sweep.run import Ending, Run
from keepfed.tuning.sweep.usage import CpuSample, Usage

BAR = BarId("Epoch", 10_000.0, "it")


def bar(rate: float, seconds: float = 60.0, total: int = 10_000, begin_s: float = 5.0) -> list[Sighting]:
    """A bar that moves four times a second, anew from 0 whenever it has reached `total`."""
    track, at_s, done = [Sighting(begin_s, 0.0, None)], begin_s, 0.0
    while at_s < begin_s + seconds:
        at_s, done = at_s + 0.25, min(float(total), done + rate / 4)
        track.append(Sighting(at_s, done, rate))
        if done == total:
            done = 0.0
            track.append(Sighting(at_s, 0.0, None))
    return track


def usage(cpu_share: float = 1.0, peak_bytes: int = 100 << 20, read_bytes: int | None = 0, kind: str = "pss") -> Usage:
    """What a run of 70 s takes that keeps so many cores busy."""
    cpu = tuple(CpuSample(float(second), cpu_share * second) for second in range(70))
    return Usage(70.0 * cpu_share, cpu, peak_bytes, kind, read_bytes, tuple((float(s), 0.5) for s in range(70)))


def run(
    value: str,
    rate: float | None,
    *,
    ending: Ending = Ending.TIME_UP,
    code: int | None = 130,
    seconds: float = 65.0,
    taken: Usage | None = None,
    tracks: Mapping[BarId, Sequence[Sighting]] | None = None,
) -> Run:
    """One run; without a rate it shows no bar."""
    shown: Mapping[BarId, Sequence[Sighting]] = {} if rate is None else {BAR: bar(rate)}
    return Run(value, ending, code, seconds, shown if tracks is None else tracks, taken or usage(), None)
