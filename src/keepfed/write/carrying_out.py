"""Edits → files and journal: what `keepfed set` does once somebody has said yes.

A file that cannot be renamed into place from here (one inside a container) is a `Remote`: it is checked with the others, and put
between the journal's line and the renames, so that whatever fails, the rest is left or led back.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from keepfed.edit.replacement import Edit, applied, in_order, sha256
from keepfed.errors import KeepfedError
from keepfed.knobs.origin.journal import Change
from keepfed.text import say
from keepfed.write.noting import Journal, JournalError, open_journals
from keepfed.write.replacing import Content, WriteError, replace_all


class Remote(Protocol):
    """A file that somebody else has to write."""

    @property
    def container(self) -> str:
        """The ID of the container that it lies in."""

    @property
    def container_name(self) -> str:
        """What that is called."""

    @property
    def image(self) -> str:
        """What it was made of."""

    def check(self, before: bytes) -> None:
        """Raise WriteError where it holds something else, or cannot be written."""

    def put(self, data: bytes) -> None:
        """Give it this content, and see that it has it. Raises KeepfedError."""

    def put_back(self, before: bytes, after: bytes) -> None:
        """Give it the content before, wherever an attempt to put the one after has ended. Raises KeepfedError where that fails."""


@dataclass(frozen=True, slots=True)
class FileEdits:
    """All edits of one file."""

    path: Path
    """The file as it can be opened; its absolute path there, where it is a remote one."""
    before: bytes
    """What it has to hold."""
    edits: tuple[Edit, ...]
    """What is changed in it."""
    undoes: Mapping[Edit, str]
    """For an undo, the id of the change that each edit takes back."""
    remote: Remote | None = None
    """Who writes it, if not we."""

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
    own = [file for file in files if file.remote is None]
    contents = [Content(file.path, file.before, file.after) for file in own]
    changes = _changes(files, group, verb, tuple(command))
    changes += [
        replace(change, id=f"{group}.{change.id}v", verb="void", time=_now(), undoes=change.id) for change in settled
    ]
    touched = [content.target for content in contents]
    touched += [Path(change.file) for change in settled if not change.container]
    put = _Put([file for file in files if file.remote is not None])
    with open_journals(where, touched) as journals:
        for file in files:
            journals[0].keep(sha256(file.before), file.before)
        put.check()

        def note() -> None:
            _append(journals, changes)
            try:
                put.all()
            except BaseException as error:
                failed = str(put.begun[-1].path) if put.begun else ""
                void(())
                put.raise_if_lost(error, failed)
                raise

        def void(lost: Collection[Path]) -> None:
            put.back()
            here = {str(path) for path in lost}
            there = {str(file.path) for file in put.lost}
            undone = [change for change in changes if change.verb == verb]
            _append(journals, [_voided(one) for one in undone if one.file not in (there if one.container else here)])

        notes = replace_all(contents, note, void)
        return Done(group, journals[0].path, tuple(notes))


@dataclass(slots=True)
class _Put:
    """The files that others write, which of them have been or may have been, and which could not be led back."""

    files: list[FileEdits]
    begun: list[FileEdits] = field(default_factory=list)
    lost: list[FileEdits] = field(default_factory=list)

    def check(self) -> None:
        for file in self.files:
            if file.remote is not None:
                file.remote.check(file.before)

    def all(self) -> None:
        for file in self.files:
            if file.remote is not None:
                self.begun.append(file)
                file.remote.put(file.after)

    def back(self) -> None:
        while self.begun:
            file = self.begun.pop()
            try:
                if file.remote is not None:
                    file.remote.put_back(file.before, file.after)
            except KeepfedError:
                self.lost.append(file)

    def raise_if_lost(self, error: BaseException, failed: str) -> None:
        """Raise WriteError, with the names, where a file has kept what should have been led back."""
        if self.lost and isinstance(error, Exception):
            names = ", ".join(str(file.path) for file in self.lost)
            raise WriteError(
                say("edit.half_done", file=failed, reason=error, changed=names), next_step=say("edit.half_done_next")
            ) from error


def _append(journals: Sequence[Journal], changes: Sequence[Change]) -> None:
    """Note changes. Raises JournalError where the first journal takes no more; the others are for people who look there."""
    first, *others = journals
    try:
        first.append(changes)
    except OSError as error:
        reason = f"{first.path}: {error.strerror or error}"
        raise JournalError(say("edit.no_journal", reasons=reason), next_step=say("edit.disk_full_next")) from error
    for journal in others:
        with contextlib.suppress(OSError):
            journal.append(changes)


def _changes(files: Sequence[FileEdits], group: str, verb: str, command: tuple[str, ...]) -> list[Change]:
    changes: list[Change] = []
    for file in files:
        remote = file.remote
        target = str(file.path) if remote else str(Content(file.path, file.before, file.before).target)
        before, after = sha256(file.before), sha256(file.after)
        for edit in in_order(file.edits):
            changes.append(
                Change(
                    id=f"{group}.{len(changes) + 1}",
                    group=group,
                    verb=verb,
                    time=_now(),
                    file=target,
                    line=edit.line,
                    knob=edit.knob,
                    spelling=edit.spelling,
                    old=edit.was,
                    new=edit.becomes,
                    start=edit.span.start,
                    end=edit.span.end,
                    old_bytes=edit.old,
                    new_bytes=edit.new,
                    sha256_before=before,
                    sha256_after=after,
                    command=command,
                    user=_user(),
                    undoes=file.undoes.get(edit, ""),
                    container=remote.container if remote else "",
                    container_name=remote.container_name if remote else "",
                    image=remote.image if remote else "",
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
