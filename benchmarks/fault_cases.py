"""What goes wrong in `faults.py` and `soak.py`, and the data that it happens to.

Every sample has a number, the pid of the worker that made it, a draw from the worker's random stream and a payload that
follows from its number: whatever is lost, repeated, out of order or altered shows in the program that reads it.

A fault strikes in one of three places:

    in the trainer, after some batch            in a worker, once               around the whole program
    kill, stop, kill the zygote                 in a sample, or while a         1 MB /dev/shm, 48 descriptors,
                                                batch is being sent             a lock held when workers are started

What strikes in a worker leaves the time in a file first, which also keeps it from striking twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

METHODS = ("fork", "forkserver", "spawn")
KINDS = ("map", "iterable")
WORKERS = 3
BATCH = 4
BATCHES = 60
"""In an epoch; a multiple of WORKERS, so that every worker's share of a stream is equally long."""
STRUCK_BATCH = 20
"""The batch in whose making a fault of a worker strikes, or after which one of the trainer does."""
SAMPLE_S = 0.002
PAYLOAD = 8192
"""float32 values of a sample: batches of 128 KiB, which are not copied out."""

Workers = Sequence[int]
"""Pids of the workers alive."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which things go wrong."""

    title: str
    strikes: tuple[int, ...] = ()
    """After so many batches the trainer strikes."""
    strike: Callable[[Workers], None] | None = None
    """What it does to its workers then."""
    settle_s: float = 0.0
    """How long the program waits before it strikes."""
    deadly: bool = False
    """It kills workers, and the batch that follows is timed."""
    in_sample: Callable[[], None] | None = None
    """What one sample does to its worker, once."""
    while_sending: bool = False
    """The worker is killed with a finished batch in hand."""
    held_lock: bool = False
    """Another thread of the trainer holds a lock of the dataset while workers are started."""
    corrupt: int = -1
    """The sample with this number raises, every time."""
    payload: Callable[[int], int] = lambda _number: PAYLOAD
    """Length of a sample's payload by its number; the same for all samples of a batch."""
    keep: bool = False
    """The program keeps all batches."""
    descriptors: int = 0
    """Open files that the program may have; 0 for as many as usual."""
    shm_mb: int = 0
    """Size of /dev/shm; 0 for what is there."""
    trainer_dies: bool = False
    """The trainer is killed: what is asked is whether its children go with it."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments that keepfed.DataLoader has for this."""
    only_keepfed: bool = False
    """torch's loader has nothing that this could happen to."""
    only_fork: bool = False


def _signal_first(number: int) -> Callable[[Workers], None]:
    return lambda workers: _send(workers[:1], number)


