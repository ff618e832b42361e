"""What stands around a file that was named alone: a script of the same project whose flag wins over the default in it.

`keepfed set num_workers=0 train.py` reads train.py and nothing else, and in there the default of the option counts. That run.sh gives
`--workers 12` has to be said all the same, or somebody believes that the next run has no workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from keepfed.edit.planning import Planned
from keepfed.errors import KeepfedError
from keepfed.knobs.origin.journal import project_folder
from keepfed.knobs.scan import scan_paths
from keepfed.knobs.site import Kind, KnobSite, Role, Span

_DEFAULTS = (Role.OPTION, Role.DEFAULT)
_MOST_FILES = 2000
"""A caution is not worth more than about a second, and a project's folder may be somebody's home."""


def beaten_around(plan: Planned, named: Collection[str]) -> Iterator[tuple[KnobSite, str]]:
    """Changed defaults in files that were named, and the place `file:line` of their projects that wins over each."""
    defaults = [site for site, _ in plan.changed if site.role in _DEFAULTS and site.file in named and _counts(site)]
    for file in dict.fromkeys(site.file for site in defaults):
        seen = _seen_with_others(file)
        for site in defaults:
            other = seen.get(site.span) if site.file == file else None
            if other is not None and not _counts(other) and other.counts_at:
                yield site, other.counts_at


def _counts(site: KnobSite) -> bool:
    return site.wins is not False and site.kind is not Kind.OVERRIDDEN


def _seen_with_others(file: str) -> dict[Span, KnobSite]:
    """The places of a file as they look beside the files around it."""
    path = os.path.relpath(os.path.realpath(file))
    with contextlib.suppress(KeepfedError, OSError, ValueError):
        others = islice(_files_around(Path(os.path.realpath(file))), _MOST_FILES)
        paths = dict.fromkeys([path, *map(os.path.relpath, others)])
        return {site.span: site for site in scan_paths([*paths]).sites if site.file == path}
    return {}


def _files_around(file: Path) -> Iterator[str]:
    """The files beside it, in the project's folder, and one level below that: where people keep the scripts that start it."""
    root = project_folder(file.parent)
    yield from _files_in(file.parent)
    if root != file.parent or (root / ".git").exists():
        yield from _files_in(root)
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _files_in(entry.path)


def _files_in(folder: str | Path) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if entry.is_file(follow_symlinks=False))
