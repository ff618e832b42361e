"""How large a region may be, by the limits of the process: `ulimit -f` for its file, `ulimit -v` for its mapping.

A region is sparse and as large as memory allows, so both limits are met long before any memory is used. Going past the
first costs more than an error: a process that does not ignore SIGXFSZ is killed (setrlimit(2)).
"""

from __future__ import annotations

import os

from keepfed.loader.arena import SMALLEST_REGION
from keepfed.text import say

try:
    import resource
except ImportError:  # Windows has no such limits, and no memory files either
    resource = None  # type: ignore[assignment]  # see above


def largest_region_bytes(workers: int) -> int | None:
    """The most that each of `workers` regions may have; None without a limit.

    Half of the address space that is left is the program's: what it maps itself must not fail for our sparse files.
    """
    file, space = _soft("RLIMIT_FSIZE"), _soft("RLIMIT_AS")
    parts = [] if file is None else [file]
    if space is not None:
        parts.append(max(0, space - _mapped_bytes()) // (2 * max(1, workers)))
    return min(parts) if parts else None


def why_too_little(workers: int) -> str:
    """Which limit leaves too little room for regions, in words; empty when there is room."""
    largest = largest_region_bytes(workers)
    if largest is None or largest >= SMALLEST_REGION:
        return ""
    file = _soft("RLIMIT_FSIZE")
    option = "ulimit -f" if file is not None and file < SMALLEST_REGION else "ulimit -v"
    return say("loader.little_room", option=option, workers=workers, gibibytes=SMALLEST_REGION >> 30)


def _soft(name: str) -> int | None:
    if resource is None:
        return None
    soft: int = resource.getrlimit(getattr(resource, name))[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _mapped_bytes() -> int:
    """Address space that this process uses (first field of statm, proc(5))."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
