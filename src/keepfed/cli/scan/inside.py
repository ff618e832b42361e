"""`keepfed scan --container NAME`: the files in there, what stood in them at first, and what its processes have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keepfed.engine.client import find_container
from keepfed.host.running import Running
from keepfed.inside.originals import with_first_values
from keepfed.inside.processes import running_in
from keepfed.inside.reading import scan_container
from keepfed.knobs.scan import Scanned


def scan_inside(name: str, paths: Sequence[str]) -> tuple[Scanned, tuple[Running, ...]]:
    """What was found, and the processes of the container. Raises UnreachableError, UsageError."""
    with find_container(name) as container:
        scanned = scan_container(container, paths)
        sites = with_first_values(container, scanned.sites, scanned.files, Path.cwd())
        return replace(scanned, sites=tuple(sites)), running_in(container)
