"""Which folders hold the limits of a process: from /proc/PID/cgroup and mountinfo, live and garbled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.host.cgroups import find_group, parse_memberships, parse_mounts, way_down
from keepfed.host.tree import Tree


def a_machine(folder: Path, group: str, mounts: str, files: dict[str, str] | None = None) -> Tree:
    for path, text in {"/proc/self/cgroup": group, "/proc/self/mountinfo": mounts, **(files or {})}.items():
        at = folder / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    return Tree(os.fspath(folder))


def a_mount(root: str, point: str, kind: str = "cgroup2", options: str = "rw") -> str:
    return f"30 23 0:26 {root} {point} rw,relatime shared:4 - {kind} {kind} {options}\n"


@pytest.mark.parametrize(
    ("root", "path", "way"),
    [
        ("/", "/a/b", (0, ("a", "b"))),
        ("/docker/1", "/docker/1", (0, ())),
        ("/docker/1", "/docker/1/job", (0, ("job",))),
        ("/..", "/", (1, ())),
        ("/../..", "/x", (2, ("x",))),
        ("/../..", "/../x", (1, ("x",))),
        ("/docker/1", "/docker/2", None),
        ("/", "/../x", None),
        ("/docker/1", "/", None),
    ],
)
def test_the_way_from_a_mount_to_a_group(root: str, path: str, way: tuple[int, tuple[str, ...]] | None) -> None:
    assert way_down(root, path) == way


def test_all_ancestors_up_to_the_mount_are_found_own_group_first(tmp_path: Path) -> None:
    tree = a_machine(tmp_path, "0::/a/b\n", a_mount("/", "/sys/fs/cgroup"), {"/sys/fs/cgroup/a/b/cpu.max": "max"})
    (group,) = find_group(tree, "cpu")
    assert group.version == 2
    assert group.folders == ("/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup")


def test_a_bind_mount_of_the_own_group_is_found_where_it_is(tmp_path: Path) -> None:
    mounts = a_mount("/jobs/7", "/my\\040groups", "cgroup", "rw,cpu,cpuacct")
    tree = a_machine(tmp_path, "3:cpu,cpuacct:/jobs/7/step\n", mounts, {"/my groups/step/cpu.cfs_quota_us": "1"})
    (group,) = find_group(tree, "cpu")
    assert (group.version, group.folders) == (1, ("/my groups/step", "/my groups"))


def test_a_mount_that_shows_the_group_is_preferred_to_one_on_top_that_does_not(tmp_path: Path) -> None:
    mounts = a_mount("/", "/sys/fs/cgroup") + a_mount("/elsewhere", "/mnt/cgroup")
    tree = a_machine(tmp_path, "0::/a\n", mounts, {"/sys/fs/cgroup/a/cpu.max": "max", "/mnt/cgroup/cpu.max": "1 1"})
    assert find_group(tree, "cpu")[0].folders[0] == "/sys/fs/cgroup/a"


def test_of_two_mounts_that_show_the_group_the_one_on_top_counts(tmp_path: Path) -> None:
    mounts = a_mount("/", "/sys/fs/cgroup") + a_mount("/a", "/sys/fs/cgroup")
    tree = a_machine(tmp_path, "0::/a\n", mounts, {"/sys/fs/cgroup/cpu.max": "max", "/sys/fs/cgroup/a/cpu.max": "1 1"})
    assert find_group(tree, "cpu")[0].folders == ("/sys/fs/cgroup",)


def test_the_limits_of_a_sibling_are_not_taken_for_ours(tmp_path: Path) -> None:
    """A mount of another group would answer, but for somebody else."""
    files = {
        "/sys/fs/cgroup/cpu.max": "10000 100000",
        "/proc/self/status": "Pid:\t9\n",
        "/sys/fs/cgroup/cgroup.procs": "8\n",
    }
    assert find_group(a_machine(tmp_path, "0::/b\n", a_mount("/a", "/sys/fs/cgroup"), files), "cpu") == ()


def test_a_mount_that_lists_the_process_is_its_group_whatever_the_paths_say(tmp_path: Path) -> None:
    files = {"/proc/self/status": "Name:\tx\nPid:\t9\n", "/sys/fs/cgroup/cgroup.procs": "8\n9\n"}
    (group,) = find_group(a_machine(tmp_path, "0::/b\n", a_mount("/a", "/sys/fs/cgroup"), files), "cpu")
    assert group.folders == ("/sys/fs/cgroup",)


def test_without_a_mount_there_is_no_group(tmp_path: Path) -> None:
    assert find_group(a_machine(tmp_path, "0::/a\n4:memory:/b\n", ""), "memory") == ()


def test_a_deleted_group_still_has_its_ancestors(tmp_path: Path) -> None:
    tree = a_machine(
        tmp_path, "0::/a/gone (deleted)\n", a_mount("/", "/sys/fs/cgroup"), {"/sys/fs/cgroup/a/cpu.max": "max"}
    )
    assert find_group(tree, "cpu")[0].folders[:2] == ("/sys/fs/cgroup/a/gone", "/sys/fs/cgroup/a")


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", errors="replace")))
def test_no_text_upsets_the_parsers(text: str) -> None:
    assert all(member.path.startswith("/") for member in parse_memberships(text))
    assert isinstance(parse_mounts(text), tuple)


@given(st.text(alphabet="/.ab"), st.text(alphabet="/.ab"))
def test_a_way_never_leads_out_of_the_mount(root: str, path: str) -> None:
    way = way_down(root, path)
    assert way is None or ".." not in way[1]
