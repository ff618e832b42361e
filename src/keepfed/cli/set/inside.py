"""`keepfed set --container NAME`: the same verb on the files of a container."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from keepfed.cli.set.telling import tell
from keepfed.edit.choosing import Place
from keepfed.edit.replacement import Edit
from keepfed.engine.client import find_container
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError, UsageError
from keepfed.inside.likely import likely_folders
from keepfed.inside.reading import scan_container
from keepfed.inside.writing import file_edits, not_seen_yet
from keepfed.knobs.scan import Scanned
from keepfed.text import say
from keepfed.write.carrying_out import FileEdits


@contextmanager
def opened(name: str | None) -> Iterator[Container | None]:
    """The container that was asked for; None where none was. Raises UnreachableError, UsageError."""
    if name is None:
        yield None
    else:
        with find_container(name) as container:
            yield container


def scanned_inside(
    container: Container, paths: Sequence[str], place: Place | None
) -> tuple[Scanned, list[str], frozenset[str]]:
    """What was scanned, the paths of it, and the files that were given by their own name, the one of `--site` included."""
    wanted = [*paths]
    if place is not None and _is_there(container, place.file):
        wanted = [*(paths or _likely(container)), place.file]
    scanned = scan_container(container, wanted)
    named = {container.resolve(posixpath.join(container.workdir, path)) for path in wanted}
    return scanned, wanted or [container.name], frozenset(named & set(scanned.files))


def _is_there(container: Container, path: str) -> bool:
    return container.stat(posixpath.join(container.workdir, path)) is not None


def _likely(container: Container) -> list[str]:
    try:
        return likely_folders(container)
    except UsageError:
        return []


def edits_inside(container: Container, edits: Mapping[str, tuple[Edit, ...]], scanned: Scanned) -> list[FileEdits]:
    """The edits by file, each addressed to whoever has to make them; says which are made on this machine."""
    files = [file_edits(container, file, scanned.files[file].data, changes) for file, changes in edits.items()]
    for file, path in zip(files, edits, strict=True):
        if file.remote is None:
            tell(say("inside.on_host", path=path, host=file.path))
    return files


def tell_inside(container: Container, edits: Mapping[str, tuple[Edit, ...]], files: Sequence[FileEdits]) -> None:
    """What one should know of a change inside a container."""
    if any(file.remote is not None for file in files):
        tell(say("inside.layer", engine=container.engine.kind, name=container.name))
    for file, path in zip(files, edits, strict=True):
        if file.remote is None and _not_seen(container, path, file.after):
            tell(say("inside.seen_after_restart", path=path))


def _not_seen(container: Container, path: str, expected: bytes) -> bool:
    try:
        return not_seen_yet(container, path, expected)
    except UnreachableError:
        return False  # the change is made; that it could not be looked at again is no reason to fail
