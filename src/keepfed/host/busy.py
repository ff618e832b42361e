"""How busy the cores are that this process may use, by anyone.

Not the whole machine's figure: on a host of 64 cores, a job that is bound to 4 of them sees 6 % while all of its own are
taken. Under a CPU quota the cores' own figure says nothing about what is left of the quota: then the answer is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import psutil

from keepfed.host.limits import Ceiling

_QUOTAS = ("cgroup_v1_quota", "cgroup_v2_quota")


def per_core() -> Sequence[float]:
    """Busy shares of all cores since the last call, 0 to 100."""
    found: Sequence[float] = psutil.cpu_percent(percpu=True)
    return found


def usable() -> frozenset[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


class BusyMeter:
    """Measures from one call to the next."""

    def __init__(
        self,
        cores: Ceiling,
        per_core: Callable[[], Sequence[float]] = per_core,
        usable: Callable[[], frozenset[int]] = usable,
    ) -> None:
        """`cores` is the ceiling of this process (`HostFacts.cores_pool`); the others stand in tests."""
        self._under_quota = cores.cause in _QUOTAS
        self._per_core, self._usable = per_core, usable
        per_core()

    def share(self) -> float | None:
        """Busy share of the usable cores since the last call, 0 to 1; None when it cannot be told."""
        shares = self._per_core()
        mine = [share for number, share in enumerate(shares) if number in self._usable()]
        if self._under_quota or not mine:
            return None
        return min(1.0, sum(mine) / len(mine) / 100)
