"""What the kernel tells of its OOM killer: how often it has killed, in this job's control group and on this host.

A process that was killed for memory looks like one that somebody killed with `kill -9`: nothing tells them apart but these
counters, and dmesg, which a container may not read. The counter of a control group counts its own processes that were
killed, whoever's limit they died of; the host's counts everybody's, other containers' too.

Sources: kernel documentation admin-guide/cgroup-v2 (memory.events, memory.oom.group), admin-guide/cgroup-v1/memory
(memory.oom_control: `oom_kill`, since Linux 4.13, this group alone), /proc/vmstat (`oom_kill`, since 4.13). Containers
of Kubernetes 1.28 and later have memory.oom.group=1 (kubernetes#117793): there the kernel kills all or nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from keepfed.host.cgroups import find_group
from keepfed.host.memory import stat_value
from keepfed.host.ranks import whole_number
from keepfed.host.tree import Tree


@dataclass(frozen=True, slots=True)
class OomKills:
    """The counters at one moment."""

    group: int | None
    """Processes of this job's memory control group that were killed for memory; None where nothing counts them."""
    host: int | None
    """Processes of this host, other containers' included; None where nothing counts them."""
    all_at_once: bool
    """Whether the kernel kills the whole control group where it would kill one process (memory.oom.group)."""
    source: str
    """The file of the group's counter; empty when there is none."""


class OomCounter:
    """Reads the counters again and again."""

    def __init__(self, tree: Tree) -> None:
        """Finds the control groups; the process is taken to stay in them."""
        self._tree = tree
        groups = find_group(tree, "memory")
        self._folders = [folder for group in groups if group.version == 2 for folder in group.folders]
        # Version 2 counts descendants too, so the nearest group that has the file will do; version 1 counts none but its own.
        files = [f"{folder}/memory.events" for folder in self._folders]
        files += [f"{group.folders[0]}/memory.oom_control" for group in groups if group.version == 1]
        self._source = next((path for path in files if self._count(path) is not None), "")

    def read(self) -> OomKills:
        """The counters as they are now."""
        groups = [self._tree.read(f"{folder}/memory.oom.group") or "" for folder in self._folders]
        return OomKills(
            group=self._count(self._source) if self._source else None,
            host=self._count("/proc/vmstat"),
            all_at_once=any(text.strip() == "1" for text in groups),
            source=self._source,
        )

    def _count(self, path: str) -> int | None:
        return whole_number(stat_value(self._tree, path, "oom_kill"))
