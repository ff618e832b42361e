"""One budget of cores for the loaders of a process that are steered.

Each by itself would take all cores: two that the program zips together start twice as many workers as there are cores, and
each then reads the other's work as the host being busy. So the cores that the workers of the others use are not there for a
loader, until their epoch is over; one core always is.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import replace

from keepfed.loader.budget import WORKER_BYTES
from keepfed.plan import Plan
from keepfed.policy.cost import Bounds

FORGOTTEN_S = 10.0
"""A loader whose workers finished nothing for so long was left in mid-epoch, or waits for something else than cores."""
WORKERS_PER_CORE = 4
"""Workers that mostly wait (network, disk) may outnumber the cores by this much."""
FIRST_SHARE = 0.5
"""Of the memory, what workers may be expected to take before one of them has been weighed."""
FEWEST_CEILING, HIGHEST_CEILING = 8, 64


def most_workers(asked: int, cores: float) -> int:
    """How many workers a loader that asks for `asked` may have on so many cores."""
    return max(asked, min(HIGHEST_CEILING, max(FEWEST_CEILING, int(WORKERS_PER_CORE * cores))))


class CoreUse:
    """What the workers of one loader use."""

    def __init__(self) -> None:
        self._workers = 0
        self._measured: float | None = None
        self._last_s = -FORGOTTEN_S

    def working(self, workers: int) -> None:
        """So many workers are at work now."""
        self._workers, self._last_s = workers, time.monotonic()

    def measured(self, cores: float) -> None:
        """They used so many cores in the last window."""
        self._measured = cores

    def stopped(self) -> None:
        """The epoch is over."""
        self._last_s = -FORGOTTEN_S

    def cores(self) -> float:
        """Cores in use now; until something was measured, one per worker."""
        if time.monotonic() - self._last_s > FORGOTTEN_S:
            return 0.0
        return float(self._workers) if self._measured is None else min(self._measured, float(self._workers))


class Cores:
    """The loaders of a process that share its cores."""

    def __init__(self) -> None:
        self._uses: weakref.WeakSet[CoreUse] = weakref.WeakSet()

    def join(self) -> CoreUse:
        """One more loader."""
        use = CoreUse()
        self._uses.add(use)
        return use

    def beside(self, use: CoreUse | None) -> float:
        """Cores that all others use."""
        return sum(other.cores() for other in list(self._uses) if other is not use)

    def bounds(self, bounds: Bounds, asked: Plan, use: CoreUse) -> Bounds:
        """These bounds, of a loader that has the host to itself, less what the others use."""
        cores = max(1.0, bounds.cores - self.beside(use))
        most = min(bounds.max_workers, most_workers(asked.num_workers, cores))
        return replace(bounds, cores=cores, max_workers=most)

    def first_guess(self, guess: Plan, memory_bytes: float) -> Plan:
        """A guess of one worker per core, for a loader that comes to others and may take so much memory.

        Over simulated programs drawn at random, of which some need one worker and some sixteen, the first 40 s bring 86 % from
        here of what the best plan gives without search or pauses; 90 % from the number that the model would name if it knew all
        costs before the first batch, 74 % from one worker.
        """
        room = int(FIRST_SHARE * memory_bytes) // WORKER_BYTES
        return replace(guess, num_workers=max(1, min(room, guess.num_workers - round(self.beside(None)))))
