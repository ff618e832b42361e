from __future__ import annotations

import pytest

from keepfed.errors import UsageError
from keepfed.knobs.knob import knob_of, size_bytes, wish
from keepfed.knobs.spelling import spelled


@pytest.mark.parametrize(
    "name",
    [
        "num_workers",
        "--num-workers",
        "NUM_WORKERS",
        "numWorkers",
        "worker_num",
        "data_num_workers",
        "dataloader_num_workers",
        "workers_per_gpu",
        "num_worker_per_gpu",
        "data_loader_workers",
        "loader_workers",
        "num_workers_dataloader",
        "max_data_loader_n_workers",
        "num_worker",
        "no_of_workers",
        "num_loading_workers",
        "eval_dataloader_num_workers",
        "test_num_workers",
        "n_local_workers",
        "num_dl_workers",
        "train_n_workers",
        "num_workers_per_gpu",
        "dataloader-num-workers",
        "n_jobs_dataloader",
        "num_loader_threads",
    ],
)
def test_a_workers_name_is_known_in_any_order(name: str) -> None:
    found = spelled(name)
    assert found is not None
    assert (found.knob, found.sure) == ("num_workers", True)


@pytest.mark.parametrize(
    "name", ["workers", "n_cpu", "nThreads", "num_threads", "WORKERS", "reader_num", "-j", "n_workers", "worker_count"]
)
def test_a_name_that_others_use_too_is_not_sure(name: str) -> None:
    found = spelled(name)
    assert found is not None
    assert not found.sure


@pytest.mark.parametrize(
    "name",
    [
        "cv_num_threads",
        "worker_init_fn",
        "worker-type",
        "FI_EFA_ENABLE_SHM_TRANSFER",
        "supergradients_debug_workers",
        "BackwardPrefetch",
        "bucket-prefetch-pools",
        "num_ray_workers",
        "intra_op_num_threads",
        "max_workers",
        "num_worker_threads",
        "NO_WORKERS",
        "batch_size",
        "pin_memory_device",
        "prefetch_mode",
    ],
)
def test_a_name_that_only_looks_alike_is_none(name: str) -> None:
    assert spelled(name) is None


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("prefetch_factor", "prefetch_factor"),
        ("--pin-mem", "pin_memory"),
        ("dataloader_pin_memory", "pin_memory"),
        ("persistent_data_loader_workers", "persistent_workers"),
        ("OMP_NUM_THREADS", "threads_env"),
        ("num_cpu_threads_per_process", "threads_env"),
        ("--shm-size", "shm_size"),
        ("--cpus-per-task", "cpus_per_task"),
    ],
)
def test_neighbours_are_known(name: str, knob: str) -> None:
    assert knob_of(name) == knob


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2g", 2 << 30),
        ("2048m", 2 << 30),
        ("512M", 512 << 20),
        ("64gb", 64 << 30),
        ("67108864", 64 << 20),
        ("4Gi", 4 << 30),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    "pair",
    [
        "num_workers=-1",
        "num_workers=abc",
        "num_workers=1000000000",
        "prefetch_factor=0",
        "pin_memory=maybe",
        "shm_size=2x",
        "shm_size=0",
        "OMP_NUM_THREADS=0",
    ],
)
def test_a_value_out_of_range_says_what_was_expected(pair: str) -> None:
    with pytest.raises(UsageError, match=r"expected"):
        wish(*pair.split("="))


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"Did you mean num_workers\?"):
        knob_of("num_wrokers")
