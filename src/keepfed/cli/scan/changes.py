"""`keepfed scan --changes`: who changed a setting, when, from what to what, the newest first."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keepfed.knobs.origin.changes import MOST_COMMITS, Changed
from keepfed.text import say


def show_changes(rows: Sequence[Changed]) -> None:
    """Print one line per change, and how far back was looked."""
    for row in rows:
        sys.stdout.write(f"{_line(row)}\n")
    sys.stdout.write(
        say("scan.changes_summary" if rows else "scan.changes_none", count=len(rows), commits=MOST_COMMITS) + "\n"
    )


def _line(row: Changed) -> str:
    who = {
        "git": say("scan.changed_in_commit", who=row.who, commit=row.reference),
        "journal": say(f"scan.changed_by_{'undo' if row.verb == 'undo' else 'set'}", who=row.who, id=row.reference),
        "uncommitted": say("scan.changed_uncommitted"),
    }[row.source]
    nothing = say("scan.changed_nothing")
    return say(
        "scan.changed",
        time=row.time,
        who=who,
        file=row.file,
        line=row.line,
        spelling=row.spelling,
        old=nothing if row.old is None else " ".join(row.old.split()),
        new=nothing if row.new is None else " ".join(row.new.split()),
    )
