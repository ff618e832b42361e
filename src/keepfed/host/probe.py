"""What the kernel tells only through calls, not through files: the affinity mask, file system use, limits off Linux.

Kept apart from the files so that a recorded machine can bring its own answers, and so that nothing of the machine that runs
the tests slips into the facts of a recorded one.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

SHM_PATH = "/dev/shm"  # noqa: S108  # the place itself is the subject; nothing is created in it


@dataclass(frozen=True, slots=True)
class FileSystemUse:
    """Size and use of one file system, as `df` and `df -i` show it."""

    size_bytes: int
    """Total size."""
    used_bytes: int
    """Bytes in use, whoever uses them."""
    inodes: int | None = None
    """Files that it can hold; None when it sets no limit."""
    inodes_used: int | None = None
    """Files that it holds; None when it sets no limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One resource limit of a process; None is "unlimited"."""

    soft: int | None
    """The limit in force; a process may raise it up to `hard`."""
    hard: int | None
    """The ceiling of the soft limit; only privileged processes raise it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Answers of system calls; None (or nothing) is "unknown"."""

    cpu_count: int | None = None
    """Logical CPUs that are online."""
    affinity: frozenset[int] | None = None
    """CPUs on which the process may run: sched_getaffinity(2)."""
    shm: FileSystemUse | None = None
    """Use of /dev/shm: statvfs(3)."""
    limits: tuple[tuple[str, Limit], ...] = ()
    """Resource limits by the names of `LIMIT_NAMES`: getrlimit(2)."""
    memory_bytes: int | None = None
    """Physical memory."""
    kernel: str | None = None
    """Release of the running kernel, as `uname -r`."""


LIMIT_NAMES = ("nofile", "nproc", "as", "fsize", "memlock", "stack")
"""The limits that data loading runs into, by the last part of their RLIMIT_ name."""


def live_probe(pid: str = "self") -> Probe:
    """Ask the machine that we run on about process `pid`. Never raises."""
    return Probe(
        cpu_count=os.cpu_count(),
        affinity=_affinity(pid),
        shm=_file_system_use(SHM_PATH),
        limits=_limits() if pid == "self" else (),
        memory_bytes=_physical_memory(),
        kernel=platform.release() or None,
    )


def _affinity(pid: str) -> frozenset[int] | None:
    """The mask of the calling thread for "self": it is the one that workers, forked from this thread, inherit."""
    if sys.platform != "linux":
        return None
    try:
        return frozenset(os.sched_getaffinity(0 if pid == "self" else int(pid)))
    except (OSError, ValueError, OverflowError):
        return None


def _file_system_use(path: str) -> FileSystemUse | None:
    if sys.platform == "win32":
        return None
    try:
        answer = os.statvfs(path)
    except OSError:
        return None
    limited = answer.f_files > 0
    return FileSystemUse(
        size_bytes=answer.f_blocks * answer.f_frsize,
        used_bytes=(answer.f_blocks - answer.f_bfree) * answer.f_frsize,
        inodes=answer.f_files if limited else None,
        inodes_used=answer.f_files - answer.f_ffree if limited else None,
    )


def _limits() -> tuple[tuple[str, Limit], ...]:
    if sys.platform == "win32":
        return ()
    import resource

    found = []
    for name in LIMIT_NAMES:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number))
            found.append((name, Limit(soft, hard)))
    return tuple(found)


def _physical_memory() -> int | None:
    if sys.platform == "win32":
        import psutil

        return int(psutil.virtual_memory().total)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
