"""The worker's side of a parcel: become a child of the trainer as multiprocessing has them, unpickle the job, work.

What happens here happens in every worker by itself, after its fork (parcel.py says why). A job that cannot be unpickled
would under torch end each worker with a traceback on its stderr, and the program with "worker exited unexpectedly". Here
the worker stays, and its answer to every task is that traceback: it comes out of `next()`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
from multiprocessing import context, process, resource_tracker, spawn
from typing import Any

import numpy as np
import torch

from keepfed.errors import WorkerNotReady
from keepfed.loader import torch_seam
from keepfed.loader.arena import Region
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.worker import WorkerJob, answer_all, work
from keepfed.text import say


class Contents:
    """The descriptors of a parcel as they came through the nursery (`Parcel.fds`)."""

    def __init__(self, fds: list[int], about_bytes: int, job_bytes: int) -> None:
        self._fds = fds
        self._sizes = about_bytes, job_bytes

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors: what the last process closes, the system gets back."""
        while self._fds:
            os.close(self._fds.pop())

    def unpack(self) -> WorkerJob:
        """Become the trainer's child and unpickle the job. The parcel is used up by that.

        Raises whatever the program's main module and its objects raise on the way.
        """
        pickled, blocks, tracker = self._fds[:3]
        resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # one for all, as in spawn_main
        current: Any = process.current_process()
        current._inheriting = True  # multiprocessing refuses to start processes meanwhile
        _opened[:] = [_Opened(blocks, self._fds[3:])]
        self._fds = [pickled, blocks]
        try:
            with (
                mmap.mmap(pickled, sum(self._sizes), mmap.MAP_SHARED, mmap.PROT_READ) as whole,
                memoryview(whole) as view,
            ):
                _become_child(pickle.loads(view[: self._sizes[0]]))  # noqa: S301  # private memory of one process tree
                job: WorkerJob = pickle.loads(view[self._sizes[0] :])  # noqa: S301  # the same
        finally:
            _opened.clear()
            del current._inheriting
            self.close()
        return job


def work_on(contents: Contents, worker_id: int, end: WorkerEnd, region: Region) -> None:
    """Be worker `worker_id` of the job in this parcel until the trainer says quit or is gone."""
    try:
        job = contents.unpack()
    except Exception as error:
        text = say("loader.not_ready", worker=worker_id, error=f"{type(error).__name__}: {error}")
        told = torch_seam.wrap_exception(WorkerNotReady(text).with_traceback(error.__traceback__))
        answer_all(told, end, region)
    else:
        work(job, worker_id, end, region)


def _become_child(about: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(about["environment"])
    os.environ["KEEPFED_WORKER"] = "1"
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, about["cores"])
    spawn.prepare(about["preparation"])
    context._force_start_method(about["method"])  # as multiprocessing's own children do


# ---- what pickles of a parcel call --------------------------------------------------------------------------------------


class CarriedFd:
    """What multiprocessing pickles in the place of a descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """The descriptor in this worker; it belongs to the caller from here on."""
        return _opened[0].fds[self._number]


def array_at(offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
    """An array whose elements lie in the parcel's blocks; writable, and private to this worker (copied where written)."""
    return np.ndarray(shape, dtype, _opened[0].private, offset, order=order)


def storage_at(offset: int, nbytes: int) -> torch.UntypedStorage:
    """A storage whose bytes lie in the parcel's blocks, shared with the other workers; one for all that ask for it."""
    opened = _opened[0]
    if offset not in opened.storages:
        whole = torch.frombuffer(opened.shared, dtype=torch.uint8, count=nbytes, offset=offset)
        opened.storages[offset] = whole.untyped_storage()
    return opened.storages[offset]


class _Opened:
    """Blocks and descriptors of the parcel that is being unpacked."""

    def __init__(self, blocks: int, fds: list[int]) -> None:
        self.fds = fds
        self.storages: dict[int, torch.UntypedStorage] = {}
        size = os.fstat(blocks).st_size
        self.private: Any = mmap.mmap(blocks, size, mmap.MAP_PRIVATE) if size else None
        self.shared: Any = mmap.mmap(blocks, size, mmap.MAP_SHARED) if size else None


_opened: list[_Opened] = []
