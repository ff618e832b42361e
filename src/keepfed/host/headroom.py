"""How near memory is to its limit now: what a loader asks once a second while a program trains.

`memory.py` tells what may be taken before anything is pushed out, once, with causes. Here the question is when the OOM killer
comes, so all page cache counts as free, the active part too: a program that reads its dataset twice fills the control
group to the brim with it, for ever, and is killed by none of it. (kubelet leaves out the inactive part alone, and evicts
pods for reading files: kubernetes#43916.) What the cache is worth the kernel tells by its pressure stall information.

Sources: kernel documentation admin-guide/cgroup-v2 (memory.stat: shmem is in neither of the file lists), accounting/psi,
filesystems/proc (MemAvailable: an estimate on the same grounds).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.host.cgroups import Group, find_group
from keepfed.host.memory import memory_limits, parse_meminfo, stat_value
from keepfed.host.ranks import whole_number
from keepfed.host.tree import Tree

_SOME = re.compile(r"^some avg10=(\d+(?:\.\d+)?) ", re.MULTILINE)
_DROPPABLE = {
    1: ("total_inactive_file", "total_active_file"),
    2: ("inactive_file", "active_file", "slab_reclaimable"),
}


@dataclass(frozen=True, slots=True)
class Headroom:
    """Memory under one limit, at one moment."""

    used_bytes: int
    """What is in use and cannot simply be dropped."""
    limit_bytes: int
    """The limit."""
    pressure: float | None
    """Per cent of the last 10 s in which some task waited for memory; None where the kernel does not say."""
    source: str
    """Whose limit it is: the folder of a control group, or /proc/meminfo."""

    @property
    def left_bytes(self) -> int:
        """What is left below the limit."""
        return self.limit_bytes - self.used_bytes


class MemoryGauge:
    """Reads the limits that bind this process, again and again."""

    def __init__(self, tree: Tree) -> None:
        """Finds the control groups; the process is taken to stay in them."""
        self._tree = tree
        self._groups = [(group, folder) for group in find_group(tree, "memory") for folder in group.folders]

    def read(self) -> Headroom | None:
        """The limit of which least is left; None where nothing can be read."""
        found = [self._machine(), *(self._group(group, folder) for group, folder in self._groups)]
        return min((one for one in found if one is not None), key=lambda one: one.left_bytes, default=None)

    def _machine(self) -> Headroom | None:
        numbers = parse_meminfo(self._tree.read("/proc/meminfo") or "")
        total, available = numbers.get("MemTotal"), numbers.get("MemAvailable")
        if total is None or available is None:
            return None
        return Headroom(max(0, total - available), total, self._pressure("/proc/pressure/memory"), "/proc/meminfo")

    def _group(self, group: Group, folder: str) -> Headroom | None:
        limits = [cause.value for cause in memory_limits(self._tree, group, folder) if cause.value is not None]
        name = "memory.current" if group.version == 2 else "memory.usage_in_bytes"
        used = whole_number(self._tree.read(f"{folder}/{name}") or "") if limits else None
        if used is None:
            return None
        for dropped in _DROPPABLE[group.version]:
            used -= whole_number(stat_value(self._tree, f"{folder}/memory.stat", dropped)) or 0
        return Headroom(max(0, used), int(min(limits)), self._pressure(f"{folder}/memory.pressure"), folder)

    def _pressure(self, path: str) -> float | None:
        found = _SOME.search(self._tree.read(path) or "")
        return float(found.group(1)) if found else None
