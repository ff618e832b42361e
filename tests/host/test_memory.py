"""Memory and /dev/shm where the recorded machines leave a question open."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from keepfed.host.memory import Memory, parse_meminfo, read_memory, read_shm
from keepfed.host.probe import Probe
from keepfed.host.tree import Tree

SHM = "25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size={size}k\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def a_machine(folder: Path, files: dict[str, str]) -> Tree:
    for path, text in files.items():
        at = folder / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    return Tree(os.fspath(folder))


def memory_of(folder: Path, files: dict[str, str]) -> Memory:
    return read_memory(a_machine(folder, files), Probe())


def test_the_largest_number_of_version_1_means_no_limit(tmp_path: Path) -> None:
    group = "/sys/fs/cgroup/memory"
    found = memory_of(
        tmp_path,
        {
            "/proc/self/cgroup": "4:memory:/\n",
            "/proc/self/mountinfo": V1,
            f"{group}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}/memory.stat": "hierarchical_memory_limit 9223372036854771712\n",
        },
    )
    assert (found.total.value, found.total.cause) == (None, "unknown")
    assert {cause.name for cause in found.total.causes} == {"machine", "cgroup_v1_limit"}


def test_a_limit_above_the_mount_is_known_from_the_hierarchical_limit(tmp_path: Path) -> None:
    group = "/sys/fs/cgroup/memory"
    found = memory_of(
        tmp_path,
        {
            "/proc/meminfo": "MemTotal: 8000 kB\nMemAvailable: 7000 kB\n",
            "/proc/self/cgroup": "4:memory:/\n",
            "/proc/self/mountinfo": V1,
            f"{group}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}/memory.usage_in_bytes": "1024000\n",
            f"{group}/memory.stat": "hierarchical_memory_limit 4096000\n",
        },
    )
    assert (found.total.value, found.total.source) == (4096000, f"{group}/memory.stat")
    assert found.available.value == 4096000 - 1024000


def test_a_kernel_without_memavailable_counts_what_it_could_drop(tmp_path: Path) -> None:
    files = {"/proc/meminfo": "MemTotal: 9000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 1000 kB\n"}
    assert memory_of(tmp_path, files).available.value == 1110 * 1024


def test_of_two_mounts_on_shm_the_one_on_top_counts(tmp_path: Path) -> None:
    mounts = SHM.format(size=1000) + SHM.format(size=65536)
    tree = a_machine(tmp_path, {"/proc/self/mountinfo": mounts})
    assert read_shm(tree, Probe(), read_memory(tree, Probe())).size_bytes == 64 << 20


def test_a_link_at_dev_shm_is_followed(tmp_path: Path) -> None:
    """Older distributions mount /run/shm and link /dev/shm to it."""
    tree = a_machine(tmp_path, {"/proc/self/mountinfo": SHM.format(size=65536).replace("/dev/shm", "/run/shm")})
    (tmp_path / "run/shm").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/shm").symlink_to(tmp_path / "run/shm")
    assert read_shm(tree, Probe(), read_memory(tree, Probe())).size_bytes == 64 << 20


@given(st.text() | st.text(alphabet="MemTotal: 0123456789kB\n"))
def test_no_text_upsets_the_parser(text: str) -> None:
    assert all(value >= 0 for value in parse_meminfo(text).values())
