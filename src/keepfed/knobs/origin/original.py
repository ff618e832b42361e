"""What stood in a place before anybody changed it, and how that is known.

In this order, the first that knows it:

    journal    `keepfed set` changed it, and noted what it replaced
    git        the last commit has another value, or else the commit that brought the file had
    default    the program's own default, behind a flag or a file that replaces it
    printed    `[default: 4]` in a printout
    git        the same value ever since the file came

Line numbers move, so a place is found again in another version by its name, its owner, its path and its turn among equal ones;
where the two versions have different numbers of those, it is not found.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from keepfed.knobs.origin.history import committed, first_versions
from keepfed.knobs.origin.journal import Change, journals_about, read_changes, standing
from keepfed.knobs.reading import read
from keepfed.knobs.site import KnobSite, Original
from keepfed.knobs.source import Source

HISTORY_S = 1.5
"""How long a scan waits for git in all; past it, what git knows is left out."""
Key = tuple[str, str, str, str, str]


def with_originals(
    sites: Sequence[KnobSite], files: Mapping[str, Source], *, git_s: float = HISTORY_S
) -> list[KnobSite]:
    """The same sites with `original`, for files of this machine; the originals that they have come last but one."""
    noted = standing(read_changes(journals_about(map(Path, {os.path.dirname(site.file) for site in sites}))))
    known = from_journal(sites, noted, os.path.realpath)
    history = _from_git(sites, files, time.monotonic() + git_s)
    return [replace(site, original=_first(site, known.get(at), history.get(at))) for at, site in enumerate(sites)]


def from_journal(
    sites: Sequence[KnobSite], changes: Sequence[Change], located: Callable[[str], str]
) -> dict[int, Original]:
    """By the index of a site: what the journal says that stood there first. `located` gives the path that the journal has."""
    by_file: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_file[change.file].append(change)
    paths = {site.file: located(site.file) for site in sites} if by_file else {}
    found: dict[int, Original] = {}
    for at, site in enumerate(sites):
        about = [change for change in by_file.get(paths.get(site.file, ""), ()) if change.spelling == site.spelling]
        here = [change for change in about if change.line == site.line]
        if not here and len({change.line for change in about}) == 1 and _only_one(site, sites):
            here = about
        if here and here[0].old:
            found[at] = Original(here[0].old, "journal")
    return found


def matched(old: Sequence[KnobSite], new: Sequence[KnobSite]) -> list[tuple[KnobSite, KnobSite]]:
    """Pairs of the same place in two versions of a file."""
    before, behind = _grouped(old), _grouped(new)
    pairs: list[tuple[KnobSite, KnobSite]] = []
    for key, places in behind.items():
        if len(before.get(key, ())) == len(places):
            pairs.extend(zip(before[key], places, strict=True))
    return pairs


def sites_in(name: str, data: bytes | None) -> list[KnobSite]:
    """The sites of a version of a file; none where it is no text."""
    source = Source.of(name, data) if data is not None else None
    return read(source) if source else []


def _only_one(site: KnobSite, sites: Sequence[KnobSite]) -> bool:
    return sum(other.file == site.file and other.spelling == site.spelling for other in sites) == 1


def _grouped(sites: Iterable[KnobSite]) -> dict[Key, list[KnobSite]]:
    found: dict[Key, list[KnobSite]] = defaultdict(list)
    for site in sites:
        found[site.knob, site.spelling, site.owner, site.setting, site.form].append(site)
    return found


def _from_git(sites: Sequence[KnobSite], files: Mapping[str, Source], until_s: float) -> dict[int, Original]:
    """By the index of a site: its value in the last commit where that differs from now, else in the first version."""
    numbered: dict[str, list[int]] = defaultdict(list)
    for at, site in enumerate(sites):
        numbered[site.file].append(at)
    last = committed(numbered, until_s=until_s)
    first = {name: version.after for name, version in first_versions(last, until_s=until_s).items()}
    found: dict[int, Original] = {}
    for name in last:
        if time.monotonic() > until_s:
            break
        now = {id(sites[at]): at for at in numbered[name]}
        here = [sites[at] for at in numbered[name]]
        present = files[name].data if name in files else None
        for data in dict.fromkeys((first.get(name), last[name])):
            for before, site in matched(here if data == present else sites_in(name, data), here):
                at = now[id(site)]
                if at not in found or before.value != site.value:
                    found[at] = Original(before.value, "git")
    return found


def _first(site: KnobSite, noted: Original | None, committed_one: Original | None) -> Original | None:
    if committed_one is not None and committed_one.value == site.value:
        return noted or site.original or committed_one
    return noted or committed_one or site.original
