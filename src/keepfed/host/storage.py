"""How fast the storage gives files that are not in memory: some are taken out of the page cache and read again.

    posix_fadvise(DONTNEED) ─▶ read, timed (cold) ─▶ read again, timed (cached)

A training run reads what the page cache happens to hold, so its own times say nothing about the disk. The kernel may refuse to
forget (tmpfs, pages that somebody maps, some network and overlay file systems), and does not say so: only where the second
reading is much faster than the first was anything measured. Of large files a few ranges are taken, so that a file with a whole
data set in it stays cached. posix_fadvise(2).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RANGE_BYTES = 4 << 20
"""Of a larger file, so much is taken at a time."""
RANGES_PER_FILE = 8
FORGOT = 1.5
"""Cold reading that is not so many times slower than cached reading was not cold, or the storage is as fast as memory."""
_PIECE_BYTES = 1 << 20

Range = tuple[str, int, int]
"""Path, first byte, bytes."""


@dataclass(frozen=True, slots=True)
class ReadSpeed:
    """What reading some files took, one reader at a time."""

    nbytes: int
    """Bytes read, once cold and once cached."""
    cold_s: float
    """Seconds for them from the storage."""
    cached_s: float
    """Seconds for them from memory."""

    @property
    def forgot(self) -> bool:
        """Whether the first reading came from the storage."""
        return self.nbytes > 0 and self.cold_s >= FORGOT * self.cached_s

    @property
    def cold_bytes_per_s(self) -> float:
        """What the storage gives."""
        return self.nbytes / max(self.cold_s, 1e-9)


def ranges_of(path: str) -> list[Range]:
    """The parts of this file to read: all of a small one, a few evenly spread ranges of a large one. None where it is gone."""
    try:
        size = os.stat(path).st_size
    except OSError:
        return []
    if size <= RANGE_BYTES * RANGES_PER_FILE:
        return [(path, 0, size)] if size else []
    stride = size // RANGES_PER_FILE
    return [(path, number * stride, RANGE_BYTES) for number in range(RANGES_PER_FILE)]


def forget(ranges: Iterable[Range]) -> bool:
    """Ask the kernel to drop these from the page cache; whether it can be asked at all."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path, start, nbytes in ranges:
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), start, nbytes, os.POSIX_FADV_DONTNEED)
    return True


def read_speed(ranges: Sequence[Range], *, until_s: float) -> ReadSpeed:
    """Read these cold, then cached, as many of them as there is time for (time.monotonic)."""
    nbytes, cold_s, cached_s = 0, 0.0, 0.0
    for one in ranges:
        if time.monotonic() > until_s or not forget([one]):
            break
        with contextlib.suppress(OSError):
            first, again = _read(one), _read(one)
            nbytes, cold_s, cached_s = nbytes + first[0], cold_s + first[1], cached_s + again[1]
    return ReadSpeed(nbytes, cold_s, cached_s)


def _read(part: Range) -> tuple[int, float]:
    """Bytes and seconds."""
    path, start, left = part
    read, began_s = 0, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left > read and (piece := file.read(min(_PIECE_BYTES, left - read))):
            read += len(piece)
    return read, time.perf_counter() - began_s
