"""Files inside a container as the engine hands them out: a tar stream, read member by member and never unpacked to disk.

What comes out of a container was written by somebody else: sizes are limited, names that climb out of their folder are
dropped, and nothing of it touches the host's file system.

Source: Docker Engine API, "Get an archive of a filesystem resource in a container" and "Extract an archive of files or
folders"; the mode in its X-Docker-Container-Path-Stat header is Go's os.FileMode, where bit 31 is a folder and bit 27 a link.
"""

from __future__ import annotations

import base64
import io
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

_GO_FOLDER = 1 << 31
_GO_LINK = 1 << 27

MOST_FILE_BYTES = 16 << 20
"""No single file is read past this."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What the engine says about a path."""

    size: int
    """Bytes of a file."""
    folder: bool
    """Whether it is a folder, or a link to one."""
    link: str
    """For a symbolic link, the absolute path it leads to; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A regular file inside a container."""

    path: str
    """Its absolute path there, links followed."""
    data: bytes
    """Its content."""
    mode: int
    """Permission bits with setuid, setgid and sticky: 0o644."""
    owner: tuple[int, int] | None
    """User and group, as the container counts; None where that is not known (Podman's archives say 0 of everybody)."""
    mtime: float
    """When it was changed, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that was seen and not read."""

    path: str
    """Its absolute path inside."""
    reason: str
    """Why: "huge", "link" (symbolic), "not_regular", "limit" (the stream was cut there; what follows was not seen)."""


class TooMuch(Exception):
    """More bytes came than were asked for; the stream was left."""


def parse_stat(header: str) -> Stat:
    """The X-Docker-Container-Path-Stat header. Raises ValueError for anything else."""
    raw = json.loads(base64.b64decode(header))
    mode = int(raw.get("mode", 0))
    link = str(raw.get("linkTarget") or "") if mode & _GO_LINK else ""
    return Stat(size=int(raw.get("size", 0)), folder=bool(raw.get("isDir", mode & _GO_FOLDER)), link=link)


def one_file(path: str, chunks: Iterable[bytes], most_bytes: int = MOST_FILE_BYTES) -> Inside | None:
    """The regular file in an archive of `path`; None when it is something else. Raises TooMuch, tarfile.TarError."""
    for found in files(posixpath.dirname(path), chunks, lambda _path, _size: True, most_bytes + (64 << 10), most_bytes):
        if isinstance(found, Inside):
            return replace(found, path=path)
        if found.reason in ("huge", "limit"):
            raise TooMuch(path)
    return None


def files(
    parent: str,
    chunks: Iterable[bytes],
    wanted: Callable[[str, int], bool],
    most_bytes: int,
    most_file_bytes: int = MOST_FILE_BYTES,
) -> Iterator[Inside | LeftOut]:
    """The regular files of an archive whose members lie in `parent`.

    `wanted(path, size)` chooses; what it does not want is passed over without a word. Past `most_bytes` of stream the rest is
    left, and one LeftOut with the reason "limit" says after which file. Raises tarfile.TarError for a stream that is no archive.
    """
    last = parent
    stream = _Stream(chunks, most_bytes)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                last = posixpath.normpath(posixpath.join(parent, member.name))
                known = member.isreg() or member.islnk() or member.issym()
                if ".." in member.name.split("/") or not known or not wanted(last, member.size):
                    continue
                if member.issym():
                    yield LeftOut(last, "link")
                    continue
                yield _taken(archive, member, last, most_file_bytes)
    except TooMuch:
        yield LeftOut(last, "limit")


def pack(name: str, data: bytes, mode: int, owner: tuple[int, int], mtime: float) -> bytes:
    """An archive of one regular file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, mtime
    member.uid, member.gid = owner
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(data))
    return whole.getvalue()


def _taken(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, most_bytes: int) -> Inside | LeftOut:
    if member.size > most_bytes:
        return LeftOut(path, "huge")
    # A second name of a file that came before: its bytes have passed, and a stream cannot go back.
    opened = archive.extractfile(member) if member.isreg() else None
    if opened is None:
        return LeftOut(path, "not_regular")
    return Inside(path, opened.read(), member.mode & 0o7777, (member.uid, member.gid), float(member.mtime))


class _Stream(io.RawIOBase):
    """Chunks as a file that can only be read forward, up to a limit."""

    def __init__(self, chunks: Iterable[bytes], most_bytes: int) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, fewer than `size` only at the end. Raises TooMuch past the limit."""
        parts, missing = [], size
        while missing > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
                self._left -= len(self._rest)
                if self._left < 0:
                    raise TooMuch
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
