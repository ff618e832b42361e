"""`keepfed scan --container NAME`: the files in there, what stood in them at first, and what its processes have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keepfed.engine.client import find_container
from keepfed.host.running import Running
from keepfed.inside.originals import with_first_values
from keepfed.inside.places import on_host
from keepfed.inside.processes import running_in
from keepfed.inside.reading import scan_container
from keepfed.knobs.origin.changes import Changed, changes_inside, changes_of
from keepfed.knobs.scan import Scanned


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a container."""

    scanned: Scanned
    """Its settings."""
    family: tuple[Running, ...]
    """Its processes, as far as they can be seen."""
    changes: list[Changed] | None
    """Who changed what, the newest first; None where that was not asked for."""


def scan_inside(name: str, paths: Sequence[str], *, changes: bool) -> Found:
    """Look into a container. Raises UnreachableError, UsageError."""
    with find_container(name) as container:
        scanned = scan_container(container, paths)
        hosted = {file: path for file in {site.file for site in scanned.sites} if (path := on_host(container, file))}
        sites = with_first_values(container, scanned.sites, scanned.files, hosted, Path.cwd())
        scanned = replace(scanned, sites=tuple(sites))
        rows = _changes(container.id, scanned, hosted) if changes else None
        return Found(scanned, running_in(container), rows)


def _changes(identity: str, scanned: Scanned, hosted: dict[str, str]) -> list[Changed]:
    """Those of files of this machine (its git, its journal) and those that keepfed made inside."""
    here = [replace(site, file=hosted[site.file]) for site in scanned.sites if site.file in hosted]
    texts = {path: scanned.files[file] for file, path in hosted.items()}
    inside = {site.file for site in scanned.sites} - hosted.keys()
    rows = [*changes_of(here, texts), *changes_inside(identity, inside, Path.cwd())]
    return sorted(rows, key=lambda row: row.time, reverse=True)
