"""One stretch of bytes in place of another, and how several of them are put into a file.

A file is never taken apart and written anew from what a parser understood: comments, order, quotes, line ends, a missing final
newline and whatever an editor of 2009 left there would go. Everything outside the stretch stays because it is never looked at.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keepfed.errors import KeepfedError
from keepfed.knobs.site import Span
from keepfed.text import say


class EditRefused(KeepfedError):
    """A place cannot be changed safely; the message says why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one place."""

    file: str
    """Path of the file, as it was given."""
    span: Span
    """The bytes that go; empty (start == end) where something is inserted."""
    old: bytes
    """What has to stand there."""
    new: bytes
    """What will stand there, in the encoding of the file."""
    line: int
    """Line of the value, from 1."""
    knob: str
    """Canonical name of the setting."""
    spelling: str
    """Its name as it is written there."""
    was: str
    """The value before, as text; empty where there was none."""
    becomes: str
    """The value behind, as text."""


def applied(data: bytes, edits: Iterable[Edit]) -> bytes:
    """The file's bytes with every edit made.

    Raises EditRefused where two edits touch the same bytes, or where other bytes stand than an edit expects.
    """
    ordered = in_order(edits)
    for edit in reversed(ordered):
        start, end = edit.span.start, edit.span.end
        if data[start:end] != edit.old or end > len(data):
            raise EditRefused(say("edit.moved", place=f"{edit.file}:{edit.line}"), next_step=say("edit.moved_next"))
        data = data[:start] + edit.new + data[end:]
    return data


def in_order(edits: Iterable[Edit]) -> list[Edit]:
    """The edits of one file from its beginning to its end. Raises EditRefused where two of them overlap.

    Several insertions at one place stay in the order in which they were given.
    """
    ordered = sorted(edits, key=lambda edit: edit.span)
    for one, other in itertools.pairwise(ordered):
        twice = other.span == one.span and one.span.start < one.span.end
        if other.span.start < one.span.end or twice:
            raise EditRefused(
                say("edit.overlap", file=one.file, line=one.line, one=one.becomes, other=other.becomes),
                next_step=say("edit.overlap_next"),
            )
    return ordered


def reversed_edits(edits: Sequence[Edit]) -> list[Edit]:
    """The edits that lead back from the file in which all of these were made."""
    shift, back = 0, []
    for edit in in_order(edits):
        start = edit.span.start + shift
        back.append(
            Edit(
                file=edit.file,
                span=Span(start, start + len(edit.new)),
                old=edit.new,
                new=edit.old,
                line=edit.line,
                knob=edit.knob,
                spelling=edit.spelling,
                was=edit.becomes,
                becomes=edit.was,
            )
        )
        shift += len(edit.new) - len(edit.old)
    return back


def sha256(data: bytes) -> str:
    """The hash by which a file is recognised, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
