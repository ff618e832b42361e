"""A few hundred batches played through workers and step on paper: what bursts, order and prefetch make of mean values.

Means say that four workers that take 0.16 s feed a step of 0.04 s. They do not: batches are delivered in order, so that
one slow batch holds up all that are ready behind it, and only as many may be in preparation as prefetch allows. How much
that costs depends on how unevenly the times are distributed, for which no formula is at hand, and which takes a
millisecond to play through.

    worker 1  ▐█ 0 █▌▐███████ 2 ███████▌▐█ 5 █▌      a worker begins when it is free and a slot is free
    worker 2  ▐█ 1 █▌▐█ 3 █▌▐█ 4 █▌ · · ·            (slots: workers x prefetch batches not yet delivered)
    step       · · · ▐0▌▐1▌ · · · · ▐2▌▐3▌▐4▌▐5▌     a batch is delivered after all before it
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heapreplace
from itertools import accumulate

GROUPS = 32
"""A distribution is kept as the means of so many equally large groups of the sorted values."""

FEWEST = 600
"""Batches that are played through at least."""


def groups_of(values: Sequence[float]) -> tuple[float, ...]:
    """A distribution in at most `GROUPS` numbers with the same mean: sorted, cut into equal groups, each one's mean.

    A value on the edge of two groups belongs to both, with the share of it that lies in each.
    """
    ordered = sorted(values)
    count, sums = min(GROUPS, len(ordered)), [0.0, *accumulate(ordered)]

    def below(edge: float) -> float:
        whole = min(int(edge), len(ordered) - 1)
        return sums[whole] + (edge - whole) * ordered[whole]

    size = len(ordered) / max(1, count)
    return tuple((below((index + 1) * size) - below(index * size)) / size for index in range(count))


def throughput(workers: int, prefetch: int, fetch_s: Sequence[float], step_s: float) -> float:
    """Batches a second of `workers` (at least 1), whose batches take one of `fetch_s` each, against this step."""
    slots = workers * prefetch
    times = _drawn(fetch_s, FEWEST + 8 * slots)
    free, taken = [0.0] * workers, [0.0] * slots
    ready = begun = 0.0
    first = 2 * slots
    for index, time_s in enumerate(times):
        finished = max(free[0], taken[index % slots]) + time_s
        heapreplace(free, finished)
        ready = max(finished, ready + step_s)
        taken[index % slots] = ready
        if index == first:
            begun = ready
    return (len(times) - 1 - first) / max(1e-9, ready - begun)


def _drawn(values: Sequence[float], count: int) -> list[float]:
    """So many of them at random, the same each time, and scaled to the mean of all: luck must not decide between plans."""
    drawn = random.Random(0).choices(values, k=count)
    scale = count * sum(values) / max(1e-12, len(values) * sum(drawn))
    return [scale * value for value in drawn]
