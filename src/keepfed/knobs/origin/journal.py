"""What `keepfed set` and `keepfed undo` have changed: `.keepfed/journal.jsonl`, one JSON line per change, never rewritten.

Without it "what stood here before?" has no answer on the morning after. It is read here, because what a place held at first is
a fact about it; the lines are added by `keepfed.write`.

    set    a change was made            undo   the change `undoes` was taken back
    void   the change `undoes` was announced, and then not made (disk full, a file that had become read-only)

A line is written before the file is replaced. So a line may exist whose change was never made (the machine went down between
the two), and never the other way round; the hashes tell.

Where it lies: in the project's folder, which is the nearest one upwards of where one stands that holds `.keepfed` or `.git`,
else where one stands. A file of another project, elsewhere or inside that one, is noted in that project's journal as well. Where neither
can be written (a colleague's project, a read-only image): in the user's own state folder.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = ".keepfed"
FILE_NAME = "journal.jsonl"
SCHEMA = "keepfed.journal/1"

_MARKS = (FOLDER, ".git")
_MARKS_OF_MANY = (".git",)
"""Of a folder that many projects lie in, which our own folder does not make one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one place, as a line of the journal has it."""

    id: str
    """Its own name: that of the set, a dot, and its number in it."""
    group: str
    """The name of the whole `set` that it was part of; "set" in the file."""
    verb: str
    """"set", "undo" or "void"."""
    time: str
    """When, ISO 8601 in UTC."""
    file: str
    """Absolute path of the file, links resolved. In the journal it stands relative to the project's folder where it lies in it."""
    line: int
    """The line of the value before, from 1."""
    knob: str
    """Canonical name of the setting."""
    spelling: str
    """As it is written there."""
    old: str
    """The text before; "from" in the file. Empty where something was inserted."""
    new: str
    """The text behind; "to" in the file."""
    start: int
    """Where the replaced bytes began in the file before, in bytes."""
    end: int
    """The byte behind the replaced ones."""
    old_bytes: bytes
    """The replaced bytes; base64 in the file, as they may be of any encoding."""
    new_bytes: bytes
    """What stands there now; base64 in the file."""
    sha256_before: str
    """Of the whole file before the set."""
    sha256_after: str
    """Of the whole file after it."""
    command: tuple[str, ...] = ()
    """The command line that did it."""
    user: str = ""
    """Who ran it."""
    undoes: str = ""
    """For "undo" and "void", the id of the change that it takes back."""
    container: str = ""
    """The ID of the container that the file lies in; empty for this machine's own files."""
    container_name: str = ""
    """What it was called."""
    image: str = ""
    """The image that it was made of."""

    def to_json(self, base: Path | None) -> dict[str, Any]:
        """The line as plain JSON types; the file relative to `base` where it lies in it."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "set": self.group,
            "verb": self.verb,
            "time": self.time,
            "file": _relative(self.file, base) if not self.container else self.file,
            "line": self.line,
            "knob": self.knob,
            "spelling": self.spelling,
            "from": self.old,
            "to": self.new,
            "start": self.start,
            "end": self.end,
            "from_bytes": base64.b64encode(self.old_bytes).decode(),
            "to_bytes": base64.b64encode(self.new_bytes).decode(),
            "sha256_before": self.sha256_before,
            "sha256_after": self.sha256_after,
            "command": list(self.command),
            "user": self.user,
            "undoes": self.undoes,
            "container": self.container,
            "container_name": self.container_name,
            "image": self.image,
        }


def project_folder(start: Path) -> Path:
    """The folder that a journal for work done in `start` belongs to."""
    start = Path(os.path.realpath(start))
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in (_MARKS_OF_MANY if _is_of_many(folder) else _MARKS)):
            return folder
    return start


def _is_of_many(folder: Path) -> bool:
    """Whether many projects lie in it: a change that was made right there must not make one project of them all."""
    with contextlib.suppress(OSError, RuntimeError):  # no home
        return folder == Path(folder.anchor) or folder == Path.home() or bool(folder.stat().st_mode & stat.S_IWOTH)
    return False


def journal_in(folder: Path) -> Path:
    """Where the journal of a project's folder lies."""
    return folder / FOLDER / FILE_NAME


