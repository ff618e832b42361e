"""What `keepfed undo` takes back: a whole set, or what was last done to one file, if the file still is as that left it.

An undo that found its bytes moved by ten and put the old value there would hit whatever stands there now. So the whole file has to
be what the change left behind; where it is not, the difference is shown and nothing is done.

    set 4→8 (a1)   set 8→2 (b2)      undo      takes back b2, then a1
                                     undo a1   refused while b2 stands: the file is not as a1 left it, b2 is named
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from keepfed.edit.diff import unified
from keepfed.edit.replacement import Edit, applied, reversed_edits, sha256
from keepfed.errors import UnreachableError
from keepfed.knobs.origin.journal import Change, standing
from keepfed.knobs.site import Span
from keepfed.text import say
from keepfed.write.carrying_out import FileEdits, Remote
from keepfed.write.noting import kept_copy
from keepfed.write.replacing import WriteError, read_file


class ChangedSince(WriteError):
    """A file is no longer as the change left it; `diff` shows how, as far as that is known."""

    def __init__(self, message: str, *, next_step: str = "", diff: bytes = b"") -> None:
        super().__init__(message, next_step=next_step)
        self.diff = diff


@dataclass(frozen=True, slots=True)
class Reached:
    """A file as it is now."""

    data: bytes
    """What it holds."""
    remote: Remote | None = None
    """Who writes it, if not we."""


@dataclass(slots=True)
class TakenBack:
    """What an undo would do."""

    group: str
    """The set that is taken back."""
    changes: list[Change]
    """Its changes that still stand and are taken back now."""
    files: list[FileEdits] = field(default_factory=list)
    """The edits that do it."""
    already: list[Change] = field(default_factory=list)
    """Changes whose file is already as it was before."""


def select(changes: Sequence[Change], asked: str | None, cwd: Path, container: str = "") -> list[Change]:
    """The changes that `keepfed undo [ID | FILE]` means; with a container's ID or name, only those in there.

    Raises UnreachableError where nothing is left to take back, or nothing is known of that ID or file.
    """
    left = [change for change in standing(changes) if container in ("", change.container, change.container_name)]
    if asked is None:
        found = left
    elif any(change.container and change.file == asked for change in left):
        found = [change for change in left if change.container and change.file == asked]
    elif os.path.lexists(cwd / asked) or any(_is_own(change, _real(cwd, asked)) for change in left):
        found = [change for change in left if _is_own(change, _real(cwd, asked))]
    else:
        found = [change for change in left if asked in {change.group, change.id}]
    if not found:
        raise _nothing(changes, asked)
    last = found[-1].group
    return [change for change in found if change.group == last]


def _own(change: Change) -> Reached:
    return Reached(read_file(Path(change.file)))


def take_back(
    chosen: Sequence[Change],
    changes: Sequence[Change],
    journals: Sequence[Path],
    reach: Callable[[Change], Reached] = _own,
) -> TakenBack:
    """The edits that lead back; `reach` opens a file that lies in a container.

    Raises ChangedSince where a file is not as the changes left it, WriteError where it is gone.
    """
    plan = TakenBack(chosen[0].group, list(chosen))
    whole = [change for change in changes if change.group == plan.group and change.verb == "set"]
    for place, group in groupby(sorted(chosen, key=_place), key=_place):
        part = list(group)
        reached = (reach if part[0].container else _own)(part[0])
        data = reached.data
        if sha256(data) == part[0].sha256_after:
            plan.files.append(_back(part[0].file, reached, [change for change in whole if _place(change) == place]))
        elif sha256(data) == part[0].sha256_before:
            plan.already += part
        else:
            raise _changed_since(part, data, changes, journals)
    return plan


def _place(change: Change) -> tuple[str, str]:
    return change.container, change.file


def _is_own(change: Change, path: str) -> bool:
    return not change.container and change.file == path


def _back(file: str, reached: Reached, part: Sequence[Change]) -> FileEdits:
    ordered = sorted(part, key=lambda change: (change.start, change.end))
    edits = reversed_edits([_edit(change) for change in ordered])
    undoes = {edit: change.id for edit, change in zip(edits, ordered, strict=True)}
    back = FileEdits(Path(file), reached.data, tuple(edits), undoes, reached.remote)
    if sha256(back.after) != part[0].sha256_before:
        raise WriteError(say("edit.journal_wrong", file=file, group=part[0].group))
    return back


def _edit(change: Change) -> Edit:
    return Edit(
        file=change.file,
        span=Span(change.start, change.end),
        old=change.old_bytes,
        new=change.new_bytes,
        line=change.line,
        knob=change.knob,
        spelling=change.spelling,
        was=change.old,
        becomes=change.new,
    )


def _changed_since(
    part: Sequence[Change], data: bytes, changes: Iterable[Change], journals: Sequence[Path]
) -> ChangedSince:
    """Say what happened to the file since: a later set of ours is named, anything else shown."""
    first = part[0]
    later = [
        change.group
        for change in standing(changes)
        if _place(change) == _place(first) and change.time > first.time and change.group != first.group
    ]
    before = kept_copy(journals, first.sha256_before)
    left = applied(before, [_edit(change) for change in part]) if before is not None else None
    diff = unified(first.file, left, data) if left is not None else b""
    message = say("edit.changed_since", file=first.file, time=_short(first.time), group=first.group)
    if later:
        return ChangedSince(message, next_step=say("edit.changed_by_set_next", group=later[-1]), diff=diff)
    return ChangedSince(
        message, next_step=say("edit.changed_since_next", line=first.line, old=first.old, new=first.new), diff=diff
    )


def _nothing(changes: Sequence[Change], asked: str | None) -> UnreachableError:
    if asked is None:
        return UnreachableError(say("edit.nothing_to_undo"), next_step=say("edit.nothing_to_undo_next"))
    known = any(asked in {change.group, change.id} for change in changes)
    key = "edit.undone_already" if known else "edit.nothing_known"
    return UnreachableError(say(key, asked=asked), next_step=say("edit.nothing_to_undo_next"))


def _real(cwd: Path, asked: str) -> str:
    return os.path.realpath(cwd / asked)


def _short(time: str) -> str:
    return time[:16].replace("T", " ")
