"""What workers that are not forked from the trainer get instead of its memory: their job, pickled once per iterator.

    trainer, at iter()                                       zygote (hatched in a nursery)       worker k
    ──────────────────                                       ─────────────────────────────       ────────
    preparation, job ── pickled once ──▶ memfd "contents" ─────────── held ─────────────────▶ reads it for itself
      ├ arrays of 64 KiB and more ─────▶ memfd "blocks"  ─────────── held ────────────────▶ maps it, private
      ├ tensors ── to /dev/shm, as torch does ── descriptors ─────── held ────────────────▶ maps them, shared
      │      └─ no room there ─────────▶ memfd "blocks"  ─────────── held ────────────────▶ maps it, shared
      └ mp.Value, Lock, Queue … ───────── descriptors ────────────── held ────────────────▶ copies of its own

torch's DataLoader pickles the dataset once per worker and writes it into a pipe of 64 KiB that the worker reads when it has
imported torch: workers start one after the other. A memory file takes everything at once, and serves the workers that are
added or replaced later, which then have the dataset as it was at `iter()`.

Each worker unpickles the job for itself, after its fork: a dataset's `__setstate__` may open files or start threads, and
must not do so once for all. Before that the worker becomes what multiprocessing's own child would be (`spawn.prepare`).

*Tensors* are the program's own memory afterwards, as under torch: their storage moves into shared memory, and a write in
any process is seen by all. That is torch's own reducer's doing and needs /dev/shm (64 MB in a container, unless told
otherwise), or a descriptor for each storage. Where it cannot be had, and from the 129th storage on, the bytes are copied
into the parcel: then workers share them with each other, no longer with the trainer. *Arrays* are each worker's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import context, resource_tracker, spawn
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any

import numpy as np
import torch

from keepfed.loader.arena import PAGE, memory_file
from keepfed.loader.unpack import CarriedFd, array_at, storage_at
from keepfed.loader.unpicklable import named
from keepfed.loader.worker import WorkerJob

SHARED_STORAGES = 128
"""So many storages of a dataset are moved into shared memory, at one descriptor each (RLIMIT_NOFILE is often 1024)."""
BLOCK_BYTES = 64 << 10
"""Smaller arrays are pickled in place: a page for each would be wasted."""


def preparation() -> dict[str, Any]:
    """What a new interpreter needs to become a child of this process, as multiprocessing gives it to its own children.

    Raises RuntimeError in a process that is only just importing the program's main module: a program without
    `if __name__ == "__main__":` would start workers from its workers.
    """
    data = spawn.get_preparation_data("")
    del data["name"]
    return data


class Parcel:
    """The job of one iterator, as descriptors: contents, blocks, the resource tracker's, and those of the job's parts."""

    def __init__(self, fds: list[int], preparation_bytes: int, job_bytes: int) -> None:
        self.fds = fds
        self.sizes = preparation_bytes, job_bytes

    @classmethod
    def pack(cls, job: WorkerJob, data: dict[str, Any], method: str) -> Parcel:
        """Pickle the job for workers of this start method.

        Raises what pickling raises, with the path to the part that cannot be pickled (see `unpicklable.named`).
        """
        about = {
            "preparation": data,
            "method": method,
            "environment": dict(os.environ),
            "cores": os.sched_getaffinity(0),
        }
        fds: list[int] = []
        try:
            fds += [memory_file(), memory_file(), os.dup(_tracker())]
            with _spawning(fds), open(fds[0], "wb", closefd=False) as contents:
                ParcelPickler(contents, _Blocks(fds[1])).dump(about)
                preparation_bytes = contents.tell()
                _dump(job, contents, fds[1])
                return cls(fds, preparation_bytes, contents.tell() - preparation_bytes)
        except BaseException:
            _close(fds)
            raise

    def close(self) -> None:
        """Close this process's descriptors of it."""
        _close(self.fds)

    def __del__(self) -> None:
        self.close()


