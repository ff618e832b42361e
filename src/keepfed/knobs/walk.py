"""From what the user named to the bytes of files: folders are walked, and nothing is opened that cannot be a setting's place.

A project folder holds data sets of a million images, checkpoints of gigabytes, environments with ten thousand packages, links
that lead in circles and pipes at which a reader would wait for ever. So the name decides first, then the kind and the size,
and only then is a file opened; without waiting, and looked at again once it is open.

    PATH ── file ───────────────────────────────→ read in any case
       └─── folder ── folder_reason ── path_reason ── name, kind, size ──→ read
                          │ said once      │ said when it mentions a setting
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import DirEntry

from keepfed.errors import UnreachableError
from keepfed.knobs.exclusions import document_or_log, folder_reason, path_reason
from keepfed.knobs.mentions import mentions_a_setting
from keepfed.knobs.reading import reader_for
from keepfed.knobs.site import Skipped
from keepfed.text import say

LIMIT_BYTES = 8 << 20
"""Larger files are data: no settings file comes near, and parsing takes a second for each of these megabytes."""
NOTEBOOK_LIMIT_BYTES = 64 << 20
"""Notebooks keep their pictures inside."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """A file that was read."""

    name: str
    """Its path as it was reached, with forward slashes."""
    data: bytes
    """As it lies on disk."""
    named: bool = False
    """Whether the user named this very file."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A document that was met and not opened: a README shows where a project begins."""

    name: str
    """Its path as it was reached."""


def limit_bytes(name: str) -> int:
    """How large a file of this name may be to be read."""
    return NOTEBOOK_LIMIT_BYTES if name.lower().endswith(".ipynb") else LIMIT_BYTES


def worth_opening(name: str) -> bool:
    """Whether a file found by walking can be a place of settings, by its name: a reader has it, or the name says nothing."""
    base = name.rpartition("/")[2]
    if document_or_log(base):
        return False
    stem, dot, suffix = base.rpartition(".")
    return reader_for(base, b"") is not None or not (dot and stem) or suffix.lower() == "txt"


def walk(paths: Iterable[str]) -> Iterator[Bytes | Passed | Skipped]:
    """The files behind these paths, each once, those named themselves first; and what was left out, with the reason.

    Raises UnreachableError for a path that does not exist or cannot be read.
    """
    named = sorted(paths, key=os.path.isdir)
    seen = _Seen()
    for path in named:
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreachableError(
                say("knobs.no_such_path", path=path, reason=reason), next_step=say("knobs.no_such_path_next")
            ) from error
        if stat.S_ISDIR(status.st_mode):
            yield from _folder(path, seen)
        else:
            found = _read(path, _shown(path), seen)
            if isinstance(found, Skipped):
                message = say("knobs.unreadable_path", path=path, reason=say(found.reason))
                raise UnreachableError(message, next_step=say("knobs.no_such_path_next"))
            if found is not None:
                yield Bytes(found.name, found.data, named=True)


