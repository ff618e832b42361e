"""Where the heartbeats of this process's workers stand: in the run folder's file, or each in its worker's region.

    below `keepfed run`, `tune`       heartbeat-<pid>.map:   header │ row 0 │ row 1 │ … (rows are lent to crews)
    otherwise, or where a file        region of worker k:    notes … │ row │ slots …
    cannot be mapped safely

Workers store into the mapping with every sample, so it must never be the mapping that stops them. A store into a file of a
network file system may wait for its server, and one into a file of a full disk is a SIGBUS: only file systems of this host
are used, and only with all blocks allocated before.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from keepfed.heartbeat import FILE_BYTES, MOST_ROWS, NO_FOLLOW, ROW_BYTES, Pulse, file_of, header, row_start
from keepfed.loader.arena import Region

_LOCAL = frozenset({"ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"})
"""Of this host, and overwriting in place: btrfs and ZFS need a new block for every write."""


class _File:
    """A heartbeat file, mapped in this process as long as a crew has rows of it."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | NO_FOLLOW)
        try:
            self.memory = memoryview(mmap.mmap(descriptor, FILE_BYTES))
        finally:
            os.close(descriptor)


_files: weakref.WeakValueDictionary[str, _File] = weakref.WeakValueDictionary()


class Rows:
    """The rows of one crew: one per worker id."""

    def __init__(self, path: str = "", first: int = 0) -> None:
        """Of the heartbeat file at `path`, `first` being worker 0's; without a path each row is in its worker's region."""
        self.path, self.first = path, first
        self._file: _File | None = None
        if path:
            with contextlib.suppress(OSError, ValueError):
                self._file = _files[path] = _files.get(path) or _File(path)

    def __reduce__(self) -> tuple[type[Rows], tuple[str, int]]:
        """A worker in another interpreter maps the file anew."""
        return Rows, (self.path, self.first)

    def of(self, worker_id: int, region: Region) -> memoryview:
        """The row of this worker, in whichever process."""
        if self._file is None:
            return region.heartbeat()
        start = row_start(self.first + worker_id)
        return self._file.memory[start : start + ROW_BYTES]

    def pulse(self, worker_id: int, region: Region) -> Pulse:
        """The row, for the worker itself to write."""
        return Pulse(self.of(worker_id, region), worker_id)


IN_REGIONS = Rows()


class Board:
    """The heartbeat file of this process, and who has which rows of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file, self._pid = "", 0
        self._lent: list[range] = []

    def write_into(self, folder: Path) -> None:
        """From now on crews get rows of a file in this run folder, if one can be made there."""
        with contextlib.suppress(OSError, ValueError):
            if _file_system(folder) in _LOCAL:
                file = file_of(folder, os.getpid())
                _make(file)
                self._file, self._pid = str(file), os.getpid()
                self._lent.clear()

    def lend(self, count: int, to: object) -> Rows:
        """Rows for `count` workers, until `to` is gone. Rows in their regions where the file has no room for all of them."""
        if not self._file or self._pid != os.getpid():  # forked by the program: the file is the parent's
            return IN_REGIONS
        with self._lock:
            first = self._room_for(count)
            if first is None:
                return IN_REGIONS
            lent = range(first, first + count)
            self._lent.append(lent)
        weakref.finalize(to, self._return, lent).atexit = False
        return Rows(self._file, first)

    def _room_for(self, count: int) -> int | None:
        starts = [0, *(lent.stop for lent in self._lent)]
        free = (start for start in sorted(starts) if not _overlaps(range(start, start + count), self._lent))
        first = next(free, MOST_ROWS)
        return first if first + count <= MOST_ROWS else None

    def _return(self, lent: range) -> None:
        """This is a finalizer: one call in C."""
        with contextlib.suppress(ValueError):
            self._lent.remove(lent)


def _overlaps(rows: range, others: Iterable[range]) -> bool:
    return any(rows.start < other.stop and other.start < rows.stop for other in list(others))


def _make(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        os.pwrite(descriptor, header(os.getpid()), 0)
    except BaseException:
        os.unlink(file)
        raise
    finally:
        os.close(descriptor)


def _file_system(folder: Path) -> str:
    """The type of the file system that this folder is on, from /proc/self/mountinfo (proc(5)); "" where that is unknown."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((kind for number, kind in _mounts() if number == wanted), "")


def _mounts() -> Iterator[tuple[str, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            about, _, kind = line.partition(" - ")
            yield about.split()[2], kind.split()[0]


class Stamped(list[Any]):
    """The indices of a batch; reading them in turn says in the row at which one the worker is."""

    def __init__(self, indices: list[Any], pulse: Pulse) -> None:
        super().__init__(indices)
        self._pulse = pulse

    def __iter__(self) -> Iterator[Any]:
        """The indices, each noted before it is handed out."""
        return map(itemgetter(0), zip(super().__iter__(), self._pulse.samples(), strict=False))


def stamps(dataset: Any) -> bool:
    """Whether samples are fetched one by one, so that reading the indices tells which one is being made."""
    from torch.utils.data import Subset

    inner = dataset.dataset if type(dataset) is Subset else dataset  # a Subset of a Subset hands all indices on at once
    try:
        return not callable(getattr(inner, "__getitems__", None))
    except Exception:  # a __getattr__ of the program's: torch will meet it too, and raise it where the program sees it
        return False


shared = Board()
"""The rows of this process's workers."""
