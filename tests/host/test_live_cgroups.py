"""A real control group of this machine, with a quota and a memory limit, around a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keepfed.host.cgroups import find_group
from keepfed.host.tree import Tree

# The child joins the groups itself, then looks: what it reads must be its own limits, not those of the test.
CHILD = """
import json, sys
from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
for procs in sys.argv[1:]:
    with open(procs, "w") as file:
        file.write("0")
facts = read_host(environ={}, gpus=skip_gpus)
print(json.dumps({"host": facts.to_json(), "whole": facts.cores.whole}))
"""


def a_child_group(stack: ExitStack, controller: str, limits: dict[str, str]) -> Path:
    """A new group of version 1 below our own, with `limits`; removed afterwards."""
    groups = [group for group in find_group(Tree(), controller) if group.version == 1]
    if not groups:
        pytest.skip(f"no cgroup v1 hierarchy with the {controller} controller here")
    folder = Path(groups[0].folders[0]) / f"keepfed-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"groups cannot be made here: {error}")
    stack.callback(folder.rmdir)
    for name, value in limits.items():
        (folder / name).write_text(value)
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def facts_inside(repository: Path, *folders: Path) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": os.fspath(repository / "src")}
    command = [sys.executable, "-c", CHILD, *(os.fspath(folder / "cgroup.procs") for folder in folders)]
    answer: dict[str, Any] = json.loads(subprocess.check_output(command, env=environ, text=True, timeout=30))
    return answer


def test_a_process_in_a_group_with_a_quota_reads_that_quota(stack: ExitStack, repository: Path) -> None:
    folder = a_child_group(stack, "cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"})
    facts = facts_inside(repository, folder)
    assert (facts["host"]["cores"], facts["host"]["cores_cause"], facts["whole"]) == (0.5, "cgroup_v1_quota", 1)
    assert facts["host"]["cores_source"] == os.fspath(folder / "cpu.cfs_quota_us")


def test_a_quota_above_a_group_without_one_binds(stack: ExitStack, repository: Path) -> None:
    folder = a_child_group(stack, "cpu", {"cpu.cfs_quota_us": "75000"})
    inner = folder / "inner"
    inner.mkdir()
    stack.callback(inner.rmdir)
    facts = facts_inside(repository, inner)
    assert (facts["host"]["cores"], facts["host"]["cores_source"]) == (0.75, os.fspath(folder / "cpu.cfs_quota_us"))


def test_a_process_in_a_group_with_a_memory_limit_reads_limit_and_room(stack: ExitStack, repository: Path) -> None:
    limit = 300 << 20
    folder = a_child_group(stack, "memory", {"memory.limit_in_bytes": str(limit)})
    facts = facts_inside(repository, folder)["host"]
    assert (facts["memory_bytes"], facts["memory_cause"]) == (limit, "cgroup_v1_limit")
    assert facts["memory_source"] == os.fspath(folder / "memory.limit_in_bytes")
    assert 0 < facts["memory_available_bytes"] <= limit
    assert facts["shm_cause"] == "memory"


def test_the_test_itself_is_outside_of_those_groups() -> None:
    assert not any("keepfed-test" in folder for group in find_group(Tree(), "cpu") for folder in group.folders)
