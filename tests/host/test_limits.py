"""Cores and limits of the process: the minimum, and the right name for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.host.limits import (
    Cause,
    Cores,
    lowest,
    parse_cpu_list,
    parse_cpu_max,
    read_cores,
    read_ulimits,
)
from keepfed.host.probe import Limit, Probe, live_probe
from keepfed.host.ranks import per_node, read_ranks, slurm_requests
from keepfed.host.tree import Tree

EMPTY = Tree("/nonexistent")
EIGHT = Probe(cpu_count=8, affinity=frozenset(range(8)))


def cores(environ: dict[str, str] | None = None, probe: Probe = EIGHT, ranks: int | None = None) -> Cores:
    environ = environ or {}
    return read_cores(EMPTY, environ, probe, read_ranks(environ, ranks))


def test_the_machine_is_named_when_nothing_else_binds() -> None:
    assert (cores().share.value, cores().share.cause) == (8, "machine")


def test_a_mask_of_three_cores_is_the_limit() -> None:
    share = cores(probe=Probe(cpu_count=8, affinity=frozenset({1, 2, 7}))).share
    assert (share.value, share.cause, share.source) == (3, "affinity", "sched_getaffinity")


def test_nothing_known_is_unknown_and_no_error() -> None:
    share = cores(probe=Probe()).share
    assert (share.value, share.cause, share.whole) == (None, "unknown", None)


def test_a_quota_of_half_a_core_counts_as_one() -> None:
    half = lowest([Cause("machine", 4, "x"), Cause("cgroup_v2_quota", 0.5, "cpu.max")])
    assert (half.value, half.whole, half.cause) == (0.5, 1, "cgroup_v2_quota")


def test_two_and_a_half_cores_count_as_two() -> None:
    assert lowest([Cause("cgroup_v1_quota", 2.5, "x")]).whole == 2


@pytest.mark.parametrize("variable", ["LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"])
def test_ranks_on_one_host_divide_its_cores(variable: str) -> None:
    found = cores({variable: "4"})
    assert (found.share.value, found.share.cause, found.share.source) == (2, "ranks", variable)
    assert found.pool.value == 8


def test_the_argument_overrides_the_environment() -> None:
    assert cores({"LOCAL_WORLD_SIZE": "4"}, ranks=2).share.value == 4


def test_ranks_of_torchrun_share_one_mask() -> None:
    """torchrun binds nothing: four cores given to it by taskset are four for all ranks together."""
    four = Probe(cpu_count=16, affinity=frozenset(range(4)))
    assert cores({"LOCAL_WORLD_SIZE": "4"}, probe=four).share.value == 1


def test_a_mask_that_srun_made_for_each_rank_is_not_divided_again() -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
    own = Probe(cpu_count=32, affinity=frozenset(range(8)))
    assert (cores(step, probe=own).share.value, cores(step, probe=own).share.cause) == (8, "affinity")


def test_a_batch_script_is_one_process_whatever_its_tasks_per_node() -> None:
    assert cores({"SLURM_JOB_ID": "1", "SLURM_NTASKS_PER_NODE": "4"}).share.value == 8


def test_a_request_to_slurm_counts_where_nothing_binds() -> None:
    share = cores({"SLURM_CPUS_ON_NODE": "6"}).share
    assert (share.value, share.cause, share.source) == (6, "slurm", "SLURM_CPUS_ON_NODE")
    assert [cause.enforced for cause in share.causes if cause.name == "slurm"] == [False]


def test_a_request_to_slurm_gives_way_to_a_mask() -> None:
    """With two threads per core SLURM may count cores where the mask counts threads: the mask is the evidence."""
    bound = Probe(cpu_count=64, affinity=frozenset(range(16)))
    assert cores({"SLURM_CPUS_PER_TASK": "8"}, probe=bound).share.cause == "affinity"


def test_slurm_counts_per_task_are_multiplied_by_the_tasks_of_this_node() -> None:
    environ = {"SLURM_CPUS_PER_TASK": "3", "SLURM_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3"}
    assert slurm_requests(environ) == (("SLURM_CPUS_PER_TASK", 3),)
    assert slurm_requests({**environ, "SLURM_NODEID": "2"}) == (("SLURM_CPUS_PER_TASK", 6),)


@pytest.mark.parametrize(
    ("text", "node", "count"),
    [
        ("72(x2),36", 0, 72),
        ("72(x2),36", 1, 72),
        ("72(x2),36", 2, 36),
        ("8", 5, 8),
        ("", 0, None),
        ("8(x", 0, 8),
        ("8(y2)", 0, None),
    ],
)
def test_slurm_lists_are_read_by_node(text: str, node: int, count: int | None) -> None:
    assert per_node(text, node) == count


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000\n", None),
        ("50000 100000", 0.5),
        ("250000 100000\n", 2.5),
        ("50000", 0.5),
        ("-1 100000", None),
        ("0 0", None),
        ("", None),
    ],
)
def test_quotas(text: str, quota: float | None) -> None:
    assert parse_cpu_max(text) == quota


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert parse_cpu_list("3-1,x,5") == {5}


def test_the_kernel_and_python_agree_on_the_limits_of_this_process() -> None:
    if not Path("/proc/self/limits").exists():
        pytest.skip("no /proc/self/limits: not Linux")
    from_files = read_ulimits(Tree(), Probe())
    assert from_files["nofile"].soft is not None
    assert from_files == dict(live_probe().limits)


def test_unlimited_is_none_and_a_garbled_limit_is_missing(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 unlimited            files     \n"
        "Max processes             many                 32768                processes \n"
    )
    assert read_ulimits(Tree(os.fspath(tmp_path)), Probe()) == {"nofile": Limit(1024, None)}


anything = (
    st.text()
    | st.text(alphabet="0123456789,-(x) max٣_\n")
    | st.binary().map(lambda raw: raw.decode("utf-8", errors="replace"))
)


@given(anything, st.integers(0, 10**6))
def test_no_text_upsets_the_parsers(text: str, node: int) -> None:
    quota = parse_cpu_max(text)
    assert quota is None or quota > 0
    assert all(0 <= cpu < 65536 for cpu in parse_cpu_list(text))
    count = per_node(text, node)
    assert count is None or count >= 0


@given(
    st.dictionaries(
        st.sampled_from(["LOCAL_WORLD_SIZE", "SLURM_STEP_ID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_CPUS_PER_TASK"]),
        anything,
    )
)
def test_no_environment_upsets_the_ranks(environ: dict[str, str]) -> None:
    assert 1 <= read_ranks(environ).count <= 4096
    assert cores(environ).share.value is not None
