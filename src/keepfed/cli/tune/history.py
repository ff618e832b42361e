"""`keepfed tune --history`: what was tuned in this folder so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keepfed.cli.tune import terminal
from keepfed.cli.tune.files import shown_path, write_json
from keepfed.cli.tune.sweep_table import swept
from keepfed.cli.tune.terminal import shell_line
from keepfed.errors import UnreachableError, UsageError
from keepfed.plan import LoaderId
from keepfed.text import say
from keepfed.tuning.history import SCHEMA, Past, path_in, read
from keepfed.tuning.numbers import arrow, percent, rate, seconds_text


def show_history(folder: Path, command: Sequence[str], json_file: Path | None) -> int:
    """Print the sessions that this folder remembers. Returns the exit code; raises UsageError, UnreachableError."""
    if command:
        raise UsageError(
            say("tune_report.history_with_command", program=shell_line(command)),
            next_step=say("tune_report.history_with_command_next"),
        )
    try:
        sessions, unreadable = read(folder)
    except OSError as error:
        raise UnreachableError(f"{path_in(folder)}: {error.strerror or error}") from error
    err = terminal.console()
    if unreadable:
        file = shown_path(path_in(folder), folder)
        terminal.line(err, say("tune_report.history_unreadable_lines", count=unreadable, file=file))
    if json_file is not None:
        write_json(json_file, history_document(sessions))
    if sessions:
        terminal.show(terminal.stdout_console(), history(sessions))
    else:
        terminal.line(err, say("tune_report.history_empty"))
    return 0


def history_document(sessions: Sequence[Past]) -> dict[str, Any]:
    """The document of `tune --history --json`."""
    return {"schema": SCHEMA, "tunes": [past.to_json() for past in sessions]}


def history(sessions: Sequence[Past]) -> RenderableType:
    """All sessions, oldest first: when, what was run, and one row per loader."""
    blocks: list[RenderableType] = []
    for past in sessions:
        if blocks:
            blocks.append("")
        head = Table.grid(expand=True, padding=(0, 2, 0, 0))
        head.add_column(no_wrap=True, style="bold")
        head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        head.add_column(justify="right", no_wrap=True, style="dim")
        head.add_row(Text(_local(past.time)), Text(shell_line(past.command)), Text(_how_it_ended(past)))
        blocks += [head, *(part for loader in past.loaders for part in _row(loader))]
        if past.sweep is not None:
            blocks.append(Padding(Text(swept(past.sweep)), (0, 0, 0, 2)))
    return Group(*blocks)


def _how_it_ended(past: Past) -> str:
    if past.sweep is not None:
        key = "sweep.past" if past.exit == 0 else "sweep.past_failed"
        return say(key, seconds=seconds_text(past.seconds), code=past.exit)
    key = {0: "tune_report.past_settled", 4: "tune_report.past_unsettled"}.get(past.exit, "tune_report.past_failed")
    return say(key, seconds=seconds_text(past.seconds), code=past.exit)


def _row(loader: Mapping[str, Any]) -> tuple[RenderableType, RenderableType]:
    was, now = loader["before"], loader["after"]
    table = Table.grid(padding=(0, 3, 0, 0))
    for width in (16, 23, 19):
        table.add_column(no_wrap=True, min_width=width)
    table.add_row(
        say("tune_report.past_workers", workers=arrow(str(was["num_workers"]), str(now["num_workers"]))),
        say("tune_report.past_rate", rate=arrow(rate(was["batches_per_s"]), rate(now["batches_per_s"]))),
        say("tune_report.past_wait", wait=arrow(percent(was["wait_share"]), percent(now["wait_share"]))),
    )
    limit = say("tune_report.past_limit", limit=say(f"tune_report.name_{loader['limited_by']}"))
    name = Text.assemble(f"  {LoaderId(loader['site'], loader['dataset'])}", (limit, "dim"))
    return name, Padding(table, (0, 0, 0, 4))


def _local(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return time
