"""`keepfed set num_workers=8 train.py`: changes settings where they are written, after showing what that comes to.

stdout has the diff and nothing else. On a terminal it is asked before anything is written; where nobody can answer, nothing is
written without `--write`: a script that meant to look must not find that it has changed something.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from keepfed.cli.set.inside import edits_inside, opened, scanned_inside, tell_inside
from keepfed.cli.set.refusing import ELSEWHERE, refuse_missing
from keepfed.cli.set.telling import tell, tell_already, tell_cautions, tell_kept, tell_restarts, tell_ways
from keepfed.cli.set.words import asked
from keepfed.edit.choosing import Place
from keepfed.edit.diff import unified
from keepfed.edit.inserting.adding import added, sites_of
from keepfed.edit.measured import measured
from keepfed.edit.planning import Planned, add, planned
from keepfed.edit.replacement import Edit, applied
from keepfed.engine.container import Container
from keepfed.errors import KeepfedError, UnreachableError, UsageError
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.profile import read_profile
from keepfed.text import say


def set(  # noqa: A001  # the verb's name; the type is not needed here
    words: Annotated[list[str] | None, typer.Argument(metavar="KNOB=VALUE|PATH", help=say("edit.words"))] = None,
    plan: Annotated[Path | None, typer.Option("--plan", metavar="FILE", help=say("edit.plan_option"))] = None,
    site: Annotated[str | None, typer.Option("--site", metavar="FILE:LINE", help=say("edit.site_option"))] = None,
    write: Annotated[bool, typer.Option("--write", help=say("edit.write_option"))] = False,
    insert: Annotated[bool, typer.Option("--insert", help=say("edit.insert_option"))] = False,
    script: Annotated[Path | None, typer.Option("--script", metavar="FILE", help=say("edit.script_option"))] = None,
    container: Annotated[
        str | None, typer.Option("--container", metavar="NAME", help=say("inside.container_option"))
    ] = None,
) -> int:
    """Change what was asked for: 0 changed or so already, 1 refused or answered no, 2 wrong usage, 3 nothing found."""
    request = asked(words or [], plan)
    if write and script is not None:
        raise UsageError(say("edit.write_and_script"))
    if script is not None and container is not None:
        raise UsageError(say("inside.no_script"))
    place = Place.of(site) if site is not None else None
    with opened(container) as inside:
        if inside is None:
            scanned, paths = _scanned(request.paths, place)
            named = _named(scanned, paths)
        else:
            scanned, paths, named = scanned_inside(inside, request.paths, place)
        if plan is not None:
            made = _from_profile(plan, scanned, insert=insert)
        else:
            made = planned(request.wishes(scanned.sites), scanned.sites, scanned.files, place=place, named=named)
            if insert:
                _insert(made, scanned, place, named)
        tell_already(made.already)
        tell_ways(made.choices)
        refuse_missing(made, scanned, paths, place=place, insert=insert)
        return _finish(made, scanned, named, write=write, script=script, inside=inside)


def _scanned(paths: Sequence[str], place: Place | None) -> tuple[Scanned, list[str]]:
    """What was scanned, and the paths of it; the file of `--site` is read even where a folder would leave it out."""
    wanted = [*paths] or ["."]
    if place is not None and os.path.isfile(place.file) and place.file not in wanted:
        wanted.append(place.file)
    return scan_paths(wanted), wanted


def _named(scanned: Scanned, paths: Sequence[str]) -> frozenset[str]:
    """The files among those scanned that were given by their own name."""
    given = frozenset(os.path.realpath(path) for path in paths if os.path.isfile(path))
    return frozenset(file for file in scanned.files if os.path.realpath(file) in given)


def _from_profile(path: Path, scanned: Scanned, *, insert: bool) -> Planned:
    """What a plan file comes to. Raises ProfileError, UsageError and EditRefused."""
    if not path.exists():
        raise UsageError(say("run.plan_missing", path=path), next_step=say("run.plan_missing_next"))
    loaders = read_profile(path).loaders
    if not loaders:
        raise UnreachableError(say("edit.plan_no_loaders", file=path), next_step=say("edit.plan_next"))
    made = Planned()
    for one in measured(loaders, scanned.sites, scanned.files):
        wished = one.choice.wish
        if one.choice.changing or one.choice.kept:
            add(made, one.choice, scanned.files)
        elif one.needed and insert:
            edits = added(wished, scanned.sites, scanned.files, place=one.place)
            made.choices.append(one.choice)
            made.insert(one.choice, edits)
        elif one.needed:
            place = f"{one.place.file}:{one.place.line}"
            tell(say("edit.plan_missing", place=place, name=wished.knob, value=wished.value))
    return made


def _insert(made: Planned, scanned: Scanned, place: Place | None, named: Collection[str]) -> None:
    """Add what is set nowhere. Raises UnreachableError where there is nothing to add it to."""
    for choice in made.missing():
        if all(kept.reason in ELSEWHERE for kept in choice.kept):
            made.insert(choice, added(choice.wish, scanned.sites, scanned.files, place=place, named=named))


def _finish(
    made: Planned,
    scanned: Scanned,
    named: Collection[str],
    *,
    write: bool,
    script: Path | None,
    inside: Container | None,
) -> int:
    """Show what that comes to, and do it if that is wanted."""
    edits = made.by_file()
    if not edits:
        tell_kept(made)
        return 0
    _show(edits, scanned)
    tell_kept(made)
    tell_cautions(made, scanned, named, here=inside is None)
    if script is not None:
        _write_script(script, edits, scanned)
    elif write or _agreed():
        _carry_out(edits, scanned, inside)
    else:
        tell(say("edit.left"))
        return 1
    tell_restarts([site for site, _ in made.changed] + sites_of(made.inserted, scanned.files))
    return 0


def _show(edits: Mapping[str, tuple[Edit, ...]], scanned: Scanned) -> None:
    sys.stdout.flush()
    for file, changes in edits.items():
        before = scanned.files[file].data
        diff = unified(_from_here(file), before, applied(before, changes))
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(diff)
            sys.stdout.buffer.flush()
        else:
            sys.stdout.write(diff.decode("utf-8", "replace"))
            sys.stdout.flush()


def _from_here(file: str) -> str:
    """The path as `patch -p1` finds it from the current folder; from the root for files that lie elsewhere."""
    path = os.path.abspath(file)
    here = os.path.join(os.getcwd(), "")
    return (path.removeprefix(here) if path.startswith(here) else path).replace(os.sep, "/")


def _agreed() -> bool:
    """Ask. Raises UsageError where nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(say("edit.nobody_to_ask"), next_step=say("edit.nobody_to_ask_next"))
    sys.stderr.write(say("edit.ask") + " ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes", "是"}


