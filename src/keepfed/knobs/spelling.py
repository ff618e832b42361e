"""Which names are the loader's settings, in all the ways in which people write them.

`num_workers`, `--num-workers`, `worker_num`, `workers_per_gpu`, `max_data_loader_n_workers`: word order, number and joints vary
freely, so a name is cut into words and judged by the set of them. Some names say it by themselves (*sure*); others are a
loader's in one file and Ray's, gunicorn's or OpenMP's in the next (`workers`, `num_threads`, `n_cpu`): whoever reads the file
has to find a reason around them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_JOINTS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_WORKER = {"worker", "workers"}
_NUMBER = {"num", "n", "nb", "number", "count", "max", "nr", "no", "nums", "numof"}
_LOADING = {"data", "loader", "loaders", "dataloader", "dataloaders", "dataset", "loading", "dl", "reader", "input"}
_PARTS = {
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "eval",
    "evaluation",
    "test",
    "testing",
    "inference",
    "t",
    "v",
}
_SHARE = {"per", "gpu", "gpus", "device", "rank", "local", "cpu", "default", "of", "total", "process", "torch", "pt"}
_AROUND = _LOADING | _PARTS | _SHARE

THREAD_VARIABLES = frozenset(
    {
        "OMP_NUM_THREADS",
        "OMP_THREAD_LIMIT",
        "MKL_NUM_THREADS",
        "MKL_DOMAIN_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "GOTO_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMEXPR_MAX_THREADS",
        "NUMBA_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
        "TORCH_NUM_THREADS",
    }
)
"""Environment variables that set, or are believed to set, how many threads a library starts."""

_WEAK_WORKERS = {
    ("workers",),
    ("worker",),
    ("n", "workers"),
    ("n", "worker"),
    ("worker", "count"),
    ("workers", "count"),
    ("num", "threads"),
    ("n", "threads"),
    ("nthreads",),
    ("nthread",),
    ("threads",),
    ("num", "thread"),
    ("n", "cpu"),
    ("n", "cpus"),
    ("num", "cpu"),
    ("num", "cpus"),
    ("reader", "num"),
    ("num", "readers"),
    ("j",),
    ("nw",),
    ("num", "procs"),
    ("n", "jobs"),
}


@dataclass(frozen=True, slots=True)
class Spelled:
    """What a name means."""

    knob: str
    """Canonical name of the setting."""
    sure: bool
    """Whether the name alone says so; otherwise its surroundings have to."""


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, small: `--num-workers`, `numWorkers` and `NUM_WORKERS` are the same two."""
    return tuple(word.lower() for word in _JOINTS.split(name) if word)


@lru_cache(maxsize=4096)
def spelled(name: str) -> Spelled | None:
    """The setting that a name stands for, or None. `name` is the last part of a dotted path, or an option with its dashes."""
    if name in THREAD_VARIABLES:
        return Spelled("threads_env", sure=True)
    if name in {"-c", "-j"}:
        return Spelled("cpus_per_task", sure=False) if name == "-c" else Spelled("num_workers", sure=False)
    words = words_of(name)
    found = set(words)
    if not words or len(words) != len(found):
        return None
    return _neighbour(found) or _workers(words, found)


def _neighbour(found: set[str]) -> Spelled | None:
    if {"prefetch", "factor"} <= found and found - {"prefetch", "factor"} <= _AROUND:
        return Spelled("prefetch_factor", sure=True)
    if found & {"pin"} and found & {"memory", "mem"} and found - {"pin", "memory", "mem"} <= _LOADING | _PARTS:
        return Spelled("pin_memory", sure=True)
    if found & {"persistent", "persist"} and found & _WORKER and found - {"persistent", "persist"} - _WORKER <= _AROUND:
        return Spelled("persistent_workers", sure=True)
    if found in ({"shm", "size"}, {"shared", "memory", "size"}):
        return Spelled("shm_size", sure=found == {"shm", "size"})
    if found == {"size", "limit"}:
        # Kubernetes' name for the size of a volume, which is shared memory where it is mounted so.
        return Spelled("shm_size", sure=False)
    if found == {"cpus", "per", "task"}:
        return Spelled("cpus_per_task", sure=True)
    if found == {"num", "cpu", "threads", "per", "process"}:
        # accelerate launch sets OMP_NUM_THREADS from it.
        return Spelled("threads_env", sure=True)
    return None


def _workers(words: tuple[str, ...], found: set[str]) -> Spelled | None:
    if words in _WEAK_WORKERS:
        return Spelled("num_workers", sure=False)
    by_hands = "threads" in found or words[:2] == ("n", "jobs")
    others = found - _WORKER - _NUMBER - ({"threads", "jobs"} if by_hands else set())
    if not others <= _AROUND or found <= _WORKER | {"max"} or ("no" in found and "of" not in found):
        # max_workers is what pools of threads and processes are given; no_of_workers is a number, no_workers none.
        return None
    if by_hands:
        return Spelled("num_workers", sure=True) if others & _LOADING and not found & _WORKER else None
    if found & _WORKER and (found & _NUMBER or ("workers" in found and others & _LOADING) or {"per", "gpu"} <= found):
        return Spelled("num_workers", sure=True)
    if "workers" in found and others and others <= _PARTS:
        # train_workers: the loader's beside a batch size, Ray's beside a cluster.
        return Spelled("num_workers", sure=False)
    return None
