"""What was tuned in this folder so far: `.keepfed/tunes.jsonl`, one line per session.

A line holds the user's command, which may hold a token: the file is private to its owner, and it is never written through
a symbolic link that somebody else may have laid there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = ".keepfed"
FILE_NAME = "tunes.jsonl"
SCHEMA = "keepfed.tunes/1"


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier session."""

    time: str
    """When it ended, ISO 8601 in UTC."""

    command: tuple[str, ...]
    """The program that was run."""

    exit: int
    """What `keepfed tune` returned: 0 settled, 4 not settled, else the program's own code."""

    seconds: float
    """How long it took."""

    host: str
    """Fingerprint of the host."""

    loaders: tuple[Mapping[str, Any], ...]
    """One object per measured loader, as in `tune --json`."""

    sweep: Mapping[str, Any] | None = None
    """The object "sweep" of `tune --json`; None for any other session."""

    def to_json(self) -> dict[str, Any]:
        """The line as plain JSON types."""
        return {
            "schema": SCHEMA,
            "time": self.time,
            "command": list(self.command),
            "exit": self.exit,
            "seconds": round(self.seconds, 1),
            "host": self.host,
            "loaders": [dict(loader) for loader in self.loaders],
        } | ({} if self.sweep is None else {"sweep": dict(self.sweep)})


def path_in(folder: Path) -> Path:
    """Where the history of a start folder lies."""
    return folder / FOLDER / FILE_NAME


def append(folder: Path, past: Past) -> None:
    """Add one line, in a single write, so that two sessions at a time never mix theirs.

    Raises OSError when the place cannot be written or is not a plain file of this user.
    """
    path = path_in(folder)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.parent.is_symlink():
        raise PermissionError(errno.EPERM, "a symbolic link", str(path.parent))
    line = json.dumps(past.to_json(), ensure_ascii=True) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        facts = os.fstat(descriptor)
        mine = facts.st_uid == os.geteuid() if hasattr(os, "geteuid") else True
        if not stat.S_ISREG(facts.st_mode) or not mine:
            raise PermissionError(errno.EPERM, "not a plain file of this user", str(path))
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(folder: Path) -> tuple[list[Past], int]:
    """All sessions, oldest first, and the number of lines that could not be read (cut short, or of a newer version)."""
    try:
        lines = path_in(folder).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    sessions = [_parsed(line) for line in lines if line.strip()]
    known = [past for past in sessions if past is not None]
    return known, len(sessions) - len(known)


def _parsed(line: str) -> Past | None:
    try:
        data = json.loads(line)
        loaders = tuple(data["loaders"])
        if data["schema"] != SCHEMA or not all(map(_complete, loaders)):
            return None
        command, sweep = tuple(str(word) for word in data["command"]), data.get("sweep")
        if sweep is not None and not all(map(_complete_value, sweep["values"])):
            return None
        told = str(data["time"]), command, int(data["exit"]), float(data["seconds"]), str(data["host"])
        return Past(*told, loaders, sweep)
    except (ValueError, KeyError, TypeError):
        return None


def _complete(loader: Any) -> bool:
    return all(isinstance(loader[name], str) for name in ("site", "dataset", "limited_by")) and all(
        isinstance(loader[when][name], int | float)
        for when in ("before", "after")
        for name in ("num_workers", "prefetch_factor", "batches_per_s", "wait_share")
    )


def _complete_value(value: Any) -> bool:
    rate = value["batches_per_s"]
    return all(isinstance(value[name], str) for name in ("value", "unit", "how")) and (
        rate is None or isinstance(rate, int | float)
    )
