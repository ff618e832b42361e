"""How long a process has stood in the queue for a core, which no clock of its own tells it.

A worker whose batch takes 100 ms of wall and 40 ms of CPU time has waited for 60 ms: for the disk, or for a core that somebody
else had. The first is cured by faster storage, the second by more cores. Linux counts the second in /proc/PID/schedstat: time on
a core, time on the run queue (both in nanoseconds), turns (Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

from keepfed.host.tree import Tree


def queued_s(pid: int, tree: Tree | None = None) -> float | None:
    """Seconds that the main thread of `pid` was ready to run and had no core; None where the kernel does not say."""
    said = (tree or Tree()).read(f"/proc/{pid}/schedstat", most=256)
    try:
        return int((said or "").split()[1]) / 1e9
    except (ValueError, IndexError):
        return None
