"""Every ceiling of this host as the minimum of named causes.

"How many cores are there" has half a dozen true answers: os.cpu_count() sees the machine, sched_getaffinity(2) the mask and the
cpuset, and nothing in Python, torch or OpenMP sees a container's CPU quota; a program that sizes itself by the wrong one is
throttled 100 ms at a time and looks merely slow. So no number travels without the list that it is the minimum of.

Sources: kernel documentation admin-guide/cgroup-v2 (cpu.max, cpuset.cpus.effective), scheduler/sched-bwc (cpu.cfs_quota_us),
admin-guide/cgroup-v1/cpusets (there the file is cpuset.effective_cpus), proc(5), getrlimit(2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keepfed.host.cgroups import find_group
from keepfed.host.probe import LIMIT_NAMES, Limit, Probe
from keepfed.host.ranks import Ranks, slurm_requests, whole_number
from keepfed.host.tree import Tree

_MOST_CPUS = 1 << 16  # CONFIG_NR_CPUS is at most 8192 today
_LIMIT_LINE = re.compile(r"^(Max [a-z ]+?) {2,}(\S+) +(\S+)", re.MULTILINE)
_LIMIT_LABELS = {
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max address space": "as",
    "Max file size": "fsize",
    "Max locked memory": "memlock",
    "Max stack size": "stack",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that limits, or that could."""

    name: str
    """Its name, also the last part of its key in the words: "machine", "affinity", "cgroup_v2_quota", ..."""
    value: float | None
    """The limit that it sets, in the ceiling's unit; None when it sets none or cannot be read."""
    source: str
    """Where it is read: a path, a system call or an environment variable."""
    enforced: bool = True
    """False for a request that the kernel is not known to enforce."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A limit, the cause that sets it, and the causes that were looked at."""

    value: float | None
    """The limit; None when no cause could be read."""
    cause: str
    """Name of the cause that sets it; "unknown" when `value` is None."""
    source: str
    """Where that cause is read."""
    causes: tuple[Cause, ...]
    """All of them, in the order in which they were looked at."""

    @property
    def whole(self) -> int | None:
        """The limit as a count of which there is at least one: half a core still runs one process."""
        return None if self.value is None else max(1, math.floor(self.value))


def lowest(causes: Iterable[Cause]) -> Ceiling:
    """The minimum of `causes`; the earlier one where two are equal, so that "machine" is named if nothing else binds."""
    seen = tuple(causes)
    least = min((cause for cause in seen if cause.value is not None), key=_by_value, default=None)
    if least is None:
        return Ceiling(None, "unknown", "", seen)
    return Ceiling(least.value, least.name, least.source, seen)


