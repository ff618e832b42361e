"""Edits → files and journal: what `keepfed set` does once somebody has said yes."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from keepfed.edit.replacement import Edit, applied, in_order, sha256
from keepfed.knobs.journal import Change
from keepfed.write.noting import Journal, open_journals
from keepfed.write.replacing import Content, replace_all


@dataclass(frozen=True, slots=True)
class FileEdits:
    """All edits of one file."""

    path: Path
    """The file as it can be opened."""
    before: bytes
    """What it has to hold."""
    edits: tuple[Edit, ...]
    """What is changed in it."""
    undoes: Mapping[Edit, str]
    """For an undo, the id of the change that each edit takes back."""

    @property
    def after(self) -> bytes:
        """What it will hold. Raises EditRefused."""
        return applied(self.before, self.edits)


@dataclass(frozen=True, slots=True)
class Done:
    """What was written."""

    group: str
    """The name by which `keepfed undo` takes it back."""
    journal: Path
    """Where it was noted."""
    notes: tuple[str, ...]
    """What the reader should know, in words."""


def carry_out(
    files: Sequence[FileEdits],
    *,
    where: Path,
    command: Sequence[str],
    verb: str = "set",
    settled: Sequence[Change] = (),
) -> Done:
    """Make all edits of all files and note them. Changes that are `settled` turned out to be no longer there: noted as void.

    Raises WriteError, JournalError or EditRefused: nothing is changed then, or the message says what is.
    """
    group = secrets.token_hex(3)
    contents = [Content(file.path, file.before, file.after) for file in files]
    changes = _changes(files, contents, group, verb, tuple(command))
    changes += [
        replace(change, id=f"{group}.{change.id}v", verb="void", time=_now(), undoes=change.id) for change in settled
    ]
    touched = [content.target for content in contents] + [Path(change.file) for change in settled]
    with open_journals(where, touched) as journals:
        for content in contents:
            journals[0].keep(sha256(content.before), content.before)

        def note() -> None:
            _append(journals, changes)

        def void() -> None:
            _append(journals, [_voided(change) for change in changes if change.verb == verb])

        notes = replace_all(contents, note, void)
        return Done(group, journals[0].path, tuple(notes))


def _append(journals: Sequence[Journal], changes: Sequence[Change]) -> None:
    for journal in journals:
        journal.append(changes)


def _changes(
    files: Sequence[FileEdits], contents: Sequence[Content], group: str, verb: str, command: tuple[str, ...]
) -> list[Change]:
    changes: list[Change] = []
    for file, content in zip(files, contents, strict=True):
        for edit in in_order(file.edits):
            changes.append(
                Change(
                    id=f"{group}.{len(changes) + 1}",
                    group=group,
                    verb=verb,
                    time=_now(),
                    file=str(content.target),
                    line=edit.line,
                    knob=edit.knob,
                    spelling=edit.spelling,
                    old=edit.was,
                    new=edit.becomes,
                    start=edit.span.start,
                    end=edit.span.end,
                    old_bytes=edit.old,
                    new_bytes=edit.new,
                    sha256_before=sha256(content.before),
                    sha256_after=sha256(content.after),
                    command=command,
                    user=_user(),
                    undoes=file.undoes.get(edit, ""),
                )
            )
    return changes


def _voided(change: Change) -> Change:
    return replace(change, id=f"{change.id}v", verb="void", time=_now(), undoes=change.id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return ""
