"""How busy the cores are that this process may use, by anyone.

Not the whole machine's figure: on a host of 64 cores, a job that is bound to 4 of them sees 6 % while all of its own are
taken. Under a CPU quota the cores' own figure says nothing about what is left of the quota: then the answer is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psutil

from keepfed.host.limits import Ceiling

_QUOTAS = ("cgroup_v1_quota", "cgroup_v2_quota")


def own_niceness() -> int:
    """Of this process: 0 is the usual priority, 19 the lowest."""
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0


class CoreClock:
    """Busy shares of all cores from one call to the next.

    What runs at a lower priority (`nice`) gives way to a program of the usual one and takes next to nothing from it: a backup
    or somebody's background job is no neighbour to make room for. Where this program was started so itself, it is.
    """

    def __init__(
        self, times: Callable[[], Sequence[Any]] | None = None, niceness: Callable[[], int] = own_niceness
    ) -> None:
        """`times` stands for `psutil.cpu_times(percpu=True)` in tests."""
        self._times = times or partial(psutil.cpu_times, percpu=True)
        self._niceness = niceness
        self._before = self._times()

    def __call__(self) -> Sequence[float]:
        """0 to 100 for each core."""
        now = self._times()
        yields = self._niceness() <= 0
        shares = [self._share(*pair, yields=yields) for pair in zip(self._before, now, strict=False)]
        self._before = now
        return shares

    @staticmethod
    def _share(before: Any, now: Any, *, yields: bool) -> float:
        spent = {name: max(0.0, getattr(now, name) - getattr(before, name)) for name in now._fields}
        # The times of guests are a part of user and nice already (proc_stat(5)).
        total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        free = spent["idle"] + spent.get("iowait", 0.0) + (spent.get("nice", 0.0) if yields else 0.0)
        return 100.0 * min(1.0, max(0.0, 1.0 - free / total)) if total > 0 else 0.0


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
        per_core: Callable[[], Sequence[float]] | None = None,
        usable: Callable[[], frozenset[int]] = usable,
    ) -> None:
        """`cores` is the ceiling of this process (`HostFacts.cores_pool`); the others stand in tests."""
        self._under_quota = cores.cause in _QUOTAS
        self._per_core, self._usable = per_core or CoreClock(), usable
        self._per_core()

    def share(self) -> float | None:
        """Busy share of the usable cores since the last call, 0 to 1; None when it cannot be told."""
        shares = self._per_core()
        mine = [share for number, share in enumerate(shares) if number in self._usable()]
        if self._under_quota or not mine:
            return None
        return min(1.0, sum(mine) / len(mine) / 100)