def _carry_out(edits: Mapping[str, tuple[Edit, ...]], scanned: Scanned, inside: Container | None) -> None:
    from keepfed.write.carrying_out import FileEdits, carry_out

    if inside is not None:
        files = edits_inside(inside, edits, scanned)
    else:
        files = [FileEdits(Path(file), scanned.files[file].data, changes, {}) for file, changes in edits.items()]
    done = carry_out(files, where=Path.cwd(), command=sys.argv)
    for note in done.notes:
        tell(note)
    count = sum(len(changes) for changes in edits.values())
    tell(say("edit.done", count=count, files=len(edits), group=done.group, journal=done.journal))
    if inside is not None:
        tell_inside(inside, edits, files)


def _write_script(path: Path, edits: Mapping[str, tuple[Edit, ...]], scanned: Scanned) -> None:
    """Write the script; never over a file that is none of ours. Raises KeepfedError."""
    from keepfed.edit.script import FileToEdit, script
    from keepfed.profile import replace_file

    text = script([FileToEdit(file, scanned.files[file].data, changes) for file, changes in edits.items()])
    first = text[: text.index(b"\n", text.index(b"\n") + 1)]
    try:
        if path.exists() and not path.read_bytes().startswith(first):
            raise UsageError(say("edit.script_exists", file=path), next_step=say("edit.script_exists_next"))
        replace_file(path, text)
        path.chmod(0o755)
    except OSError as error:
        raise KeepfedError(say("edit.script_unwritable", file=path, reason=error.strerror or error)) from error
    tell(say("edit.script_made", file=path))
