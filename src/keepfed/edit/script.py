r"""The same edits as a plain POSIX shell script: for a cluster's login node, a slim image, a colleague; no keepfed, no Python.

    all files checked (SHA-256 or CRC)  ──→ new files made beside them, checked ──→ backups ──→ moved into place, checked
             │ one differs                          │ disk full                                        │ fails
             └────────── nothing has happened ──────┴──────────────────────────────── backups moved back

`sh FILE` edits, `sh FILE --undo` puts the backups back, both again change nothing. A file is recognised by sha256sum or shasum, or
by POSIX's cksum where neither is installed (Debian's busybox has no cksum, old systems have no sha256sum). The new bytes come
from printf as octal numbers, the rest of the file from dd and tail, which count bytes.
Exit status: 0 done, 1 a file is not what was expected and nothing was changed, 2 a file could not be written.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keepfed.edit.replacement import Edit, applied, in_order, sha256
from keepfed.text import say


@dataclass(frozen=True, slots=True)
class FileToEdit:
    """One file of the script."""

    name: str
    """Its path as the script will find it: relative to where the script is started, or absolute."""
    before: bytes
    """What it has to hold."""
    edits: tuple[Edit, ...]
    """What is changed in it."""


def script(files: Sequence[FileToEdit]) -> bytes:
    """The script, in bytes because paths may be any. Raises EditRefused where edits do not fit."""
    words = "\n".join(f"{name}={shlex.quote(sentence)}" for name, sentence in _words().items())
    told = "\n".join(f"# {line}" for file in files for line in _told(file))
    calls = "\n".join(_steps(number, file) for number, file in enumerate(files, 1))
    functions = "\n\n".join(_edits(number, file) for number, file in enumerate(files, 1))
    edits = f"{told}\n\nevery_file() {{\n{calls}\n}}\n\n{functions}"
    text = _FRAME.read_text(encoding="ascii").replace("@WORDS@", words).replace("@EDITS@", edits)
    return text.encode("utf-8", "surrogateescape")


def checksum(data: bytes) -> int:
    """The CRC that `cksum` prints (POSIX, utility cksum: polynomial 0x04C11DB7, the length behind the data, inverted)."""
    crc = 0
    length, tail = len(data), bytearray()
    while length:
        tail.append(length & 0xFF)
        length >>= 8
    for byte in (*data, *tail):
        crc = (crc << 8 & 0xFFFFFFFF) ^ _TABLE[crc >> 24 ^ byte]
    return crc ^ 0xFFFFFFFF


def _states(data: bytes) -> str:
    return f"{sha256(data)} {checksum(data)}-{len(data)}"


def _entry(index: int) -> int:
    crc = index << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


_FRAME = Path(__file__).with_name("script_frame.sh")
_TABLE = tuple(_entry(index) for index in range(256))


def _told(file: FileToEdit) -> list[str]:
    """What is changed, for people who read a script before they run it; on one line each, so that it stays a comment."""
    lines = []
    for edit in in_order(file.edits):
        place = f"{file.name}:{edit.line}"
        line = say("edit.script_line", place=place, name=edit.spelling, old=edit.was or "-", new=edit.becomes)
        lines.append(" ".join(line.split()))
    return lines


def _steps(number: int, file: FileToEdit) -> str:
    name = file.name if file.name.startswith(("/", "./", "../")) else f"./{file.name}"
    before, after = _states(file.before), _states(applied(file.before, file.edits))
    return f'    "$1" {shlex.quote(name)} "$(pick {before})" "$(pick {after})" edit_{number} || return $?'


def _edits(number: int, file: FileToEdit) -> str:
    """From the end backwards, so that the places before stay where they are."""
    lines = [
        f"    replace {edit.span.start} {edit.span.end} '{_octal(edit.old)}' '{_octal(edit.new)}' || return 1"
        for edit in reversed(in_order(file.edits))
    ]
    return "\n".join([f"edit_{number}() {{", *lines, "}"])


def _octal(data: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in data)


def _words() -> dict[str, str]:
    return {
        "differs": say("edit.script_differs"),
        "absent": say("edit.script_absent"),
        "failed": say("edit.script_failed"),
        "already": say("edit.script_already"),
        "done": say("edit.script_done"),
        "backup": say("edit.script_backup"),
        "undone": say("edit.script_undone"),
        "no_cksum": say("edit.script_no_cksum"),
        "no_backup": say("edit.script_no_backup"),
        "usage": say("edit.script_usage"),
    }
