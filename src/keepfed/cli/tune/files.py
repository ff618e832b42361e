"""Files that the user names on the command line: refused before a program starts, written in one step at the end."""

from __future__ import annotations

import json
from os import W_OK, access
from pathlib import Path

from keepfed.errors import UsageError
from keepfed.profile import replace_file
from keepfed.text import say


def check_place(option: str, file: Path) -> None:
    """Refuse now what would fail after minutes of training. Raises UsageError."""
    target = file.resolve() if file.exists() else file
    folder = target.parent
    reason = ""
    if file.is_symlink() and not file.exists():
        reason = say("tune_report.dangling", target=file.readlink())
    elif target.is_dir():
        reason = say("tune_report.is_folder")
    elif not folder.is_dir():
        reason = say("tune_report.no_folder", folder=folder)
    elif not access(folder if target.is_file() or not target.exists() else target, W_OK):
        reason = say("tune_report.no_permission", folder=folder)
    if reason:
        raise UsageError(
            say("tune_report.bad_place", option=option, file=file, reason=reason),
            next_step=say("tune_report.bad_place_next"),
        )


def write_json(file: Path, document: dict[str, object]) -> None:
    """Write the document, readable for people too. Raises OSError."""
    write_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write the whole file or nothing. Raises OSError."""
    data = text.encode("utf-8", "backslashreplace")
    target = file.resolve() if file.is_symlink() else file
    if file.exists() and not file.is_file():  # a pipe or a device: it cannot be replaced
        file.write_bytes(data)
    else:
        replace_file(target, data)


def shown_path(path: Path, folder: Path) -> str:
    """The file as the reader would type it from `folder`."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
