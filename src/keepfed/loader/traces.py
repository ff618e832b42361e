"""What loading samples leaves behind, found out in a worker before anybody tries it in the process that trains.

A file that the dataset opens at its first access is harmless in a worker. In the training process it would be inherited by
every worker that is forked later, position and all, and they would read each other's records: wrong samples, no error. So
each worker looks at itself before and after its first fetches, and says what has come:

    dataset, collate function, what they name  ─▶ a cache, a counter, a handle in an attribute    (watch.py)
    /proc/self/fd                              ─▶ an open file or socket, whoever holds it
    /proc/self/maps                            ─▶ a mapped file: LMDB, numpy.memmap

The last two see what hides behind a C extension. Libraries that are loaded meanwhile are mapped files too; they are told
by having a part that is executable.
"""

from __future__ import annotations

import os
from typing import Any

from keepfed.loader.channel import WorkerEnd
from keepfed.loader.watch import State, first_change, state_of

WATCHED_FETCHES = 2
"""Fetches of a worker that are looked at."""
_NOT_FILES = (
    "/memfd:",
    "/dev/zero",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/nvidia",
    "/SYSV",
    "[",
    "anon_inode:",
)
_FIELDS = 6


class Traces:
    """Looks at one worker while it makes its first batches."""

    def __init__(self, end: WorkerEnd, dataset: Any, collate_fn: Any) -> None:
        """What is found goes to the trainer through `end`, before the batch."""
        self._end = end
        self._roots = dataset, collate_fn
        self._left = WATCHED_FETCHES

    def watch(self, fetcher: Any) -> None:
        """Look at what this fetcher of torch's does."""
        fetch = fetcher.fetch

        def watched(index: Any) -> Any:
            before, files = state_of(*self._roots), open_files()
            batch = fetch(index)
            what = left_behind(before, files, *self._roots)
            if what is not None:
                self._end.send("traces", what)
            self._left -= 1
            if what is not None or self._left <= 0:
                fetcher.fetch = fetch
            return batch

        if self._left > 0:
            fetcher.fetch = watched


def left_behind(before: State, files: frozenset[str], *roots: object) -> str | None:
    """What has changed since these pictures were taken; None when all is as it was."""
    changed = first_change(before, state_of(*roots))
    return changed if changed is not None else min(open_files() - files, default=None)


def open_files() -> frozenset[str]:
    """What this process holds open or mapped, by number and name. Linux; elsewhere nothing can be seen (proc(5))."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    found = {f"{name} (descriptor {number})" for number in numbers if (name := _target(number))}
    return frozenset(found | _mapped())


def _target(number: str) -> str:
    try:
        name = os.readlink(f"/proc/self/fd/{number}")
    except OSError:  # the one that listed them
        return ""
    return "" if name.startswith(_NOT_FILES) else name


def _mapped() -> set[str]:
    files: set[str] = set()
    libraries: set[str] = set()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.split(maxsplit=_FIELDS - 1)
            if len(fields) == _FIELDS and not fields[-1].startswith(_NOT_FILES):
                (libraries if "x" in fields[1] else files).add(fields[-1].rstrip())
    return {f"{name} (mapped)" for name in files - libraries}
