"""The files that are written for people: a script or a compose file, and beside it the variables, for nobody else's eyes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from keepfed.errors import UsageError
from keepfed.text import say


@dataclass(frozen=True, slots=True)
class Written:
    """One file to write."""

    path: Path
    """Where."""
    text: str
    """What."""
    mode: int
    """Permission bits."""


def beside(path: Path, suffix: str) -> Path:
    """The companion of a file: `again.sh` and "env" make `again.env`."""
    return path.with_name(f"{path.stem}.{suffix}")


def check_free(paths: list[Path]) -> None:
    """Raise UsageError when one of them is there already, or its folder is not, or two are one."""
    if len(set(paths)) < len(paths):
        raise UsageError(say("recreate.own_companion", path=paths[0]), next_step=say("recreate.file_exists_next"))
    for path in paths:
        if path.is_symlink() or path.exists():
            raise UsageError(say("recreate.file_exists", path=path), next_step=say("recreate.file_exists_next"))
        if not path.absolute().parent.is_dir():
            raise UsageError(say("recreate.no_folder", path=path), next_step=say("recreate.no_folder_next"))


def write_files(files: list[Written]) -> None:
    """Write them all, or none. Raises UsageError for what the file system refuses."""
    done: list[Path] = []
    try:
        for file in files:
            _write(file)
            done.append(file.path)
    except OSError as error:
        for path in done:
            with suppress(OSError):
                path.unlink()
        where = file.path
        raise UsageError(say("recreate.not_writable", path=where, reason=error.strerror or error)) from error


def _write(file: Written) -> None:
    """A new file, with its mode before its content; gone again if that cannot be written."""
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), file.mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
            file.path.chmod(file.mode)  # whatever the umask has taken away
            stream.write(file.text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        with suppress(OSError):
            file.path.unlink()
        raise
