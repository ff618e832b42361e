"""How much memory batches may take: decided before a worker starts, from what the host has to spare.

Leaving /dev/shm means leaving the bound that used to turn too large a prefetch into an error: without a budget of our own
it would be the OOM killer. Half of the free memory may be in the program's hands (kept batches), three tenths on its way;
past the first, batches are copied into ordinary memory at delivery, and past the second, workers wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus

HELD_SHARE = 0.5
MOVING_SHARE = 0.3
_UNKNOWN_AVAILABLE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that one worker's batches may take."""

    held_bytes: int
    """Of its slots, what the program may hold; past that batches are copied at delivery."""
    slots_bytes: int
    """All its slots together; past that the worker waits for one to come back."""
    region_bytes: int
    """Address space of its region."""


def budget_for(workers: int) -> Budget:
    """Each worker's share of what is free on this host now."""
    facts = read_host(gpus=skip_gpus)
    available = (facts.memory_available_bytes or _UNKNOWN_AVAILABLE_BYTES) // max(1, facts.ranks.count)
    held = int(available * HELD_SHARE / workers)
    return Budget(held, held + int(available * MOVING_SHARE / workers), max(available * 2, 1 << 30))
