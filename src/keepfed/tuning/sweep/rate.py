"""What one bar showed over time → iterations per second, the warm-up left out.

A mean over everything would mostly measure the beginning: imports of the workers, a cold page cache, cudnn.benchmark, the
compiler. And it would be unfair, since more workers take longer to start. So

    0/99 ─── first batch ───┬──── warm-up ────┬──────────── steady ─────────────┐ 99/99 ── validation ── 0/99 ── first …
          not counted       │  not counted    │  Δ done / Δ time                │         not counted

The start of every epoch is left out of the rate, and is in the epoch's seconds. What lies between two epochs is in neither; nor,
in the rate, is an evaluation within an epoch, known by its own bar.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

WARM_UP_SHARE = 0.25
"""Part of the counted time that is left out at the beginning."""

WARM_UP_MOST_S = 20.0
"""And no more than this: a run of an hour is not cold for a quarter of it."""

DRIFT = 0.05
"""When the two halves of the steady part differ by more, the rate was still changing."""

_DENSE = 10
"""Sightings per epoch from which on a bar does not jump over half of it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A bar at one moment."""

    at_s: float
    """When it was drawn, on our clock."""

    done: float | None
    """How far it was; None where only a rate is said."""

    rate: float | None
    """The rate that it said, per second."""


@dataclass(frozen=True, slots=True)
class Steady:
    """The steady part of a run."""

    rate: float
    """Iterations per second, or the mean of what was named."""

    from_s: float
    """Where it begins, on our clock."""

    to_s: float
    """Where it ends."""

    done: float | None
    """Iterations in it; None where none are counted."""

    warm: bool
    """False when the run was too short to leave out a beginning."""

    change: float
    """The second half against the first: 0.1 is 10 % faster. 0 where there are not two halves."""


@dataclass(frozen=True, slots=True)
class _Span:
    """From one sighting to the next, in one epoch."""

    from_s: float
    to_s: float
    done: float

    @property
    def seconds(self) -> float:
        return self.to_s - self.from_s


def steady(track: Sequence[Sighting], others_s: Sequence[float] = ()) -> Steady | None:
    """The steady part of what one bar showed; None when it shows no rate at all.

    `others_s`: when other bars moved, in order. Where two such moves or more lie between two of this bar's, it stood still for an
    evaluation, which is left out.
    """
    spans = [span for epoch in _epochs(track) for span in _counted(epoch) if not _evaluates(span, others_s)]
    if len(spans) < 2:
        return _as_said(track)
    rest = _without_warm_up(spans)
    kept = rest or spans
    done, seconds = sum(span.done for span in kept), sum(span.seconds for span in kept)
    return Steady(done / seconds, kept[0].from_s, kept[-1].to_s, done, bool(rest), _change(kept))


def epoch_seconds(track: Sequence[Sighting], total: float | None) -> tuple[float, ...]:
    """How long each whole epoch took, from 0 to `total`, its first batch included."""
    if not total:
        return ()
    whole = [epoch for epoch in _epochs(track) if epoch[0].done == 0 and epoch[-1].done == total]
    return tuple(epoch[-1].at_s - epoch[0].at_s for epoch in whole)


def typical_epoch(seconds: Sequence[float]) -> float | None:
    """The epoch that a user will wait for: the first one reads cold files, so it counts only when it is all there is."""
    return None if not seconds else median(seconds[1:] or seconds)


def moves_s(track: Sequence[Sighting]) -> list[float]:
    """When the bar moved. How often is what tells the training's bar from those of epochs, evaluations and downloads."""
    return [sighting.at_s for epoch in _epochs(track) for sighting in epoch[1:]]


def _epochs(track: Sequence[Sighting]) -> list[list[Sighting]]:
    """The sightings at which the count had risen, anew from where it falls to half or less.

    Bars are redrawn for other reasons too; and where every rank draws the same bar, the counts of a slower one lie a little
    below, and its last ones come when the next epoch has begun.
    """
    epochs: list[list[Sighting]] = []
    last, highest, dense = math.inf, 0.0, False
    for sighting in track:
        done = sighting.done
        if done is None:
            continue
        if done < last and (done == 0 or done <= last / 2):
            dense = dense or (bool(epochs) and len(epochs[-1]) >= _DENSE)
            epochs.append([sighting])
        elif done <= last or (dense and done <= highest and done - last > highest / 2):
            continue
        else:
            epochs[-1].append(sighting)
        last, highest = done, max(highest, done)
    return epochs


def _counted(epoch: Sequence[Sighting]) -> list[_Span]:
    """The spans of an epoch, less its first: workers start in that one."""
    known = [(one.at_s, one.done or 0.0) for one in epoch[1:]]
    return [_Span(a_s, b_s, b - a) for (a_s, a), (b_s, b) in pairwise(known) if b_s > a_s]


def _evaluates(span: _Span, others_s: Sequence[float]) -> bool:
    return bisect_left(others_s, span.to_s) - bisect_right(others_s, span.from_s) >= 2


def _without_warm_up(spans: Sequence[_Span]) -> list[_Span]:
    left_out_s = min(WARM_UP_SHARE * sum(span.seconds for span in spans), WARM_UP_MOST_S)
    for number, span in enumerate(spans):
        if left_out_s <= 0:
            rest = list(spans[number:])
            return rest if len(rest) >= 2 else []
        left_out_s -= span.seconds
    return []


def _change(spans: Sequence[_Span]) -> float:
    """The second half of the time against the first."""
    half_s, early = sum(span.seconds for span in spans) / 2, 0
    for span in spans:
        half_s -= span.seconds
        if half_s < 0:
            break
        early += 1
    if not 4 <= early <= len(spans) - 4:
        return 0.0
    first, second = (
        sum(s.done for s in part) / sum(s.seconds for s in part) for part in (spans[:early], spans[early:])
    )
    return second / first - 1 if first > 0 else 0.0


def _as_said(track: Sequence[Sighting]) -> Steady | None:
    """From the rates that were named: their median, after the first quarter of the time in which they were."""
    said = [(one.at_s, one.rate) for one in track if one.rate]
    if not said:
        return None
    from_s = said[0][0] + min(WARM_UP_SHARE * (said[-1][0] - said[0][0]), WARM_UP_MOST_S)
    late = [rate for at_s, rate in said if at_s >= from_s]
    warm = len(said) >= 3
    rates = late if warm else [rate for _, rate in said]
    half = len(rates) // 2
    change = median(rates[half:]) / median(rates[:half]) - 1 if half >= 4 else 0.0
    return Steady(median(rates), from_s if warm else said[0][0], said[-1][0], None, warm, change)
