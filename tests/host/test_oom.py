"""The OOM killer's counters, in control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

from keepfed.host.oom import OomCounter, OomKills
from keepfed.host.tree import Tree

V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {kills}\noom_group_kill 0\n"
VMSTAT = "nr_free_pages 5\noom_kill {kills}\npgfault 6\n"


def a_machine(folder: Path, files: dict[str, str]) -> Tree:
    for path, text in files.items():
        at = folder / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    return Tree(os.fspath(folder))


def test_version_2_counts_in_memory_events(tmp_path: Path) -> None:
    group = "/sys/fs/cgroup/job"
    files = {
        "/proc/self/cgroup": "0::/job\n",
        "/proc/self/mountinfo": V2,
        "/proc/vmstat": VMSTAT.format(kills=9),
        f"{group}/memory.events": EVENTS.format(kills=2),
        f"{group}/memory.oom.group": "0\n",
    }
    counter = OomCounter(a_machine(tmp_path, files))
    assert counter.read() == OomKills(2, 9, all_at_once=False, source=f"{group}/memory.events")
    a_machine(tmp_path, {f"{group}/memory.events": EVENTS.format(kills=3), f"{group}/memory.oom.group": "1\n"})
    assert counter.read() == OomKills(3, 9, all_at_once=True, source=f"{group}/memory.events")


def test_version_2_without_a_controller_of_its_own_is_counted_by_the_group_above(tmp_path: Path) -> None:
    files = {
        "/proc/self/cgroup": "0::/pod/job\n",
        "/proc/self/mountinfo": V2,
        "/sys/fs/cgroup/pod/job/cgroup.procs": "",
        "/sys/fs/cgroup/pod/memory.events": EVENTS.format(kills=1),
        "/sys/fs/cgroup/pod/memory.oom.group": "1\n",
    }
    found = OomCounter(a_machine(tmp_path, files)).read()
    assert found == OomKills(1, None, all_at_once=True, source="/sys/fs/cgroup/pod/memory.events")


def test_version_1_counts_its_own_group_alone(tmp_path: Path) -> None:
    files = {
        "/proc/self/cgroup": "4:memory:/pod/job\n",
        "/proc/self/mountinfo": V1,
        "/sys/fs/cgroup/memory/pod/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        "/sys/fs/cgroup/memory/pod/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 70\n",
    }
    found = OomCounter(a_machine(tmp_path, files)).read()
    assert (found.group, found.source) == (4, "/sys/fs/cgroup/memory/pod/job/memory.oom_control")


def test_old_kernels_and_hidden_files_count_nothing(tmp_path: Path) -> None:
    """Before Linux 4.13 version 1 says only whether it is killing now."""
    files = {
        "/proc/self/cgroup": "4:memory:/job\n",
        "/proc/self/mountinfo": V1,
        "/sys/fs/cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
    }
    assert OomCounter(a_machine(tmp_path, files)).read() == OomKills(None, None, all_at_once=False, source="")
    assert OomCounter(Tree(os.fspath(tmp_path / "nothing"))).read() == OomKills(None, None, False, "")


def test_garbage_is_no_number(tmp_path: Path) -> None:
    group = "/sys/fs/cgroup/job"
    files = {"/proc/self/cgroup": "0::/job\n", "/proc/self/mountinfo": V2, f"{group}/memory.events": "oom_kill -1\n"}
    assert OomCounter(a_machine(tmp_path, files)).read().group is None