def own_journal() -> Path | None:
    """The user's own journal, for projects that they may not write into (XDG Base Directory: state that should persist).

    None for a user without a home, as containers have them.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    base = state if os.path.isabs(state) else os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "keepfed" / FILE_NAME if os.path.isabs(base) else None


def journals_about(places: Iterable[Path]) -> list[Path]:
    """The journals that may tell of these files and folders, without repeats; most of them need not exist."""
    folders = [place if place.is_dir() else place.parent for place in (Path(os.path.realpath(at)) for at in places)]
    found = [journal_in(project_folder(folder)) for folder in dict.fromkeys(folders)]
    own = own_journal()
    return list(dict.fromkeys([*found, own] if own else found))


def read_changes(journals: Iterable[Path]) -> list[Change]:
    """Every change in these journals in the order of time; one that stands in two of them once.

    What `undo` does follows from a journal, so one is not read that is a symbolic link or that others could have written, and
    what it says of files outside its own folder counts only where their own journal says so too: a journal may have come with
    somebody's repository. Lines that cannot be read (a disk that was full in the middle of one) are left out.
    """
    found: dict[str, Change] = {}
    for journal in journals:
        for change in _changes(journal):
            if _is_vouched_for(change, journal):
                found.setdefault(change.id, change)
    return sorted(found.values(), key=lambda change: change.time)


def _changes(journal: Path) -> Iterator[Change]:
    for line in _lines(journal):
        change = _change(line, journal)
        if change is not None:
            yield change


def _is_vouched_for(change: Change, journal: Path) -> bool:
    """Whether a journal may speak of that file: it lies in the journal's folder, links resolved, or another one says the same."""
    own = own_journal()
    real = Path(os.path.realpath(change.file))
    if change.container or journal == own or real.is_relative_to(os.path.realpath(journal.parent.parent)):
        return True
    others = [other for other in (journal_in(project_folder(real.parent)), own) if other and other != journal]
    return any(change == other for at in others for other in _changes(at))


def standing(changes: Iterable[Change]) -> list[Change]:
    """The changes that were made and not taken back, in the order of time."""
    known = list(changes)
    taken_back = {change.undoes for change in known if change.undoes}
    return [change for change in known if change.verb == "set" and change.id not in taken_back]


def _relative(file: str, base: Path | None) -> str:
    if base is not None:
        try:
            return Path(file).relative_to(base).as_posix()
        except ValueError:
            pass
    return file


def _lines(journal: Path) -> list[bytes]:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if journal.parent.is_symlink():
            return []
        descriptor = os.open(journal, flags)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or _is_foreign(facts):
                return []
            with open(descriptor, "rb", closefd=False) as file:
                return file.read().split(b"\n")
        finally:
            os.close(descriptor)
    except OSError:
        return []


def _is_foreign(facts: os.stat_result) -> bool:
    """Whether somebody else has written a file, or could have."""
    return hasattr(os, "geteuid") and (facts.st_uid != os.geteuid() or bool(facts.st_mode & 0o022))


def _change(line: bytes, journal: Path) -> Change | None:
    try:
        found = json.loads(line)
        return _from_json(found, journal.parent.parent) if found["schema"] == SCHEMA else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _from_json(found: Mapping[str, Any], base: Path) -> Change:
    container = str(found.get("container", ""))
    return Change(
        id=str(found["id"]),
        group=str(found["set"]),
        verb=str(found["verb"]),
        time=str(found["time"]),
        file=str(found["file"]) if container else os.path.join(base, str(found["file"])),
        line=int(found["line"]),
        knob=str(found["knob"]),
        spelling=str(found["spelling"]),
        old=str(found["from"]),
        new=str(found["to"]),
        start=int(found["start"]),
        end=int(found["end"]),
        old_bytes=base64.b64decode(found["from_bytes"]),
        new_bytes=base64.b64decode(found["to_bytes"]),
        sha256_before=str(found["sha256_before"]),
        sha256_after=str(found["sha256_after"]),
        command=tuple(map(str, found.get("command", ()))),
        user=str(found.get("user", "")),
        undoes=str(found.get("undoes", "")),
        container=container,
        container_name=str(found.get("container_name", "")),
        image=str(found.get("image", "")),
    )
