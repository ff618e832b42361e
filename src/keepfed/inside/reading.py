"""The files of a container as a scan wants them: by the same rules as a folder of this machine.

A folder comes out of the engine as one stream, and a stream cannot be told what to leave out: a folder with a data set in it would
take hours. So it is cut after a while, and then the container is asked to name the files that may matter (`find`, which
nearly every image has), which are fetched one by one.

    folder ──archive──→ whole stream ────────────────────→ names and bytes ──rules of the walk──→ Bytes, Skipped
               └ cut after MOST_STREAM_BYTES ──find──→ one by one ──┘
               └ no find either ──→ what came so far, and the folder is said to be cut
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from keepfed.engine.archive import Inside, LeftOut
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.inside.likely import likely_folders, without_nested
from keepfed.knobs.exclusions import document_or_log, folder_reason, path_reason
from keepfed.knobs.mentions import mentions_a_setting
from keepfed.knobs.reading import READERS, reader_for
from keepfed.knobs.scan import Scanned, scan_files
from keepfed.knobs.site import Skipped
from keepfed.knobs.walk import LIMIT_BYTES, Bytes, Passed, limit_bytes, worth_opening

MOST_STREAM_BYTES = 512 << 20
_MOST_FETCHED = 2000
_TELLING = ("pyvenv.cfg", "conda-meta", "__init__.py", "setup.py", "pyproject.toml", "setup.cfg", "package.json")
_NAMES = ("*file", "*file.*", "*opt.txt", "*.txt", ".env*", "*.env")


def scan_container(container: Container, paths: Sequence[str]) -> Scanned:
    """Every site in these files and folders of a container; without any, in the folders where its program is likely to be.

    Relative paths start in its working folder. Raises UnreachableError (no such path) and UsageError (no likely folder).
    """
    return scan_files(files_of(container, paths))


def files_of(container: Container, paths: Sequence[str]) -> Iterator[Bytes | Passed | Skipped]:
    """The files behind these paths, each once, those named themselves first; and what was left out, with the reason."""
    given = [container.resolve(posixpath.join(container.workdir, path)) for path in paths]
    folders = likely_folders(container) if not paths else [path for path in given if _is_folder(container, path)]
    named = {path for path in given if path not in folders}
    for path in sorted(named):
        yield Bytes(path, container.read(path, limit_bytes(path), with_owner=False).data, named=True)
    for folder in without_nested(folders):
        for found in _folder(container, folder):
            if (found.file if isinstance(found, Skipped) else found.name) not in named:
                yield found


def _is_folder(container: Container, path: str) -> bool:
    found = container.stat(path) if path != "/" else None
    return path == "/" or (found is not None and found.folder)


@dataclass(slots=True)
class _Seen:
    """The files of a folder, and all names in it."""

    root: str
    files: dict[str, Inside | LeftOut] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    whole: bool = True

    def wanted(self, path: str, size: int) -> bool:
        """Note a name; whether its bytes are asked for."""
        folder, base = posixpath.split(path)
        self.names[folder].add(base)
        # What the name of a folder rules out is not kept; the rest is decided when all names are known.
        closed = self._closed_by_name(folder)
        if closed:
            self.files.setdefault(closed, LeftOut(path, "closed"))
            return False
        if not worth_opening(base):
            if document_or_log(base):
                self.files[path] = LeftOut(path, "document")
            return False
        if size > limit_bytes(base):
            self.files[path] = LeftOut(path, "huge")
            return False
        return True

    def _closed_by_name(self, folder: str) -> str:
        """The outermost folder below the root that is never entered, whatever lies in it or beside it; "" where there is none."""
        here = self.root
        for part in posixpath.relpath(folder, self.root).split("/"):
            here = posixpath.join(here, part)
            if part != "." and folder_reason(part, frozenset(), frozenset()):
                return here
        return ""


def _folder(container: Container, folder: str) -> Iterator[Bytes | Passed | Skipped]:
    seen = _Seen(folder)
    for found in container.read_folder(folder, seen.wanted, MOST_STREAM_BYTES):
        if isinstance(found, LeftOut) and found.reason == "limit":
            seen.whole = False
        else:
            seen.files[found.path] = found
    if not seen.whole:
        listed = _listed(container, folder)
        if listed is not None:
            seen = _fetched(container, folder, listed)
        else:
            yield Skipped(folder, "knobs.skipped_cut")
    yield from _sifted(container, folder, seen)


def _sifted(container: Container, root: str, seen: _Seen) -> Iterator[Bytes | Passed | Skipped]:
    """What the walk's rules leave of a folder's files, in the order of their names."""
    told: set[str] = set()
    for path in sorted(seen.files):
        found = seen.files[path]
        below = posixpath.relpath(found.path, root)
        closed, reason = _closed(root, below, seen)
        if closed:
            if closed not in told:
                told.add(closed)
                yield Skipped(closed, reason)
        elif isinstance(found, LeftOut) and found.reason == "link":
            yield from _behind(container, path, seen)
        elif isinstance(found, LeftOut):
            yield _left_out(found)
        elif path_reason(below):
            if mentions_a_setting(found.data):
                yield Skipped(path, path_reason(below))
        else:
            yield Bytes(path, found.data)


def _behind(container: Container, link: str, seen: _Seen) -> Iterator[Bytes]:
    """The file that a link of a telling name leads to, by its own name, unless it was met by that."""
    if reader_for(posixpath.basename(link), b"") is None:
        return
    try:
        path = container.resolve(link)
        if path not in seen.files:
            yield Bytes(path, container.read(path, limit_bytes(path), with_owner=False).data)
    except UnreachableError:
        return  # it leads nowhere, or to a folder


def _closed(root: str, below: str, seen: _Seen) -> tuple[str, str]:
    """The outermost folder on the way that a walk would not enter, and why; ("", "") where there is none."""
    here = root
    for part in below.split("/")[:-1]:
        beside = frozenset(name for name in _TELLING if name in seen.names[here])
        here = posixpath.join(here, part)
        reason = folder_reason(part, frozenset(name for name in _TELLING if name in seen.names[here]), beside)
        if reason:
            return here, reason
    return "", ""


def _left_out(found: LeftOut) -> Passed | Skipped:
    if found.reason == "document":
        return Passed(found.path)
    return Skipped(found.path, "knobs.skipped_large" if found.reason == "huge" else "knobs.skipped_unreadable")


def _listed(container: Container, folder: str) -> list[str] | None:
    """The files that may matter by name, as `find` inside tells them, mounts below included; None where it cannot be asked."""
    starts = [folder, *(mount.target for mount in container.mounts if mount.target.startswith(f"{folder}/"))]
    patterns = [word for name in _patterns() for word in ("-o", "-name", name)][1:]
    argv = ["find", *starts, "-xdev", "-type", "f", "-size", f"-{LIMIT_BYTES >> 10}k", "(", *patterns, ")"]
    try:
        ran = container.run(argv, user="0")
    except UnreachableError:
        return None
    if ran.exit_code > 1 or (ran.exit_code and not ran.stdout):
        return None
    return ran.stdout.decode("utf-8", "surrogateescape").split("\n")[:-1]


def _patterns() -> Iterable[str]:
    suffixes = {suffix for row in READERS for suffix in row.suffixes}
    return [*_NAMES, *(f"*{suffix}" for suffix in sorted(suffixes))]


def _fetched(container: Container, root: str, paths: Iterable[str]) -> _Seen:
    """The files that were listed, fetched one by one as far as the rules of the walk may want them."""
    seen = _Seen(root)
    wanted = [path for path in dict.fromkeys(paths) if seen.wanted(path, 0)]
    for number, path in enumerate(wanted):
        if number >= _MOST_FETCHED:
            seen.files[path] = LeftOut(path, "limit")
            continue
        try:
            seen.files[path] = container.read(path, limit_bytes(path), with_owner=False)
        except UnreachableError:
            seen.files[path] = LeftOut(path, "unreadable")
    return seen
