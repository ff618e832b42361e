"""The hand that writes the journal: appends lines, holds its lock while files are replaced, rewrites nothing.

What a line says and where a journal lies stands in `knobs.journal`. Two people setting something at once take turns by the lock
of the journal, a disk that is full in the middle of a line leaves no half line behind, and neither folder nor file may
belong to somebody else or be a link: `undo` acts on what stands here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepfed.errors import KeepfedError
from keepfed.knobs.origin.journal import FOLDER, Change, journal_in, own_journal, project_folder
from keepfed.text import say

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_KEPT = "before"
_KEPT_AT_MOST_BYTES = 4 << 20


class JournalError(KeepfedError):
    """No journal can be written, so nothing is changed."""


@dataclass(frozen=True, slots=True)
class Journal:
    """An open journal, locked for this process."""

    path: Path
    """The file."""
    descriptor: int
    """Open for reading and appending."""

    def append(self, changes: Sequence[Change]) -> None:
        """Add one line per change and make sure that they are on the disk. Raises OSError, and leaves no half line then."""
        end = os.lseek(self.descriptor, 0, os.SEEK_END)
        base = self.path.parent.parent if self.path.parent.name == FOLDER else None
        data = b"" if self._ends_whole(end) else b"\n"
        data += b"".join(json.dumps(change.to_json(base)).encode() + b"\n" for change in changes)
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
            os.fsync(self.descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, end)
            raise

    def keep(self, name: str, content: bytes) -> None:
        """Keep a private copy of what a file held, to be able to show later what happened since; small files only."""
        if len(content) > _KEPT_AT_MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            folder = self.path.parent / _KEPT
            folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
            with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
                file.write(content)

    def _ends_whole(self, end: int) -> bool:
        if end == 0:
            return True
        os.lseek(self.descriptor, end - 1, os.SEEK_SET)
        return os.read(self.descriptor, 1) == b"\n"


def kept_copy(journals: Sequence[Path], name: str) -> bytes | None:
    """What a file held before the change whose `sha256_before` is `name`, if a copy was kept."""
    if not re.fullmatch(r"[0-9a-f]{64}", name):
        return None  # it stands in a line that somebody may have edited, and names a file here
    for journal in journals:
        with (
            contextlib.suppress(OSError),
            os.fdopen(os.open(journal.parent / _KEPT / name, os.O_RDONLY | _NO_FOLLOW), "rb") as file,
        ):
            return file.read()
    return None


@contextlib.contextmanager
def open_journals(where: Path, files: Sequence[Path]) -> Iterator[list[Journal]]:
    """The journals that changes of `files`, made by somebody who stands in `where`, are noted in; all locked.

    The first is that of the project's folder. Other projects (elsewhere, or inside this one) get their own note as well: what
    a journal says of files outside its folder is believed only if theirs says so too. For each that cannot be written, the
    user's own stands in. Raises JournalError.
    """
    home = project_folder(where)
    others = {project_folder(file.parent) for file in files} - {home}
    with contextlib.ExitStack() as opened:
        journals: list[Journal] = []
        for folder in (home, *sorted(others)):
            _add_first(opened, journals, [journal_in(folder), *filter(None, [own_journal()])])
        # In one order for everybody: two people who edit each other's projects must not wait for each other.
        for journal in sorted(journals, key=lambda journal: journal.path):
            _lock(journal.descriptor)
        yield journals


def _add_first(opened: contextlib.ExitStack, journals: list[Journal], places: Sequence[Path]) -> None:
    """Open the first of these places that can be written, unless it is open already."""
    failures = []
    for place in places:
        if any(journal.path == place for journal in journals):
            return
        try:
            journals.append(_opened(opened, place))
        except OSError as error:
            failures.append(f"{place}: {error.strerror or error}")
        else:
            return
    raise JournalError(say("edit.no_journal", reasons="; ".join(failures)), next_step=say("edit.no_journal_next"))


def _opened(opened: contextlib.ExitStack, path: Path) -> Journal:
    _make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _NO_FOLLOW, 0o600)
    opened.callback(os.close, descriptor)
    _check_own(os.fstat(descriptor), path, stat.S_ISREG)
    return Journal(path, descriptor)


def _make_folder(folder: Path) -> None:
    """Make it private if it is missing. Raises OSError where it is a link, another user's, or open to others' writing."""
    made = not folder.exists()
    if made:
        folder.parent.mkdir(parents=folder.name != FOLDER, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    _check_own(os.lstat(folder), folder, stat.S_ISDIR)
    if made and folder.name == FOLDER:
        # As pytest does with its cache: whoever changes a setting must not find our files in `git status`.
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
            with os.fdopen(os.open(folder / ".gitignore", flags, 0o600), "w", encoding="ascii") as file:
                file.write("# Made by keepfed.\n*\n")


def _check_own(facts: os.stat_result, path: Path, is_right_kind: object) -> None:
    if not callable(is_right_kind) or not is_right_kind(facts.st_mode):
        raise PermissionError(errno.EPERM, say("edit.journal_kind"), str(path))
    if hasattr(os, "geteuid") and (facts.st_uid != os.geteuid() or facts.st_mode & 0o022):
        raise PermissionError(errno.EPERM, say("edit.journal_foreign"), str(path))


def _lock(descriptor: int) -> None:
    """Wait until nobody else changes files by this journal. File systems without locks (some NFS) are used without."""
    try:
        import fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
