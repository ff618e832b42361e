"""HostFacts of recorded and described machines, of broken ones, and of this one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.host.container import read_wsl
from keepfed.host.facts import HostFacts, read_host
from keepfed.host.gpu import Gpu, Gpus, skip_gpus
from keepfed.host.probe import FileSystemUse, Probe
from keepfed.host.words import amount, cores_in_words, gpus_in_words, memory_in_words, number, shm_in_words
from keepfed.text import choose_language, words

TREES = Path(__file__).parent / "trees"
GIB = 1 << 30
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with system calls of Linux")
KEYS = [
    "cores",
    "cores_cause",
    "cores_source",
    "cores_pool",
    "cores_machine",
    "ranks",
    "memory_bytes",
    "memory_cause",
    "memory_source",
    "memory_available_bytes",
    "memory_available_cause",
    "shm_bytes",
    "shm_used_bytes",
    "shm_cause",
    "ulimits",
    "gpus",
    "gpus_reason",
    "container",
    "kubernetes",
    "wsl",
    "slurm",
    "kernel",
    "cpu_model",
    "shmem_enabled",
    "load_1m",
    "cpu_pressure",
    "io_pressure",
    "memory_pressure",
    "python",
    "fingerprint",
]


def recorded(
    name: str, environ: dict[str, str] | None = None, probe: Probe | None = None, ranks: int | None = None
) -> HostFacts:
    return read_host(TREES / name / "root", environ or {}, probe=probe, ranks=ranks)


def test_a_podman_container_with_limits() -> None:
    """The numbers of --cpus=1.5 --memory=512m --shm-size=128m, from a real container."""
    facts = recorded("podman_v1_limits", {"container": "podman"}, Probe(shm=FileSystemUse(128 << 20, 0, 3085512, 1)))
    assert (facts.cores.value, facts.cores.cause, facts.cores.whole) == (1.5, "cgroup_v1_quota", 1)
    assert facts.cores_machine == 2
    assert (facts.memory_bytes, facts.memory.cause) == (512 << 20, "cgroup_v1_limit")
    assert facts.memory_available_bytes == 536870912 - (4218880 - 339968)
    assert (facts.shm.filesystem, facts.shm.size_bytes, facts.shm.inodes_used) == ("tmpfs", 128 << 20, 1)
    assert (facts.container, facts.kubernetes, facts.kernel) == ("podman", False, "6.18.44-fc-v595")
    assert (facts.cpu_model, facts.shmem_enabled, facts.load_1m) == ("AMD EPYC", "never", 0.07)
    assert (facts.cpu_pressure, facts.io_pressure) == (0.0001, 0.0004)
    assert facts.ulimits["nofile"].soft == 20000
    assert facts.fingerprint.startswith("1.5c-0.5g-")


def test_the_size_of_shm_is_read_from_its_mount_where_no_call_can_be_made() -> None:
    shm = recorded("podman_v1_limits").shm
    assert (shm.size_bytes, shm.used_bytes) == (128 << 20, None)


def test_an_ancestor_binds_although_the_own_group_sets_no_limit() -> None:
    facts = recorded("cgroup_v2_ancestors")
    assert (facts.cores.value, facts.cores.cause) == (4, "cgroup_v2_quota")
    assert facts.cores.source == "/sys/fs/cgroup/user.slice/user-1000.slice/cpu.max"
    assert facts.cpu_pressure == 0.125


def test_the_throttle_below_the_limit_is_the_ceiling_and_its_own_use_is_subtracted() -> None:
    facts = recorded("cgroup_v2_ancestors")
    assert (facts.memory_bytes, facts.memory.cause) == (12 * GIB, "cgroup_v2_high")
    assert (facts.memory_available_bytes, facts.memory_available.cause) == (9 * GIB, "cgroup_v2_high")


def test_a_group_whose_name_is_hidden_is_found_by_its_list_of_processes() -> None:
    facts = recorded("cgroup_namespace_old_mount")
    assert (facts.cores.value, facts.cores.source) == (3, "/sys/fs/cgroup/ours/cpu.max")


def test_a_kubernetes_pod_under_version_2() -> None:
    facts = recorded("kubernetes_v2", {"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert (facts.cores.value, facts.cores.whole, facts.cores.cause) == (2.5, 2, "cgroup_v2_quota")
    assert (facts.memory_bytes, facts.memory_available_bytes) == (4 * GIB, 2 * GIB)
    assert (facts.shm.size_bytes, facts.shm.ceiling.cause) == (64 << 20, "tmpfs")
    assert (facts.container, facts.kubernetes) == ("kubernetes", True)


def test_exclusive_cpus_of_a_pod_are_named_as_its_cpuset() -> None:
    facts = recorded("kubernetes_v1_static")
    assert (facts.cores.value, facts.cores.cause) == (4, "cpuset")
    assert facts.kubernetes


def test_a_generous_shm_is_bound_by_the_memory_limit() -> None:
    facts = recorded("kubernetes_v1_static")
    assert (facts.shm.size_bytes, facts.shm.ceiling.value, facts.shm.ceiling.cause) == (8 * GIB, 4 * GIB, "memory")
    assert facts.memory_available_bytes == 4 * GIB - GIB // 2


SRUN = {
    "SLURM_JOB_ID": "3385",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "4",
    "SLURM_CPUS_PER_TASK": "8",
    "SLURM_CPUS_ON_NODE": "32",
}


def test_a_task_that_srun_has_bound_keeps_its_own_cpus() -> None:
    facts = recorded("slurm_v2_bound", SRUN)
    assert (facts.cores.value, facts.cores.cause, facts.cores_pool.value) == (8, "affinity", 32)
    assert facts.cores_pool.cause == "cpuset"
    assert (facts.memory_bytes, facts.slurm_job) == (128 * GIB, "3385")


def test_torchrun_inside_one_task_divides_the_cpus_of_that_task() -> None:
    facts = recorded("slurm_v2_bound", {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "1", "LOCAL_WORLD_SIZE": "4"})
    assert (facts.cores.value, facts.cores.cause) == (2, "ranks")


def test_where_slurm_enforces_nothing_its_word_counts_and_is_called_so() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "72,16(x2)", "SLURM_NODEID": "1"}
    facts = recorded("slurm_nothing_enforced", environ)
    assert (facts.cores.value, facts.cores.cause) == (16, "slurm")
    assert "nothing on this host enforces it" in cores_in_words(facts)


def test_wsl_is_told_by_its_kernel() -> None:
    facts = recorded("wsl2")
    assert (facts.wsl, facts.container, facts.cores.value, facts.cores.cause) == (2, None, 16, "machine")
    assert facts.shm.size_bytes is None  # its mount names no size: half of the memory, which only statvfs tells
    assert read_wsl("4.4.0-19041-Microsoft") == 1
    assert read_wsl("6.8.0-51-generic") is None


def test_every_tree_says_where_it_comes_from() -> None:
    trees = [tree for tree in TREES.iterdir() if tree.is_dir()]
    assert trees
    for tree in trees:
        first = (tree / "SOURCE.md").read_text().partition("\n")[0]
        assert "recorded" in first, tree.name


def test_a_tree_brings_nothing_of_this_machine_with_it(tmp_path: Path) -> None:
    facts = read_host(tmp_path, {})
    assert (facts.cores.value, facts.memory_bytes, facts.shm.size_bytes, facts.kernel) == (None, None, None, None)
    assert (facts.ulimits, facts.gpus, facts.gpus_reason) == ({}, (), "not_read")
    assert facts.fingerprint.startswith("?c-?g-")


def test_a_machine_without_shm_says_so(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "22 1 0:5 / / rw - ext4 /dev/sda rw\n24 22 0:6 / /dev rw - devtmpfs none rw\n"
    )
    facts = read_host(tmp_path, {})
    assert (facts.shm.ceiling.value, facts.shm.ceiling.cause, facts.shm.filesystem) == (0, "missing", None)
    assert "missing" in shm_in_words(facts)


def test_a_shm_that_is_only_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("22 1 0:5 / / rw - overlay overlay rw\n")
    facts = read_host(tmp_path, {}, probe=Probe(shm=FileSystemUse(10 * GIB, GIB)))
    assert (facts.shm.filesystem, facts.shm.ceiling.cause) == ("overlay", "not_tmpfs")


def test_the_json_object_has_the_documented_keys(repository: Path) -> None:
    document = (repository / "docs/design/facts.md").read_text()
    for name in ("podman_v1_limits", "wsl2"):
        host = recorded(name).to_json()
        assert list(host) == KEYS
        assert json.loads(json.dumps(host)) == host
    assert [key for key in KEYS if f"`{key}`" not in document] == []


def test_gpus_are_part_of_the_json_object_and_of_the_fingerprint() -> None:
    gpu = Gpu(0, "NVIDIA H200", "GPU-0", 150 << 30, 0, 0.5, None)
    with_gpu = read_host(TREES / "wsl2" / "root", {}, gpus=lambda: Gpus((gpu, replace(gpu, index=1))))
    assert with_gpu.to_json()["gpus"][0] == {
        "name": "NVIDIA H200",
        "memory_bytes": 150 << 30,
        "used_bytes": 0,
        "utilisation": 0.5,
        "uuid": "GPU-0",
    }
    assert gpus_in_words(with_gpu) == "GPUs: 2 × NVIDIA H200"
    assert with_gpu.fingerprint != recorded("wsl2").fingerprint


def test_ranks_do_not_change_the_fingerprint() -> None:
    assert recorded("wsl2", ranks=4).fingerprint == recorded("wsl2").fingerprint


@linux_only
def test_this_machine_agrees_with_the_calls_of_python() -> None:
    facts = read_host(environ={}, gpus=skip_gpus)
    assert facts.cores.value is not None
    assert facts.cores.value <= len(os.sched_getaffinity(0))
    assert facts.memory_bytes is not None
    assert facts.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    use = os.statvfs("/dev/shm")
    assert facts.shm.size_bytes == use.f_blocks * use.f_frsize
    assert facts.kernel == os.uname().release
    assert facts.fingerprint == read_host(environ={}, gpus=skip_gpus).fingerprint


@linux_only
def test_another_process_can_be_asked_about() -> None:
    assert read_host(environ={}, pid=os.getpid(), gpus=skip_gpus).cores == read_host(environ={}, gpus=skip_gpus).cores
    gone = read_host(environ={}, pid=2**22 + 1, gpus=skip_gpus)
    assert gone.cores_machine == os.cpu_count()


def test_reading_this_machine_takes_less_than_100_ms_of_cpu_time() -> None:
    read_host(gpus=skip_gpus)  # imports
    start = time.process_time()
    for _ in range(5):
        read_host(gpus=skip_gpus)
    assert (time.process_time() - start) / 5 < 0.05


def test_facts_need_neither_torch_nor_processes(repository: Path) -> None:
    script = "import sys; from keepfed.host.facts import read_host; read_host(); print([m for m in ('torch', 'multiprocessing') if m in sys.modules])"
    environ = {**os.environ, "PYTHONPATH": os.fspath(repository / "src")}
    assert subprocess.check_output([sys.executable, "-c", script], env=environ, text=True, timeout=30).strip() == "[]"


# A broken machine ----------------------------------------------------------------------------------------------------------


FILES = sorted(
    {
        os.fspath(path.relative_to(tree / "root"))
        for tree in TREES.iterdir()
        for path in tree.rglob("root/**/*")
        if path.is_file()
    }
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(FILES), st.binary(max_size=60) | st.sampled_from([b"max", b"-1 0", b"9" * 5000, b"0-99999999"])
    )
)
def test_no_content_of_any_file_raises(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("garbled")
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    json.dumps(read_host(folder, {}).to_json())


@pytest.mark.parametrize("name", sorted(tree.name for tree in TREES.iterdir()))
def test_a_recorded_machine_with_garbled_files_is_still_read(name: str, tmp_path: Path) -> None:
    """Every file of the tree in turn is replaced by noise; the others still tell what they told."""
    chance = random.Random(name)
    source = TREES / name / "root"
    for path in source.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.relative_to(source)).write_bytes(path.read_bytes())
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        path.write_bytes(chance.randbytes(200))
        json.dumps(read_host(tmp_path, {}).to_json())
        path.write_bytes(content)


@linux_only
@pytest.mark.timeout(20)
def test_a_pipe_or_folder_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)
    os.mkfifo(tmp_path / "proc/meminfo")
    (tmp_path / "proc/self/mountinfo").symlink_to("mountinfo")
    assert read_host(tmp_path, {}).memory_bytes is None


# Words ---------------------------------------------------------------------------------------------------------------------


def test_every_cause_and_reason_has_its_words() -> None:
    """Causes are keys: one without words would be printed as a bare key."""
    known = {key for key in words("en") if key.startswith("host.")}
    for name in (tree.name for tree in TREES.iterdir()):
        facts = recorded(name, SRUN if name == "slurm_v2_bound" else {}, ranks=2)
        for ceiling, room in ((facts.cores, "cores"), (facts.memory, "memory"), (facts.shm.ceiling, "shm")):
            assert f"host.{room}.{ceiling.cause}" in known
            assert {f"host.{room}.{cause.name}" for cause in ceiling.causes} <= known


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_are_complete_in_both_languages(language: str) -> None:
    choose_language(language)
    try:
        for name in (tree.name for tree in TREES.iterdir()):
            facts = recorded(name)
            for sentence in (cores_in_words(facts), memory_in_words(facts), shm_in_words(facts), gpus_in_words(facts)):
                assert not sentence.startswith("host.")
                assert "{" not in sentence
    finally:
        choose_language(None)


def test_numbers_are_written_for_people() -> None:
    assert [number(value) for value in (8, 1.5, 100, 2 / 3, None)] == ["8", "1.5", "100", "0.67", "?"]
    assert [amount(value) for value in (0, 64 << 20, 25276514304, None)] == ["0 B", "64 MiB", "23.5 GiB", "?"]
