"""`keepfed undo [ID | FILE]`: takes back what `keepfed set` has changed, if the file still is as that left it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keepfed.inside.writing import Reaching
from keepfed.knobs.origin.journal import Change, journal_in, journals_about, project_folder, read_changes
from keepfed.text import say
from keepfed.write.carrying_out import carry_out
from keepfed.write.taking_back import ChangedSince, TakenBack, select, take_back


def undo(
    what: Annotated[str | None, typer.Argument(metavar="[ID | FILE]", help=say("edit.undo_what"))] = None,
    container: Annotated[str | None, typer.Option("--container", metavar="NAME", help=say("inside.undo"))] = None,
) -> int:
    """Take back the last set, the one of that ID, or the last one of that file."""
    here = Path.cwd()
    journals = journals_about([here] if what is None else [here, here / what])
    changes = read_changes(journals)
    with Reaching() as reach:
        chosen = select(_of_here(changes, here) if what is None else changes, what, here, reach.identity(container))
        try:
            plan = take_back(chosen, changes, journals, reach)
        except ChangedSince as error:
            _show(error.diff)
            raise
        _carry_out(plan, here)
    return 0


def _of_here(changes: Sequence[Change], here: Path) -> list[Change]:
    """What the project's journal has, and what lies in the project: the user's own journal has other projects' changes as well."""
    root = project_folder(here)
    noted = {change.id for change in read_changes([journal_in(root)])}
    return [
        change for change in changes if change.container or change.id in noted or Path(change.file).is_relative_to(root)
    ]


def _carry_out(plan: TakenBack, here: Path) -> None:
    """Write the old values; note those that are there already, so that the next undo goes on with the set before."""
    done = carry_out(plan.files, where=here, command=sys.argv, verb="undo", settled=plan.already)
    for change in plan.already:
        _tell(say("edit.undo_already", file=_shown(change, here), line=change.line, name=change.spelling))
    for file in plan.files:
        for edit in file.edits:
            key = "edit.undo_removed" if not edit.new else "edit.undo_line"
            place = f"{file.path if file.remote else _near(str(file.path), here)}:{edit.line}"
            _tell(say(key, place=place, name=edit.spelling, old=edit.was.strip(), new=edit.becomes))
    for note in done.notes:
        _tell(note)


def _show(diff: bytes) -> None:
    if diff and hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(diff)
        sys.stdout.buffer.flush()


def _shown(change: Change, here: Path) -> str:
    return _near(change.file, here)


def _near(file: str, here: Path) -> str:
    try:
        return str(Path(file).relative_to(here))
    except ValueError:
        return file


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
