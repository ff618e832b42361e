"""`--report FILE`: the page beside the table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from keepfed import __version__
from keepfed.cli.tune.files import check_place, write_text
from keepfed.cli.tune.terminal import line
from keepfed.errors import UsageError
from keepfed.text import say
from keepfed.tuning.report import About, page


def check_report(file: Path, json_file: Path | None, *, history: bool) -> None:
    """Refuse now what would fail after minutes of training. Raises UsageError."""
    if history:
        raise UsageError(say("report.with_history"), next_step=say("report.with_history_next"))
    check_place("--report", file)
    if json_file is not None and json_file.resolve() == file.resolve():
        raise UsageError(say("report.same_file", file=file), next_step=say("report.same_file_next"))


def keep_report(out: Console, file: Path | None, document: Mapping[str, Any], command: str, use: str = "") -> None:
    """Write the page, if one was asked for; a place that fails now costs a line and no exit code.

    `command` is what was measured, `use` the command that trains with what was found; both as they can be typed.
    """
    if file is None:
        return
    made_at = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    try:
        write_text(file, page(document, About(command, use, made_at, __version__)))
    except OSError as error:
        line(out, say("report.failed", file=file, reason=error.strerror or error))
