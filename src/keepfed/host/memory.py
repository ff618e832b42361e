"""Memory and /dev/shm as minima of named causes.

Inside a container `free` and psutil show the host; the kernel kills at the group's limit, and it counts pages of /dev/shm
against that same limit, so that a generous --shm-size only permits what the memory limit then punishes.

Sources: kernel documentation admin-guide/cgroup-v2 (memory.max, memory.high, memory.current), admin-guide/cgroup-v1/memory,
filesystems/tmpfs, filesystems/proc (meminfo).
"""

from __future__ import annotations

from dataclasses import dataclass

from keepfed.host.cgroups import Group, Mount, find_group, parse_mounts
from keepfed.host.limits import Cause, Ceiling, lowest
from keepfed.host.probe import SHM_PATH, FileSystemUse, Probe
from keepfed.host.ranks import whole_number
from keepfed.host.tree import Tree

_NO_LIMIT_BYTES = 1 << 60  # version 1 writes "none" as the largest multiple of the page size below 2**63


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory there is, in bytes; swap is not counted, since data that is swapped is not fed."""

    total: Ceiling
    """The most that all processes under the same limits can hold."""
    available: Ceiling
    """What can be taken now without pushing anything out: under each limit, the limit less what is in use."""


def read_memory(tree: Tree, probe: Probe, pid: str = "self") -> Memory:
    """The memory that process `pid` can use, with causes."""
    numbers = parse_meminfo(tree.read("/proc/meminfo") or "")
    total = numbers.get("MemTotal", probe.memory_bytes)
    older = [numbers[name] for name in ("MemFree", "Buffers", "Cached") if name in numbers]  # before Linux 3.14
    available = numbers.get("MemAvailable", sum(older) if older else None)
    limits = [Cause("machine", total, "/proc/meminfo")]
    free = [Cause("machine", available, "/proc/meminfo")]
    for group in find_group(tree, "memory", pid):
        for folder in group.folders:
            for limit in memory_limits(tree, group, folder):
                limits.append(limit)
                free.append(Cause(limit.name, _left(limit.value, _in_use(tree, group, folder)), limit.source))
    return Memory(lowest(limits), lowest(free))


def memory_limits(tree: Tree, group: Group, folder: str) -> list[Cause]:
    """What limits the memory of the group in this folder; a value of None is no limit."""
    # memory.high does not kill, it throttles so hard that a loader above it stands still: a ceiling all the same.
    files = {
        1: (("cgroup_v1_limit", "memory.limit_in_bytes"),),
        2: (("cgroup_v2_max", "memory.max"), ("cgroup_v2_high", "memory.high")),
    }[group.version]
    found = [Cause(name, _byte_limit(tree.read(f"{folder}/{file}") or ""), f"{folder}/{file}") for name, file in files]
    if group.version == 1 and folder == group.folders[-1]:
        # Tells the limit of ancestors too that lie above the mount and cannot be seen.
        path = f"{folder}/memory.stat"
        found.append(Cause("cgroup_v1_limit", _byte_limit(stat_value(tree, path, "hierarchical_memory_limit")), path))
    return found


def _in_use(tree: Tree, group: Group, folder: str) -> int | None:
    """Memory charged to the group less the page cache that the kernel drops first (as kubelet's working set)."""
    current = "memory.current" if group.version == 2 else "memory.usage_in_bytes"
    # In version 1 the plain name counts this group alone, while the use counts its descendants.
    inactive = "inactive_file" if group.version == 2 else "total_inactive_file"
    used = whole_number(tree.read(f"{folder}/{current}") or "")
    droppable = whole_number(stat_value(tree, f"{folder}/memory.stat", inactive)) or 0
    return None if used is None else max(0, used - droppable)


def _left(limit: float | None, used: int | None) -> float | None:
    return None if limit is None else max(0, limit - (used or 0))


def stat_value(tree: Tree, path: str, name: str) -> str:
    """The text behind this name in a memory.stat; empty when it is not there."""
    for line in (tree.read(path) or "").split("\n"):
        key, _, value = line.partition(" ")
        if key == name:
            return value
    return ""


def _byte_limit(text: str) -> int | None:
    value = whole_number(text)
    return None if value is None or value >= _NO_LIMIT_BYTES else value


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name from /proc/meminfo ("MemTotal:  24684096 kB"); garbled lines are skipped."""
    found = {}
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        words = rest.split()
        value = whole_number(words[0]) if words else None
        if value is not None and words[1:] == ["kB"]:
            found[name] = value * 1024
    return found


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """The file system at /dev/shm, in which torch passes batches from workers to the training process."""

    filesystem: str | None
    """Type of the file system there: "tmpfs" as it should be; None when there is none."""
    size_bytes: int | None
    """Its size; None when unknown."""
    used_bytes: int | None
    """Bytes in use; files that were unlinked while open count and are not listed by `ls`."""
    inodes: int | None
    """Files that it can hold; None when unknown or unlimited."""
    inodes_used: int | None
    """Files that it holds; None when unknown."""
    ceiling: Ceiling
    """The most that can be put there: its pages are charged as memory, so the memory ceiling binds too."""


def read_shm(tree: Tree, probe: Probe, memory: Memory) -> SharedMemory:
    """The size, use and type of /dev/shm."""
    mounts = parse_mounts(tree.read("/proc/self/mountinfo") or "")
    mount = _mount_of(mounts, tree.resolve(SHM_PATH))
    mounted = mount is not None and mount.point not in ("/", "/dev")
    there = mounted or probe.shm is not None
    use = probe.shm or (_size_option(mount) if mount is not None and mounted else None)
    size = use.size_bytes if use else 0 if mounts and not there else None
    causes = [Cause(_shm_cause(there, mount), size, SHM_PATH)]
    if there:
        causes.append(Cause("memory", memory.total.value, memory.total.source))
    return SharedMemory(
        filesystem=mount.filesystem if there and mount is not None else None,
        size_bytes=size,
        used_bytes=use.used_bytes if use and probe.shm else None,
        inodes=use.inodes if use else None,
        inodes_used=use.inodes_used if use else None,
        ceiling=lowest(causes),
    )


def _shm_cause(there: bool, mount: Mount | None) -> str:
    if not there:
        return "missing"
    return "tmpfs" if mount is None or mount.filesystem == "tmpfs" else "not_tmpfs"


def _mount_of(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """The mount that shows `path`: the longest mount point above it, the last one mounted there."""
    above = [mount for mount in mounts if f"{path}/".startswith(f"{mount.point.rstrip('/')}/")]
    return max(reversed(above), key=lambda mount: len(mount.point), default=None)


def _size_option(mount: Mount) -> FileSystemUse | None:
    """A tmpfs's size from its mount options ("size=65536k"): all that a record without statvfs has."""
    for option in mount.options:
        size = whole_number(option.removeprefix("size=").removesuffix("k")) if option.startswith("size=") else None
        if size is not None:
            return FileSystemUse(size * 1024 if option.endswith("k") else size, 0)
    return None
