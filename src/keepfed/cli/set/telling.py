"""What `keepfed set` says beside the diff: on stderr, so that stdout is the diff alone and can be piped into patch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from keepfed.cli.set.around import beaten_around
from keepfed.edit.cautions import cautions
from keepfed.edit.choosing import Choice
from keepfed.edit.planning import Planned
from keepfed.edit.restarting import restarts
from keepfed.errors import KeepfedError
from keepfed.knobs.origin.journal import project_folder
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.knobs.site import Kind, KnobSite
from keepfed.text import say

_LONG = 60
_MOST = 40


def tell(line: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{line}\n")


def tell_already(sites: Iterable[KnobSite]) -> None:
    """Places that say it already."""
    for site in sites:
        tell(say("edit.already", place=_place(site), name=site.spelling, value=site.value))


def tell_kept(plan: Planned) -> None:
    """What else sets the same and stays, each with its reason; no names whose own value is what is changed."""
    changed = {f"{site.file}:{site.line}" for site, _ in plan.changed}
    kept = [one for one in plan.kept if one.reason != "edit.kept_reference" or one.site.counts_at not in changed]
    if not kept:
        return
    tell(say("edit.kept_head", count=len(kept)))
    for one in kept[:_MOST]:
        where = say("edit.counts_at", place=one.site.counts_at) if one.site.counts_at else ""
        reason = say(one.reason) + where
        tell(
            "  "
            + say(
                "edit.kept_line",
                place=_place(one.site),
                name=one.site.spelling,
                value=_short(one.site.value),
                reason=reason,
            )
        )
    if len(kept) > _MOST:
        tell("  " + say("edit.kept_more", count=len(kept) - _MOST))


def tell_ways(choices: Iterable[Choice]) -> None:
    """Where a name was pointed at, and its definition is changed."""
    for choice in choices:
        for site, definition in choice.ways:
            tell(
                say("edit.led_to", place=_place(site), name=site.refers_to or site.value, definition=_place(definition))
            )


def tell_cautions(plan: Planned, scanned: Scanned, named: Collection[str], *, here: bool) -> None:
    """What one should know before saying yes; `named` are the files given by name, `here` whether they are this machine's."""
    project = _printed_from(plan) if here else []
    for line in cautions(plan, [*scanned.sites, *project], scanned.files):
        tell(say("edit.caution", text=line))
    for site, winner in beaten_around(plan, named) if here else ():
        line = say("edit.caution_overridden", place=f"{site.file}:{site.line}", counts=f" ({winner})")
        tell(say("edit.caution", text=line))


def _printed_from(plan: Planned) -> list[KnobSite]:
    """The sites of the project that changed printouts lie in, to name the option that they were printed from."""
    found: list[KnobSite] = []
    for folder in {
        _project_of(site.file) for site, _ in plan.changed if site.kind is Kind.RECORD and not site.counts_at
    }:
        with contextlib.suppress(KeepfedError):
            found += scan_paths([folder]).sites if folder else ()
    return found


def _project_of(file: str) -> str:
    """The folder of a file's project, as it is seen from here; empty where nothing marks one and we do not stand in it."""
    parent = Path(os.path.realpath(file)).parent
    root, here = project_folder(parent), Path.cwd()
    if root == parent and here in parent.parents:
        root = here
    return os.path.relpath(root) if root != parent else ""


def tell_restarts(sites: Sequence[KnobSite]) -> None:
    """What has to be started anew."""
    for key in restarts(sites):
        tell(say(key))


def looked_at(scanned: Scanned, paths: Sequence[str]) -> str:
    """What was looked at in vain, in words; with the reasons of files that were named and not read."""
    lines = [say("edit.looked_at", files=len(scanned.files), paths=", ".join(paths))]
    lines += [f"{one.file}: {say(one.reason)}" for one in scanned.skipped if one.file in {*paths}]
    return "\n".join(lines)


def _place(site: KnobSite) -> str:
    return f"{site.file}:{site.line}:{site.column}"


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONG else f"{line[: _LONG - 3]}..."