@dataclass(slots=True)
class _Seen:
    """Which files and folders were met already."""

    files: set[tuple[int, int, str]] = field(default_factory=set)
    """Device and inode; with the path where a file has several names of equal right, each of which an edit would part."""
    folders: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a folder."""

    entry: DirEntry[str]
    below: str
    """Its path below what the user named."""
    beside: frozenset[str]
    """What else lies there, by name."""


def _folder(path: str, seen: _Seen) -> Iterator[Bytes | Passed | Skipped]:
    """Everything in a folder, in the order of names; links come behind all others, so that a file goes by its own name.

    Raises UnreachableError where the folder itself cannot be read; one inside is only said. The way is kept in a list: folders
    may lie deeper in each other than calls can.
    """
    try:
        waiting = _entries(path, "", seen)
    except OSError as error:
        message = say("knobs.unreadable_path", path=path, reason=error.strerror or error)
        raise UnreachableError(message, next_step=say("knobs.no_such_path_next")) from error
    links = []
    while waiting:
        here = waiting.pop()
        if here.entry.is_symlink():
            links.append(here)
        elif not here.entry.is_dir(follow_symlinks=False):
            yield from _file(here, seen)
        elif reason := folder_reason(here.entry.name, _listed(here.entry.path), here.beside):
            yield Skipped(_shown(here.entry.path), reason)
        else:
            try:
                waiting += _entries(here.entry.path, here.below, seen)
            except OSError:
                yield Skipped(_shown(here.entry.path), "knobs.skipped_unreadable")
    for link in links:
        yield from _link(link, seen)


def _entries(path: str, below: str, seen: _Seen) -> list[_Entry]:
    """What lies in a folder, the last name first; nothing where it was met before. Raises OSError."""
    status = os.stat(path)
    if (status.st_dev, status.st_ino) in seen.folders:
        return []
    with os.scandir(path) as listing:
        entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
    seen.folders.add((status.st_dev, status.st_ino))
    names = frozenset(entry.name for entry in entries)
    return [_Entry(entry, f"{below}/{entry.name}" if below else entry.name, names) for entry in entries]


def _file(here: _Entry, seen: _Seen) -> Iterator[Bytes | Passed | Skipped]:
    name = _shown(here.entry.path)
    if not worth_opening(here.entry.name):
        if document_or_log(here.entry.name):
            yield Passed(name)
        return
    found = _read(here.entry.path, name, seen)
    reason = path_reason(here.below)
    if isinstance(found, Bytes) and reason:
        found = Skipped(name, reason) if mentions_a_setting(found.data) else None
    if found is not None:
        yield found


def _link(here: _Entry, seen: _Seen) -> Iterator[Bytes | Passed | Skipped]:
    """A link to a file stands for that file, unless it was met by its own name; one to a folder is not followed."""
    try:
        is_folder = here.entry.is_dir()
    except OSError:
        is_folder = False
    if is_folder:
        yield Skipped(_shown(here.entry.path), "knobs.skipped_link")
    else:
        yield from _file(here, seen)


def _listed(path: str) -> frozenset[str]:
    """The two names that tell an environment, and the one that tells a package of Python's, as far as they lie in a folder."""
    telling = ("pyvenv.cfg", "conda-meta", "__init__.py")
    return frozenset(name for name in telling if os.path.lexists(os.path.join(path, name)))


def _read(path: str, name: str, seen: _Seen) -> Bytes | Skipped | None:
    """A file's bytes; why not; or None where it was read before by another of its names."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):
            # Opening a device can do something (rewind a tape), so it is not even tried.
            return Skipped(name, "knobs.skipped_no_file")
        descriptor = os.open(path, flags)
    except OSError:
        return Skipped(name, "knobs.skipped_broken_link" if os.path.islink(path) else "knobs.skipped_unreadable")
    try:
        return _read_open(descriptor, path, name, seen)
    except OSError:
        return Skipped(name, "knobs.skipped_unreadable")
    finally:
        os.close(descriptor)


def _read_open(descriptor: int, path: str, name: str, seen: _Seen) -> Bytes | Skipped | None:
    status = os.fstat(descriptor)
    identity = (status.st_dev, status.st_ino, os.path.realpath(path) if status.st_nlink > 1 else "")
    if identity in seen.files:
        return None
    seen.files.add(identity)
    if not stat.S_ISREG(status.st_mode):
        return Skipped(name, "knobs.skipped_no_file")
    limit = limit_bytes(name)
    if status.st_size > limit:
        return Skipped(name, "knobs.skipped_large")
    # A file of /proc says that it has no bytes, and one that grows has more than it said.
    parts = []
    left = limit + 1
    while left > 0 and (part := os.read(descriptor, min(left, max(status.st_size + 1, 1 << 16)))):
        parts.append(part)
        left -= len(part)
    return Bytes(name, b"".join(parts)) if left > 0 else Skipped(name, "knobs.skipped_large")


def _shown(path: str) -> str:
    """A path as sites name it: forward slashes, and no `./` at its beginning."""
    shown = path.replace(os.sep, "/") if os.sep != "/" else path
    while shown.startswith("./") and len(shown) > 2:
        shown = shown[2:].lstrip("/") or "."
    return shown