def _send(pids: Workers, number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_zygote(workers: Workers) -> None:
    """The worker's parent. Never the trainer."""
    parent = parent_of(workers[0])
    if parent in {0, 1, os.getpid()}:
        raise RuntimeError(f"worker {workers[0]} has no parent between the program and itself: {parent}")
    os.kill(parent, signal.SIGKILL)


def _segfault() -> None:
    faulthandler.disable()  # a test run's own: this crash is meant
    ctypes.string_at(0)


def _sleep_forever() -> None:
    while True:
        time.sleep(3600)


_AFTER = (STRUCK_BATCH,)
FAULTS = {
    "none": Fault("no fault"),
    "growing": Fault("batches grow from 128 KiB to 7.5 MiB", payload=lambda number: PAYLOAD * (1 + number // BATCH)),
    "keeping": Fault("the program keeps every batch", keep=True),
    "trainer-killed": Fault("the training process is killed", trainer_dies=True),
    "killed": Fault("a worker is killed (SIGKILL)", _AFTER, _signal_first(signal.SIGKILL), deadly=True),
    "all-killed": Fault(
        "all workers are killed at once", _AFTER, lambda workers: _send(workers, signal.SIGKILL), deadly=True
    ),
    "six-killed": Fault(
        "six workers are killed in turn", (8, 16, 24, 32, 40, 48), _signal_first(signal.SIGKILL), deadly=True
    ),
    "segfault": Fault("segmentation fault in a sample", in_sample=_segfault, deadly=True),
    "exit": Fault("os._exit(3) in a sample", in_sample=lambda: os._exit(3), deadly=True),
    "killed-sending": Fault("a worker is killed while it sends a batch", while_sending=True, deadly=True),
    "small-shm": Fault("/dev/shm of 1 MB", shm_mb=1, payload=lambda _number: 16 * PAYLOAD),
    "few-descriptors": Fault("48 descriptors, every batch kept", keep=True, descriptors=48),
    "stopped": Fault("a worker is stopped (SIGSTOP)", _AFTER, _signal_first(signal.SIGSTOP)),
    "sleep": Fault("sleep(forever) in a sample", in_sample=_sleep_forever, options={"stall_timeout": 2.0}),
    "lock": Fault("a lock held by another thread at fork", held_lock=True, only_fork=True),
    # Its stand-in is made 0.2 s after the start.
    "zygote-killed": Fault(
        "the process that forks workers is killed",
        _AFTER,
        _kill_zygote,
        settle_s=1.0,
        only_keepfed=True,
        deadly=True,
    ),
    "corrupt": Fault("a sample raises", corrupt=81, options={"on_error": "skip"}, only_keepfed=True),
}


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        )
    return 0


def stricken_s(folder: Path) -> float | None:
    """When a fault of a worker struck (time.monotonic()); None if it did not."""
    try:
        return float((folder / "struck").read_text(encoding="ascii"))
    except OSError:
        return None


def strikes_now(folder: Path) -> bool:
    """Whether this is the first that asks, which leaves the time for `stricken_s`."""
    try:
        with (folder / "struck").open("x", encoding="ascii") as file:
            file.write(repr(time.monotonic()))
    except FileExistsError:
        return False
    return True


class Samples:
    """How samples are made, by number. Travels to spawned workers, and so knows its fault by name."""

    def __init__(self, fault: str, folder: Path, lock: Any = None, *, sample_s: float = SAMPLE_S) -> None:
        """A fault of a worker leaves its mark in `folder`; `lock` is held by somebody else, or None."""
        self.fault, self.folder, self.lock, self.sample_s = fault, folder, lock, sample_s

    def make(self, number: int) -> dict[str, Any]:
        """One sample."""
        fault = FAULTS[self.fault]
        if number == fault.corrupt:
            raise ValueError(f"sample {number} is broken")
        draw = torch.rand(())
        time.sleep(self.sample_s)
        if self.lock is not None:
            with self.lock:
                pass
        if fault.in_sample is not None and number == STRUCK_BATCH * BATCH and strikes_now(self.folder):
            fault.in_sample()
        payload = torch.full((fault.payload(number),), float(number))
        return {"number": number, "pid": os.getpid(), "draw": draw, "payload": payload}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """torch's own; with something in it that kills the worker when it is pickled, should that be the fault."""
        batch = default_collate(samples)
        if FAULTS[self.fault].while_sending and samples[0]["number"] == STRUCK_BATCH * BATCH:
            batch["deadly"] = KillsItsSender(self.folder)
        return batch


class Listed(Dataset[Any]):
    """Samples by index."""

    def __init__(self, samples: Samples, length: int) -> None:
        self.samples, self.length = samples, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples.make(index)


class Streamed(IterableDataset[Any]):
    """The same samples as a stream, of which every worker reads a share: batches are consecutive numbers here, too."""

    def __init__(self, samples: Samples, length: int) -> None:
        self.samples, self.length = samples, length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        assert info is not None
        starts = range(info.id * BATCH, self.length, info.num_workers * BATCH)
        # No generator, which would be over after a sample that raises.
        return map(self.samples.make, (number for start in starts for number in range(start, start + BATCH)))


DATASETS = {"map": Listed, "iterable": Streamed}


class KillsItsSender:
    """Kills the process that pickles it, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        if strikes_now(self.folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return str, ("harmless",)


def is_right(batch: dict[str, Any], fault: Fault) -> bool:
    """Whether every payload is what its number says, to the last element."""
    numbers = batch["number"].tolist()
    length = fault.payload(numbers[0])
    wanted = batch["number"].to(torch.float32).unsqueeze(1).expand(-1, length)
    return torch.equal(batch["payload"], wanted)
