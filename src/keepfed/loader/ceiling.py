"""What a loader may use of this host: the bounds within which its controller chooses."""

from __future__ import annotations

from dataclasses import replace

from keepfed.host.facts import HostFacts
from keepfed.loader.cores import most_workers
from keepfed.plan import Plan
from keepfed.policy.cost import Bounds
from keepfed.policy.governor import RESERVE_SHARE, Rung

MAX_PREFETCH = 8
"""Deepest prefetch that is chosen, unless the program asks for more."""
RESERVED = 1 - RESERVE_SHARE
"""Of a memory limit that the program gave: above, the governor takes back what is planned."""
FREE_SHARE = 0.8
"""Of the memory that the host has to spare: the program itself may still grow."""
AGAIN_WINDOWS = 4
"""Windows with enough memory after which more is tried again; twice as many each time that it was tried."""
_UNKNOWN_MEMORY_BYTES = 4 << 30


def ceiling(facts: HostFacts, asked: Plan, limit_bytes: int | None = None) -> Bounds:
    """What a loader that asks for `asked` may use on this host, and of it so much memory."""
    cores = facts.cores.value or 1.0
    workers = most_workers(asked.num_workers, cores)
    memory = FREE_SHARE * (facts.memory_available_bytes or _UNKNOWN_MEMORY_BYTES) / max(1, facts.ranks.count)
    outstanding = max(workers * 4, asked.num_workers * asked.prefetch_factor)
    return Bounds(
        0 if asked.num_workers == 0 else 1,
        workers,
        cores,
        memory if limit_bytes is None else min(memory, RESERVED * limit_bytes),
        max_prefetch=max(MAX_PREFETCH, asked.prefetch_factor),
        max_outstanding=outstanding,
    )


def within(bounds: Bounds, allowed: Rung | None, room_bytes: int | None) -> Bounds:
    """These bounds, while memory allows no more than this, and so many bytes."""
    if room_bytes is not None:
        bounds = replace(bounds, memory_bytes=min(bounds.memory_bytes, room_bytes))
    if allowed is None:
        return bounds
    workers = max(bounds.min_workers, min(bounds.max_workers, allowed.workers))
    prefetch = min(bounds.max_prefetch, max(1, allowed.batches // max(1, workers)))
    return replace(bounds, max_workers=workers, max_prefetch=prefetch, short_of_memory=workers < bounds.max_workers)


def nothing_but(asked: Plan, facts: HostFacts) -> Bounds:
    """No plan but this one."""
    return replace(
        ceiling(facts, asked),
        min_workers=asked.num_workers,
        max_workers=asked.num_workers,
        max_prefetch=asked.prefetch_factor,
    )


class Renewal:
    """When more is tried again, after memory was short.

    Later each time: else governor and controller could go on for ever, one taking workers away and the other adding them.
    """

    def __init__(self) -> None:
        self._times = self._left = 0

    def due(self, *, short: bool) -> bool:
        """Asked once per window; `short`: memory allows less than is planned."""
        if short:
            self._left = AGAIN_WINDOWS << self._times
        elif self._left:
            self._left -= 1
            self._times += self._left == 0
            return self._left == 0
        return False
