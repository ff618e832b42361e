"""New contents for files, each of them whole or not at all, and all of them or, as far as that can be had, none.

    read again, compare ──→ temporary files beside them, on the disk ──→ compare again ──→ note in the journal ──→ rename each
          │ changed since              │ disk full, no permission             │                    │                  │ fails
          └──────────── nothing has happened: the temporary files go ─────────┴────────────────────┘       put back those before

A rename replaces a file in one step, so a reader (and a machine that loses its power) sees the old content or the new one. What
hangs on the file and not on its name is carried over: mode, owner, extended attributes with the access lists in them. A
symbolic link stays, its target is replaced. Other hard links keep the old content, which is said.

A file that may be written in a folder that may not (a single file mounted into a container is such a one: rename(2), EBUSY) is
written in place, and put back if that fails in the middle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from keepfed.errors import KeepfedError
from keepfed.text import say

LARGEST_BYTES = 64 << 20
"""A file past this is no file of settings."""

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class WriteError(KeepfedError):
    """A file was not changed; the message says why, and that it is intact."""


class ChangedMeanwhile(WriteError):
    """A file holds something else than when it was looked at."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, and what it will hold."""

    path: Path
    """As it was given."""
    before: bytes
    """What it has to hold."""
    after: bytes
    """What it will hold."""

    @property
    def target(self) -> Path:
        """The file that is replaced: where a symbolic link leads."""
        return Path(os.path.realpath(self.path))


@dataclass(slots=True)
class _Staged:
    content: Content
    temporary: Path | None
    """None where the file has to be written in place."""
    notes: list[str] = field(default_factory=list)


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises WriteError where it is none, is too large, or cannot be read."""
    try:
        descriptor = os.open(os.path.realpath(path), os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _failed("edit.unreadable", path, error) from error
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, descriptor)
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise WriteError(say("edit.no_file", file=path))
        if facts.st_size > LARGEST_BYTES:
            raise WriteError(say("edit.too_large", file=path, mib=LARGEST_BYTES >> 20))
        try:
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            raise _failed("edit.unreadable", path, error) from error


def replace_all(
    contents: Sequence[Content], note: Callable[[], None], void: Callable[[Collection[Path]], None]
) -> list[str]:
    """Put the new contents in place.

    `note` is called when only the renames are left; `void` when those had to be put back, with the targets that could not be, and
    hold the new content. Returns what the reader should know. Raises WriteError (the originals are intact then, or the
    message says which are not), and whatever `note` raises.
    """
    staged: list[_Staged] = []
    try:
        for content in contents:
            _check(content)
        for content in contents:
            staged.append(_stage(content))  # noqa: PERF401  # those before one that fails have to be known
        for content in contents:
            _check(content)
        note()
        _put(staged, void)
    finally:
        for one in staged:
            with contextlib.suppress(OSError):
                if one.temporary:
                    one.temporary.unlink(missing_ok=True)
    return [line for one in staged for line in one.notes]


def _check(content: Content) -> None:
    """Raise where the file is not what it was, or is not ours to change."""
    target = content.target
    if read_file(content.path) != content.before:
        raise ChangedMeanwhile(say("edit.changed_meanwhile", file=content.path), next_step=say("edit.moved_next"))
    mode = stat.S_IMODE(target.stat().st_mode)
    # root may write anything; that somebody took every write permission away is meant all the same.
    if not mode & 0o222 or not os.access(target, os.W_OK):
        raise WriteError(
            say("edit.read_only", file=content.path, mode=f"{mode:04o}"),
            next_step=say("edit.read_only_next", file=target),
        )


def _stage(content: Content) -> _Staged:
    """The new content under another name in the same folder, with everything that hangs on the old file."""
    target = content.target
    temporary = target.with_name(f".keepfed-{secrets.token_hex(8)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o600)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return _Staged(content, None)
        raise _failed("edit.unwritable", content.path, error) from error
    one = _Staged(content, temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.after)
            file.flush()
            one.notes.extend(_carry_over(target, temporary, content.path))
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _failed("edit.unwritable", content.path, error) from error
        raise
    return one


def _carry_over(old: Path, new: Path, shown: Path) -> Iterator[str]:
    """Give the new file what hangs on the old one; yields what could not be kept."""
    facts = old.stat()
    if hasattr(os, "chown") and (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.chown(new, facts.st_uid, facts.st_gid)
        except OSError:
            with contextlib.suppress(OSError):
                os.chown(new, -1, facts.st_gid)
            if new.stat().st_uid != facts.st_uid:
                yield say("edit.owner_changed", file=shown)
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for name in os.listxattr(old):
                with contextlib.suppress(OSError):  # security.* is the system's to give
                    os.setxattr(new, name, os.getxattr(old, name))
    new.chmod(stat.S_IMODE(facts.st_mode))
    if facts.st_nlink > 1:
        yield say("edit.hard_links", file=shown, others=facts.st_nlink - 1)
    if shown.is_symlink():
        yield say("edit.symlink", file=shown, target=old)


def _put(staged: Sequence[_Staged], void: Callable[[Collection[Path]], None]) -> None:
    done: list[_Staged] = []
    try:
        for one in staged:
            _put_one(one)
            done.append(one)
    except BaseException as error:
        lost = [one.content for one in done if not _put_back(one.content)]
        with contextlib.suppress(OSError, KeepfedError):
            void([content.target for content in lost])
        if not isinstance(error, OSError):
            raise
        failed = staged[len(done)].content.path
        if lost:
            raise WriteError(
                say(
                    "edit.half_done",
                    file=failed,
                    reason=error.strerror or error,
                    changed=", ".join(str(content.path) for content in lost),
                ),
                next_step=say("edit.half_done_next"),
            ) from error
        raise _failed("edit.unwritable", failed, error) from error
    for folder in {one.content.target.parent for one in done}:
        _sync(folder)


def _put_one(one: _Staged) -> None:
    if one.temporary is not None:
        try:
            os.replace(one.temporary, one.content.target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
    _overwrite(one.content)
    one.notes.append(say("edit.in_place", file=one.content.path))


def _overwrite(content: Content) -> None:
    """Write into the file itself. Raises OSError, with the old content back in it where that can be had."""
    with open(content.target, "r+b", buffering=0) as file:
        try:
            _fill(file, content.after)
        except BaseException:
            with contextlib.suppress(OSError):
                _fill(file, content.before)
            raise


def _fill(file: FileIO, data: bytes) -> None:
    file.seek(0)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate(len(data))
    os.fsync(file.fileno())


def _put_back(content: Content) -> bool:
    try:
        _put_one(_stage(Content(content.path, content.after, content.before)))
    except (OSError, WriteError):
        return False
    return True


def _sync(folder: Path) -> None:
    """Make the renames in a folder survive a loss of power, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _failed(key: str, path: Path, error: OSError) -> WriteError:
    hint = {
        errno.ENOSPC: "edit.disk_full_next",
        errno.EDQUOT: "edit.disk_full_next",
        errno.EFBIG: "edit.disk_full_next",
        errno.EROFS: "edit.read_only_system_next",
        errno.EACCES: "edit.no_permission_next",
        errno.EPERM: "edit.no_permission_next",
    }.get(error.errno or 0)
    reason = error.strerror or error
    return WriteError(say(key, file=path, reason=reason), next_step=say(hint, file=path) if hint else "")
