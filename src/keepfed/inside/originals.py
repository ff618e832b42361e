"""What stood in the files of a container at first.

The journal knows what keepfed has changed there; the image has its own copy of a file, which no edit inside the container has
touched; and a file that is bind-mounted is one of this machine, with its journal and its history in git.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.knobs.origin.journal import journals_about, read_changes, standing
from keepfed.knobs.origin.original import from_journal, matched, sites_in, with_originals
from keepfed.knobs.site import KnobSite, Original
from keepfed.knobs.source import Source
from keepfed.knobs.walk import limit_bytes


def with_first_values(
    container: Container,
    sites: Sequence[KnobSite],
    files: Mapping[str, Source],
    hosted: Mapping[str, str],
    where: Path,
) -> list[KnobSite]:
    """The same sites with `original`.

    `hosted` has this machine's path of each file that is mounted from it, `where` is the folder whose journal knows of the others.
    """
    there = [replace(site, file=hosted[site.file]) for site in sites if site.file in hosted]
    texts = {path: files[name] for name, path in hosted.items() if name in files}
    first_there = iter(with_originals(there, texts))
    inside = [site for site in sites if site.file not in hosted]
    first_inside = iter(_of_layers(container, inside, where))
    return [replace(next(first_there), file=site.file) if site.file in hosted else next(first_inside) for site in sites]


def _of_layers(container: Container, sites: Sequence[KnobSite], where: Path) -> list[KnobSite]:
    noted = [one for one in standing(read_changes(journals_about([where]))) if one.container == container.id]
    known = from_journal(sites, noted, str)
    unknown = [site for at, site in enumerate(sites) if at not in known]
    image = _of_image(container, unknown) if unknown else {}
    return [replace(site, original=known.get(at) or image.get(site) or site.original) for at, site in enumerate(sites)]


def _of_image(container: Container, sites: Sequence[KnobSite]) -> dict[KnobSite, Original]:
    """By site: its value in the image's copy of the file. Nothing where a mount shows the file, or the image is gone."""
    layered = {site.file for site in sites if container.placed(site.file).mount is None}
    if not layered:
        return {}
    try:
        with container.as_its_image() as twin:
            copies = dict(_copies(twin, sorted(layered)))
    except UnreachableError:
        return {}
    found: dict[KnobSite, Original] = {}
    for file, data in copies.items():
        here = [site for site in sites if site.file == file]
        found |= {site: Original(first.value, "image") for first, site in matched(sites_in(file, data), here)}
    return found


def _copies(twin: Container, files: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    for file in files:
        try:
            yield file, twin.read(file, limit_bytes(file), with_owner=False).data
        except UnreachableError:
            continue  # nothing there, or a folder
