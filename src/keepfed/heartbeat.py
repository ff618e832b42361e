"""What every worker is doing right now, in a row of shared memory: readable while it runs, and after a SIGKILL.

    heartbeat-<pid>.map    64 bytes: magic, version, the trainer's pid, number of rows
                           64 bytes per worker: written by that worker, read by anybody

A log says what was; a stuck worker writes none. Eight integers in shared memory cost 0.1 µs a sample, and say at any time
which sample of which batch a worker is at, in which phase, since when. They are advice: nothing that keeps data apart depends
on them, and a torn or stale row costs a sentence in a message.

Below `keepfed run` and `tune` the rows are a file in the run folder, so that other programs can read them; without a run
each worker has its row in memory that it shares with the trainer anyway (loader/beats.py).
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import count, repeat
from operator import setitem
from pathlib import Path

MAGIC = b"keepfed\1"
ROW_BYTES = 64
MOST_ROWS = 1_023
"""Workers beyond so many have no row: the file is 64 KiB."""
FILE_BYTES = ROW_BYTES * (1 + MOST_ROWS)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HEADER = struct.Struct("<8sqq")
_ROW = struct.Struct("<8q")
_PID, _WORKER, _EPOCH, _BATCH, _SAMPLE, _PHASE, _SINCE_NS, _BEGUN = range(8)


class Phase(IntEnum):
    """What a worker is doing."""

    STARTING = 0
    """Seeding, worker_init_fn, the first iter() of an iterable dataset."""
    IDLE = 1
    """Waiting for a task."""
    FETCHING = 2
    """In the dataset's code."""
    COLLATING = 3
    """Making a batch of its samples."""
    SENDING = 4
    """Encoding the batch."""
    WAITING_FOR_ROOM = 5
    """All its slots are with the program."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One worker at one moment."""

    pid: int
    """Its process; 0 when there is none."""
    worker: int
    """Its id."""
    epoch: int
    """The epoch of its batch, from 0."""
    batch: int
    """The batch that it makes, or has just sent, from 0; -1 when it waits for one."""
    sample: int
    """Which sample of the batch, from 0; -1 where that cannot be told (`__getitems__` makes them all at once)."""
    phase: Phase
    """What it is doing."""
    since_s: float
    """When it began with this batch, or began to wait for one (CLOCK_MONOTONIC, which all processes of a host share)."""
    begun: int
    """Batches that it has begun."""


class Pulse:
    """A worker's own row. Every method is a few stores; none can fail."""

    __slots__ = ("_row",)

    def __init__(self, row: memoryview, worker: int) -> None:
        """`row` has ROW_BYTES."""
        self._row = row = row.cast("q")
        row[_PID], row[_WORKER], row[_BEGUN] = os.getpid(), worker, 0
        row[_EPOCH] = row[_BATCH] = row[_SAMPLE] = -1
        row[_PHASE], row[_SINCE_NS] = Phase.STARTING, time.monotonic_ns()

    def batch(self, epoch: int, number: int) -> None:
        """The worker begins a batch."""
        row = self._row
        row[_SAMPLE] = -1
        row[_EPOCH], row[_BATCH] = epoch, number
        row[_PHASE], row[_SINCE_NS] = Phase.FETCHING, time.monotonic_ns()
        row[_BEGUN] += 1

    def samples(self) -> Iterator[None]:
        """Each step says that the worker asks the dataset for the next sample of the batch. In C: it costs 60 ns."""
        return map(setitem, repeat(self._row), repeat(_SAMPLE), count())  # type: ignore[arg-type]  # typeshed knows no memoryview of integers there

    def phase(self, phase: Phase) -> None:
        """The worker goes on to the next part of its batch."""
        self._row[_PHASE] = phase

    def waits_for_room(self) -> Phase:
        """All slots are out; the phase that this interrupts."""
        before = Phase(self._row[_PHASE])
        self._row[_PHASE] = Phase.WAITING_FOR_ROOM
        return before

    def idle(self) -> None:
        """The worker begins to wait for a task."""
        row = self._row
        row[_BATCH] = -1
        row[_PHASE], row[_SINCE_NS] = Phase.IDLE, time.monotonic_ns()


def read_row(row: bytes | memoryview, start: int = 0) -> Heartbeat:
    """The row that begins at `start`."""
    pid, worker, epoch, batch, sample, phase, since_ns, begun = _ROW.unpack_from(row, start)
    known = Phase(phase) if phase in Phase._value2member_map_ else Phase.STARTING
    return Heartbeat(pid, worker, epoch, batch, sample, known, since_ns / 1e9, begun)


def clear_row(row: memoryview) -> None:
    """The worker of this row is gone."""
    row[:ROW_BYTES] = bytes(ROW_BYTES)


def header(trainer_pid: int) -> bytes:
    """What a heartbeat file begins with."""
    return _HEADER.pack(MAGIC, trainer_pid, MOST_ROWS)


def row_start(row: int) -> int:
    """Where in a heartbeat file this row begins."""
    return ROW_BYTES * (1 + row)


def file_of(folder: Path, trainer_pid: int) -> Path:
    """Where the workers of this process have their rows."""
    return folder / f"heartbeat-{trainer_pid}.map"


def read_folder(folder: Path) -> dict[int, list[Heartbeat]]:
    """What the workers of each training process of a run are doing, by that process's pid. Skips what cannot be read."""
    found: dict[int, list[Heartbeat]] = {}
    for path in sorted(folder.glob("heartbeat-*.map")):
        with contextlib.suppress(OSError, ValueError):
            pid, rows = read_file(path)
            found[pid] = rows
    return found


def read_file(path: Path) -> tuple[int, list[Heartbeat]]:
    """The trainer's pid and the rows of its workers, from a file that they may be writing at this moment.

    Raises ValueError for anything else than a heartbeat file, and OSError when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW)
    with open(descriptor, "rb") as file:
        data = file.read(FILE_BYTES)
    if len(data) < ROW_BYTES or not data.startswith(MAGIC):
        raise ValueError(f"{path} is not a heartbeat file")
    _, pid, rows = _HEADER.unpack_from(data)
    whole = min(rows, len(data) // ROW_BYTES - 1)
    found = [read_row(data, row_start(row)) for row in range(whole)]
    return pid, [beat for beat in found if beat.pid]