def _close(fds: list[int]) -> None:
    while fds:
        with contextlib.suppress(OSError):
            os.close(fds.pop())


def _tracker() -> int:
    """Descriptor of multiprocessing's resource tracker.

    Without it, a worker that attaches shared memory starts a tracker of its own, which unlinks that memory when the worker
    ends.
    """
    fd = resource_tracker.getfd()
    assert fd is not None  # it has just been started
    return fd


class _Spawning:
    """What multiprocessing asks for descriptors while it pickles a process object: in its own words a Popen."""

    DupFd = CarriedFd

    def __init__(self, fds: list[int]) -> None:
        self._fds, self._first = fds, len(fds)

    def duplicate_for_child(self, fd: int) -> int:
        """Take this descriptor along. A copy of it: the program may close its own while workers are still to come."""
        self._fds.append(os.dup(fd))
        return len(self._fds) - 1 - self._first


@contextmanager
def _spawning(fds: list[int]) -> Iterator[None]:
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Spawning(fds))  # type: ignore[arg-type]  # all that reducers use of a Popen
    try:
        yield
    finally:
        context.set_spawning_popen(before)


def _dump(job: WorkerJob, contents: IO[bytes], blocks: int) -> None:
    try:
        ParcelPickler(contents, _Blocks(blocks)).dump(job)
    except Exception as error:
        told = named(error, job.loop_arguments, ForkingPickler(io.BytesIO()).dispatch_table)
        if told is error:
            raise
        raise told from error


class _Blocks:
    """Large pieces of memory, one after the other in a memory file, each on pages of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._storages: dict[int, int] = {}
        self.moved = 0
        """Storages that were moved into shared memory so far."""

    def add(self, data: Any) -> int:
        """Where these bytes begin."""
        start = os.fstat(self._fd).st_size
        with memoryview(data) as view, view.cast("B") as left:
            written = 0
            while written < len(left):
                written += os.pwrite(self._fd, left[written:], start + written)
            os.ftruncate(self._fd, start + -(-len(left) // PAGE) * PAGE)
        return start

    def add_storage(self, storage: torch.UntypedStorage) -> int:
        """Where the bytes of this storage begin; once for all tensors that share it."""
        key = storage.data_ptr()
        if key not in self._storages:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
            self._storages[key] = self.add(whole.numpy())
        return self._storages[key]


class ParcelPickler(ForkingPickler):
    """Pickles as multiprocessing and torch do; arrays and storages may leave only a place behind."""

    def __init__(self, file: IO[bytes], blocks: _Blocks) -> None:
        super().__init__(file)
        by_torch = self.dispatch_table[torch.UntypedStorage]
        self.dispatch_table = {
            **self.dispatch_table,
            np.ndarray: partial(_reduce_array, blocks),
            torch.UntypedStorage: partial(_reduce_storage, blocks, by_torch),
        }


def _reduce_array(blocks: _Blocks, array: np.ndarray[Any, Any]) -> Any:
    if array.nbytes < BLOCK_BYTES or array.dtype.hasobject:
        return array.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = np.ascontiguousarray(array.T if fortran else array).reshape(-1).view(np.uint8)
    return array_at, (blocks.add(flat), array.dtype, array.shape, "F" if fortran else "C")


def _reduce_storage(blocks: _Blocks, by_torch: Any, storage: torch.UntypedStorage) -> Any:
    """Shared with the trainer where that is so already or can be made so, else shared among the workers."""
    if storage.device.type != "cpu" or storage.nbytes() == 0 or storage.is_shared():
        return by_torch(storage)
    if blocks.moved < SHARED_STORAGES:
        blocks.moved += 1
        with contextlib.suppress(RuntimeError, OSError):  # no room in /dev/shm, no descriptors, no /dev/shm
            return by_torch(storage)
    return storage_at, (blocks.add_storage(storage), storage.nbytes())
