"""Who changed a setting, when, from what to what: git's commits and keepfed's own journal as one list.

`git log -L` would tell it for one place at a time, and takes seconds for each. The commits that touched the files are few, and both
versions of a file can be read like any other file: what differs between their sites is what was changed, wherever the line went.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepfed.knobs.origin.history import Version, committed, versions
from keepfed.knobs.origin.journal import Change, journals_about, read_changes
from keepfed.knobs.origin.original import matched, sites_in
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source

MOST_COMMITS = 50
"""Commits that are looked into, per working tree, the newest first."""
HISTORY_S = 30.0
"""How long git may take: whoever asks for changes waits for them."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one setting."""

    time: str
    """When, ISO 8601."""
    who: str
    """The author of the commit, or the user who ran keepfed; empty where nobody has said yet that it was him."""
    source: str
    """"git", "journal", or "uncommitted": it stands in the file and in no commit."""
    reference: str
    """The commit, shortened, or the journal's id of the change."""
    verb: str
    """"set" or "undo" for keepfed's own changes, "commit" for others', "edit" for uncommitted ones."""
    file: str
    """The file, as the scan calls it."""
    line: int
    """The line of the value after the change; before it, where it was taken away."""
    knob: str
    """Canonical name of the setting."""
    spelling: str
    """As it is written there."""
    old: str | None
    """The value before; None where it was added."""
    new: str | None
    """The value behind; None where it was taken away."""

    def to_json(self) -> dict[str, str | int | None]:
        """As plain JSON types."""
        return {
            "time": self.time,
            "who": self.who,
            "source": self.source,
            "reference": self.reference,
            "verb": self.verb,
            "file": self.file,
            "line": self.line,
            "knob": self.knob,
            "spelling": self.spelling,
            "from": self.old,
            "to": self.new,
        }


def changes_of(
    sites: Sequence[KnobSite], files: Mapping[str, Source], *, commits: int = MOST_COMMITS, seconds: float = HISTORY_S
) -> list[Changed]:
    """What was changed in the files of these sites, the newest first."""
    names = list(dict.fromkeys(site.file for site in sites))
    noted = list(_from_journal(names))
    until_s = time.monotonic() + seconds
    rows = [row for version in versions(names, commits=commits, until_s=until_s) for row in _between(version)]
    rows += _uncommitted(sites, names, files, noted, until_s)
    return sorted([*rows, *noted], key=lambda row: _moment(row.time), reverse=True)


def _between(version: Version) -> Iterator[Changed]:
    """What a commit did to the settings of one file; a file that came or went as a whole is no change of a setting."""
    if version.before is None or version.after is None:
        return
    old, new = sites_in(version.file, version.before), sites_in(version.file, version.after)
    facts = {"time": version.time, "who": version.author, "source": "git", "verb": "commit"}
    yield from _differences(old, new, facts | {"reference": version.commit[:10]})


def _differences(old: Sequence[KnobSite], new: Sequence[KnobSite], facts: Mapping[str, str]) -> Iterator[Changed]:
    pairs = matched(old, new)
    known = {id(site) for pair in pairs for site in pair}
    for before, behind in pairs:
        if before.value != behind.value:
            yield _row(behind, before.value, behind.value, facts)
    # Where the number of equal places changed, nobody can say which one is new: the values that one version alone has are told.
    for site in _unequal(
        [site for site in new if id(site) not in known], [site for site in old if id(site) not in known]
    ):
        yield _row(site, None, site.value, facts)
    for site in _unequal(
        [site for site in old if id(site) not in known], [site for site in new if id(site) not in known]
    ):
        yield _row(site, site.value, None, facts)


def _unequal(these: Iterable[KnobSite], those: Iterable[KnobSite]) -> list[KnobSite]:
    """What is left of `these` when an equal one of `those` is taken away for each."""
    left = [(site.knob, site.spelling, site.owner, site.value) for site in those]
    kept = []
    for site in these:
        key = (site.knob, site.spelling, site.owner, site.value)
        if key in left:
            left.remove(key)
        else:
            kept.append(site)
    return kept


def _row(site: KnobSite, old: str | None, new: str | None, facts: Mapping[str, str]) -> Changed:
    return Changed(file=site.file, line=site.line, knob=site.knob, spelling=site.spelling, old=old, new=new, **facts)


def changes_inside(container: str, names: Iterable[str], where: Path) -> list[Changed]:
    """What keepfed changed in these files of a container (by its ID), the newest first; `where` is the folder whose journal knows."""
    rows = _notes(read_changes(journals_about([where])), {name: name for name in names}, container)
    return sorted(rows, key=lambda row: _moment(row.time), reverse=True)


def _from_journal(names: Sequence[str]) -> Iterator[Changed]:
    """What keepfed changed in these files, and took back."""
    return _notes(read_changes(journals_about(map(Path, names))), {os.path.realpath(name): name for name in names}, "")


def _notes(changes: Sequence[Change], by_path: Mapping[str, str], container: str) -> Iterator[Changed]:
    never = {change.undoes for change in changes if change.verb == "void"}
    made = {change.id: change for change in changes}
    for change in changes:
        told = change.verb != "void" and change.id not in never
        if told and change.container == container and change.file in by_path:
            yield _noted(change, made.get(change.undoes), by_path[change.file])


def _noted(change: Change, undone: Change | None, name: str) -> Changed:
    return Changed(
        time=change.time,
        who=change.user,
        source="journal",
        reference=change.id,
        verb=change.verb,
        file=name,
        line=(undone or change).line,
        knob=change.knob,
        spelling=change.spelling,
        old=change.old or None,
        new=change.new or None,
    )


def _uncommitted(
    sites: Sequence[KnobSite],
    names: Sequence[str],
    files: Mapping[str, Source],
    noted: Sequence[Changed],
    until_s: float,
) -> Iterator[Changed]:
    """What stands in the files and in no commit, unless the journal tells it already."""
    told = {(row.file, row.spelling, row.new) for row in noted}
    for name, data in committed(names, until_s=until_s).items():
        if name in files and files[name].data == data:
            continue
        here = [site for site in sites if site.file == name]
        facts = {"time": _written(name), "who": "", "source": "uncommitted", "verb": "edit", "reference": ""}
        for row in _differences(sites_in(name, data), here, facts):
            if (row.file, row.spelling, row.new) not in told:
                yield row


def _written(name: str) -> str:
    """When a file was written last, ISO 8601 in UTC."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.stat(name).st_mtime))
    except OSError:
        return ""


def _moment(text: str) -> float:
    """A time as a number, so that different zones can be compared; 0 where it cannot be read."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
