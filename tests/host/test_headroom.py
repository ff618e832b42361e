"""How near memory is to its limit: recorded control groups, and the machine that runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepfed.host.headroom import MemoryGauge
from keepfed.host.tree import Tree

MIB = 1 << 20
MACHINE = f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "35 31 0:32 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
PRESSURE = "some avg10={} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"


def gauge(folder: Path, files: dict[str, str]) -> MemoryGauge:
    for path, text in files.items():
        at = folder / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    return MemoryGauge(Tree(os.fspath(folder)))


def group_of_version_2(folder: Path, current: int, stat: str, limit: str = f"{1024 * MIB}", **more: str) -> MemoryGauge:
    at = "/sys/fs/cgroup/job"
    return gauge(
        folder,
        {
            "/proc/meminfo": MACHINE,
            "/proc/self/cgroup": "0::/job\n",
            "/proc/self/mountinfo": V2,
            f"{at}/memory.max": f"{limit}\n",
            f"{at}/memory.current": f"{current}\n",
            f"{at}/memory.stat": stat,
            **{f"{at}/memory.{name}": text for name, text in more.items()},
        },
    )


def test_page_cache_counts_as_free_whether_the_kernel_calls_it_active_or_not(tmp_path: Path) -> None:
    stat = f"anon {300 * MIB}\nshmem {100 * MIB}\ninactive_file {200 * MIB}\nactive_file {400 * MIB}\n"
    found = group_of_version_2(tmp_path, 1000 * MIB, stat).read()
    assert found is not None
    assert (found.used_bytes, found.limit_bytes, found.left_bytes) == (400 * MIB, 1024 * MIB, 624 * MIB)
    assert found.source == "/sys/fs/cgroup/job"


def test_a_group_above_which_the_kernel_throttles_is_full_there(tmp_path: Path) -> None:
    found = group_of_version_2(tmp_path, 600 * MIB, "", high=f"{700 * MIB}\n").read()
    assert found is not None
    assert found.limit_bytes == 700 * MIB


def test_pressure_is_that_of_the_group_whose_limit_is_next(tmp_path: Path) -> None:
    found = group_of_version_2(tmp_path, 600 * MIB, "", pressure=PRESSURE.format("12.50")).read()
    assert found is not None
    assert found.pressure == 12.5


def test_a_group_without_a_limit_leaves_the_machine(tmp_path: Path) -> None:
    found = group_of_version_2(tmp_path, 600 * MIB, "", limit="max").read()
    assert found is not None
    assert (found.source, found.used_bytes >> 30, found.limit_bytes >> 30) == ("/proc/meminfo", 4, 16)
    assert found.pressure is None


def test_a_group_that_is_emptier_than_the_machine_leaves_the_machine(tmp_path: Path) -> None:
    found = group_of_version_2(tmp_path, MIB, "", limit=f"{15 << 30}").read()
    assert found is not None
    assert found.source == "/proc/meminfo"


def test_limits_are_read_anew_each_time(tmp_path: Path) -> None:
    """Orchestrators resize containers in place, and systemd changes MemoryMax of running units."""
    found = group_of_version_2(tmp_path, 600 * MIB, "")
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text(f"{2048 * MIB}\n")
    read = found.read()
    assert read is not None
    assert read.limit_bytes == 2048 * MIB


def test_version_1_counts_the_page_cache_of_its_descendants(tmp_path: Path) -> None:
    at = "/sys/fs/cgroup/memory"
    stat = f"active_file 1\ntotal_inactive_file {100 * MIB}\ntotal_active_file {50 * MIB}\n"
    files = {
        "/proc/meminfo": MACHINE,
        "/proc/self/cgroup": "4:memory:/\n",
        "/proc/self/mountinfo": V1,
        f"{at}/memory.limit_in_bytes": f"{512 * MIB}\n",
        f"{at}/memory.usage_in_bytes": f"{400 * MIB}\n",
        f"{at}/memory.stat": stat,
    }
    found = gauge(tmp_path, files).read()
    assert found is not None
    assert (found.used_bytes, found.limit_bytes) == (250 * MIB, 512 * MIB)


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert gauge(tmp_path, {}).read() is None
    assert gauge(tmp_path, {"/proc/meminfo": "MemTotal: lots\n"}).read() is None


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="no /proc here")
def test_this_machine_has_a_limit() -> None:
    found = MemoryGauge(Tree()).read()
    assert found is not None
    assert 0 < found.used_bytes < found.limit_bytes
