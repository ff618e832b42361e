"""What workers in fresh interpreters import: datasets and functions of the tests, with few imports of their own."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class Drawing(Dataset[Any]):
    """Samples from every random source of a worker; counts in memory that the processes share, raises at `bad`."""

    def __init__(self, length: int = 16, bad: int = -1, context: str = "spawn") -> None:
        self.length, self.bad = length, bad
        self.count: Any = multiprocessing.get_context(context).Value("i", 0)
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.count.get_lock():
            self.count.value += 1
        if index == self.bad:
            raise KeyError(f"no sample {index}")
        info = get_worker_info()
        assert info is not None
        return {
            "index": index,
            "epoch": self.epoch,
            "image": torch.rand(180, 180),
            "draws": (torch.randint(0, 9, (3,)), random.random(), np.random.rand(2)),
            "worker": (info.id, info.num_workers, info.seed, torch.initial_seed(), torch.get_num_threads()),
            "noted": getattr(self, "noted", -1),
        }


class Numbers(Dataset[torch.Tensor]):
    """0, 1, 2, …; a worker that reaches `stuck_at` sleeps."""

    def __init__(self, count: int = 40, stuck_at: int = -1) -> None:
        self.count, self.stuck_at = count, stuck_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.stuck_at:
            time.sleep(600)
        return torch.tensor(index)


class Stream(IterableDataset[Any]):
    """An iterable dataset: each worker draws its share."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        assert info is not None
        for number in range(info.id, 13, info.num_workers):
            yield number, float(torch.rand(()))


def note_id(worker_id: int) -> None:
    """A worker_init_fn."""
    info: Any = get_worker_info()
    info.dataset.noted = worker_id * 10


def fail(worker_id: int) -> None:
    """A worker_init_fn that raises."""
    raise ValueError(f"not with worker {worker_id}")


class Facts(Dataset[Any]):
    """What a worker knows about itself."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, _: int) -> dict[str, Any]:
        process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
        assert parent is not None
        return {
            "method": multiprocessing.get_start_method(),
            "daemon": process.daemon,
            "name": process.name,
            "authkey": bytes(process.authkey),
            "parent": parent.pid,
            "parent_alive": parent.is_alive(),
            "folder": str(Path.cwd()),
            "path": sys.path,
            "argv": sys.argv,
            "mark": os.environ.get("KEEPFED_WORKER"),
            "told": os.environ.get("TOLD"),
            "cores": os.sched_getaffinity(0),
            "threads": torch.get_num_threads(),
            "open": sorted(_links()),
            "nursery": os.getppid(),
        }


def _links() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return links


class Told(Dataset[Any]):
    """Samples with the pid of the worker and what the dataset was told before `iter()`."""

    def __init__(self, told: str = "", length: int = 32) -> None:
        self.told, self.length = told, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[float, float, str, int]:
        return float(index), float(torch.rand(())), self.told, os.getpid()


class Stuck(Dataset[Any]):
    """Sends its pid on a pipe and sleeps."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def __len__(self) -> int:
        return 8

    def __getitem__(self, _: int) -> int:
        self.pipe.send_bytes(str(os.getpid()).encode())
        time.sleep(600)
        return 0


class Mortal(Dataset[Any]):
    """Draws; kills its worker at three samples, once each: marks of that are left in `marks`. None: nobody dies."""

    DEATHS: ClassVar = {3: "kill", 9: "segfault", 14: "exit"}

    def __init__(self, marks: Path | None) -> None:
        self.marks = marks

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> Any:
        sample = index, torch.rand(150, 150), random.gauss(0, 1), float(np.random.rand())
        how = self.DEATHS.get(index)
        if how and self.marks is not None and not (self.marks / how).exists():
            (self.marks / how).touch()
            _die(how)
        return sample


class MortalStream(IterableDataset[Any]):
    """The same as a stream, each worker a share of its own."""

    def __init__(self, marks: Path | None) -> None:
        self.samples = Mortal(marks)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        for number in range(info.id, len(self.samples), info.num_workers):
            yield self.samples[number]


def _die(how: str) -> None:
    faulthandler.disable()  # pytest's, under fork: the crash is meant
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    os._exit(3)


class Refusing:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ("in the worker",)


def _refuse(where: str) -> None:
    raise LookupError(f"not {where}")


class Holding(Dataset[Any]):
    """Holds this and that."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index