def _by_value(cause: Cause) -> float:
    return math.inf if cause.value is None else cause.value


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores there are to use, as a number that may be fractional."""

    share: Ceiling
    """For this process: with several ranks on the host, its part of what they share."""
    pool: Ceiling
    """For all ranks of this host together."""
    machine: float | None
    """Logical CPUs of the machine; None when unknown."""


def read_cores(tree: Tree, environ: Mapping[str, str], probe: Probe, ranks: Ranks, pid: str = "self") -> Cores:
    """The cores that process `pid` can use, with causes."""
    machine = _machine_cores(tree, probe)
    groups = [*_cpuset_causes(tree, pid), *_quota_causes(tree, pid)]
    affinity = _affinity(tree, probe, pid)
    shared = [machine, *groups] if _bound_each(affinity, [machine, *groups], ranks) else [machine, *groups, affinity]
    pool = _with_requests(shared, environ)
    causes = [*pool.causes] if affinity in shared else [*pool.causes, affinity]
    if ranks.count > 1 and pool.value is not None:
        causes.append(Cause("ranks", pool.value / ranks.count, ranks.source))
    allowed = lowest(cause for cause in causes if cause.enforced or cause.name == pool.cause)
    return Cores(Ceiling(allowed.value, allowed.cause, allowed.source, tuple(causes)), pool, machine.value)


def _bound_each(affinity: Cause, common: list[Cause], ranks: Ranks) -> bool:
    """Whether the mask is this rank's own: its launcher binds ranks, and all of them fit side by side.

    srun with task/affinity and mpirun give each rank CPUs of its own; dividing such a mask by the ranks once more would
    leave a fraction of what each really has.
    """
    room = lowest(cause for cause in common if cause.name in ("machine", "cpuset")).value
    if not ranks.bind_each or ranks.count < 2 or affinity.value is None or room is None:
        return False
    return affinity.value * ranks.count <= room


def _with_requests(causes: list[Cause], environ: Mapping[str, str]) -> Ceiling:
    """Add what was asked of SLURM. It counts only where nothing binds: a mask or a group is the better evidence."""
    requests = [Cause("slurm", cpus, variable, enforced=False) for variable, cpus in slurm_requests(environ)]
    bound = lowest(causes)
    winner = lowest([*causes, *requests]) if bound.cause in ("machine", "unknown") else bound
    return Ceiling(winner.value, winner.cause, winner.source, (*causes, *requests))


def _machine_cores(tree: Tree, probe: Probe) -> Cause:
    path = "/sys/devices/system/cpu/online"  # os.cpu_count() can be overridden by PYTHON_CPU_COUNT
    online = parse_cpu_list(tree.read(path) or "")
    return Cause("machine", len(online), path) if online else Cause("machine", probe.cpu_count, "os.cpu_count")


def _affinity(tree: Tree, probe: Probe, pid: str) -> Cause:
    path = f"/proc/{pid}/status"
    listed = re.search(r"^Cpus_allowed_list:\s*(\S+)", tree.read(path) or "", re.MULTILINE)
    cpus = probe.affinity or parse_cpu_list(listed.group(1) if listed else "")
    return Cause("affinity", len(cpus) or None, "sched_getaffinity" if probe.affinity else path)


def _cpuset_causes(tree: Tree, pid: str) -> list[Cause]:
    """The nearest group that has the file tells: "effective" is already cut with all ancestors."""
    for group in find_group(tree, "cpuset", pid):
        names = ("cpuset.cpus.effective",) if group.version == 2 else ("cpuset.effective_cpus", "cpuset.cpus")
        for path in (f"{folder}/{name}" for folder in group.folders for name in names):
            if cpus := parse_cpu_list(tree.read(path) or ""):
                return [Cause("cpuset", len(cpus), path)]
    return []


def _quota_causes(tree: Tree, pid: str) -> list[Cause]:
    found = []
    for group in find_group(tree, "cpu", pid):
        for folder in group.folders:
            if group.version == 2:
                quota = parse_cpu_max(tree.read(f"{folder}/cpu.max") or "")
                found.append(Cause("cgroup_v2_quota", quota, f"{folder}/cpu.max"))
            else:
                period = tree.read(f"{folder}/cpu.cfs_period_us") or ""
                quota = parse_cpu_max(f"{tree.read(f'{folder}/cpu.cfs_quota_us') or ''} {period}")
                found.append(Cause("cgroup_v1_quota", quota, f"{folder}/cpu.cfs_quota_us"))
    return found


def parse_cpu_max(text: str) -> float | None:
    """Cores of a "QUOTA PERIOD" pair in microseconds; None for "max", for version 1's -1 and for anything garbled."""
    words = text.split()
    quota = whole_number(words[0]) if words else None
    period = whole_number(words[1]) if len(words) > 1 else 100_000  # the kernel's default period
    return quota / period if quota and period else None


def parse_cpu_list(text: str) -> frozenset[int]:
    """CPU numbers of a list such as "0-3,8" (cpuset(7), "List format"); garbled parts are skipped."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        low, dash, high = part.partition("-")
        first, last = whole_number(low), whole_number(high if dash else low)
        if first is not None and last is not None and last < _MOST_CPUS:
            cpus.update(range(first, last + 1))
    return frozenset(cpus)


def read_ulimits(tree: Tree, probe: Probe, pid: str = "self") -> dict[str, Limit]:
    """Resource limits by short name ("nofile"); a name is missing where it cannot be read."""
    found = dict(probe.limits)
    for label, soft, hard in _LIMIT_LINE.findall(tree.read(f"/proc/{pid}/limits") or ""):
        if label in _LIMIT_LABELS and (limit := _parse_limit(soft, hard)):
            found[_LIMIT_LABELS[label]] = limit
    return {name: found[name] for name in LIMIT_NAMES if name in found}


def _parse_limit(soft: str, hard: str) -> Limit | None:
    values = [None if word == "unlimited" else whole_number(word) for word in (soft, hard)]
    if any(value is None and word != "unlimited" for value, word in zip(values, (soft, hard), strict=True)):
        return None
    return Limit(*values)
