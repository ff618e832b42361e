"""`keepfed run -- python train.py`: the program as it is, its loaders started from the plan and kept in step with the load.

stdout is the program's. On stderr stands one line per loader when it is iterated for the first time, and, if nothing was armed,
one line at the end that says why. A failure in here must never end somebody's training, so reporting may fall silent.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepfed.errors import UnreachableError, UsageError
from keepfed.events import Joined, LoaderSeen
from keepfed.feed import RunConfig, RunFolder
from keepfed.host.facts import read_host
from keepfed.launch.command import CommandError
from keepfed.launch.program import Program
from keepfed.launch.unarmed import explain_unarmed
from keepfed.profile import find_profile, read_profile, replace_file
from keepfed.text import language, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepfed.events import Event
    from keepfed.plan import Plan

SCHEMA = "keepfed.run-report/1"
_LOOK_EVERY_S = 0.2


def run(
    ctx: typer.Context,
    exact: Annotated[bool, typer.Option("--exact", help=say("run.exact"))] = False,
    plan: Annotated[Path | None, typer.Option("--plan", metavar="FILE", help=say("run.plan_option"))] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help=say("run.json"))] = None,
) -> int:
    """Run the command in `ctx.args`; the exit code is its own."""
    argv = list(ctx.args)
    if not argv:
        raise UsageError(say("run.no_command"))
    config = RunConfig(mode="run", exact=exact, plan_file=plan_file(plan), lang=language())
    if json_file is not None:
        check_writable(json_file)
    folder = make_run_folder(config)
    seen = Seen()
    started_s = time.monotonic()
    try:
        code = _relay(argv, folder, seen)
    except CommandError as error:
        _tell(f"keepfed: {error.message}")
        return error.exit_code
    reason = _why_unarmed(folder, argv, seen, code)
    if json_file is not None:
        report = seen.report(argv, folder, code, time.monotonic() - started_s, reason)
        with _silently():
            replace_file(json_file.absolute(), (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    return code


def plan_file(asked: Path | None) -> str | None:
    """Absolute path of the plan file: the one asked for, else keepfed.toml in the current folder, else None.

    Raises UsageError when the one asked for does not exist, ProfileError (file and line) when it is malformed: before the
    program starts, since afterwards nobody is there to be told.
    """
    path = find_profile(Path.cwd()) if asked is None else asked
    if path is None:
        return None
    if asked is not None and not path.exists():
        raise UsageError(say("run.plan_missing", path=path), next_step=say("run.plan_missing_next"))
    read_profile(path)
    return str(path.absolute())


def check_writable(path: Path) -> None:
    """Raise UsageError when `path` could not be written at the end: hours of training lie between here and there."""
    reason = ""
    if path.is_dir():
        reason = os.strerror(21)  # EISDIR
    elif not path.absolute().parent.is_dir():
        reason = os.strerror(2)  # ENOENT
    elif not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        reason = os.strerror(13)  # EACCES
    if reason:
        raise UsageError(
            say("run.json_unwritable", path=path, reason=reason), next_step=say("run.json_unwritable_next")
        )


def make_run_folder(config: RunConfig) -> RunFolder:
    """The run folder of a program started here; says so when it lies elsewhere. Raises UnreachableError without any."""
    start = Path.cwd()
    if config.plan_file is not None:
        config = replace(config, fingerprint=read_host().fingerprint)
    try:
        folder = RunFolder.create(start, config)
    except OSError as error:
        message = say("run.no_folder", wanted=start / ".keepfed", reason=error.strerror or error)
        raise UnreachableError(message, next_step=say("run.no_folder_next")) from error
    if folder.elsewhere:
        _tell(folder.elsewhere)
    return folder


@dataclass(slots=True)
class Seen:
    """What the processes of the program have reported so far."""

    armed: bool = False
    """Whether any of them armed itself."""
    loaders: list[tuple[int, LoaderSeen]] = field(default_factory=list)
    """Every loader with the process that iterates it."""
    _told: set[str] = field(default_factory=set)

    def take(self, news: Iterable[tuple[int, Event]]) -> list[str]:
        """Note new events; return the lines that are worth telling (ranks that say the same are told once)."""
        lines = []
        for pid, event in news:
            if isinstance(event, Joined):
                self.armed = True
            elif isinstance(event, LoaderSeen):
                self.armed = True
                self.loaders.append((pid, event))
                line = loader_line(event)
                if line not in self._told:
                    self._told.add(line)
                    lines.append(line)
        return lines

    def report(self, argv: Sequence[str], folder: RunFolder, code: int, seconds: float, reason: str) -> dict[str, Any]:
        """The object that `--json` writes."""
        return {
            "schema": SCHEMA,
            "host": read_host().to_json(),
            "command": list(argv),
            "exit_code": code,
            "seconds": round(seconds, 3),
            "run_folder": str(folder.path),
            "armed": self.armed,
            "unarmed_reason": reason or None,
            "unarmed_interpreters": [asdict(interpreter) for interpreter in folder.unarmed()],
            "loaders": [
                {
                    "site": event.loader.site,
                    "dataset": event.loader.dataset,
                    "ordinal": event.loader.ordinal,
                    "pid": pid,
                }
                | {"batch_size": event.batch_size, "asked": asdict(event.asked), "used": asdict(event.used)}
                | {"source": event.source, "handled": event.handled, "reason": event.reason, "note": event.note}
                for pid, event in self.loaders
            ],
        }


def loader_line(event: LoaderSeen) -> str:
    """What the program asked for and what is used, and from where, in one line."""
    if not event.handled:
        line = say("run.left_to_torch", loader=event.loader, reason=event.reason)
    else:
        source = say(f"run.source_{event.source}")
        key = "run.asked_is_used" if event.asked == event.used else "run.asked_and_used"
        line = say(key, loader=event.loader, asked=_words(event.asked), used=_words(event.used), source=source)
    return say("run.with_note", line=line, note=event.note) if event.note else line


def _words(plan: Plan) -> str:
    key = "run.plan" if plan.num_workers else "run.plan_without_workers"
    return say(key, num_workers=plan.num_workers, prefetch_factor=plan.prefetch_factor)


def _relay(argv: Sequence[str], folder: RunFolder, seen: Seen) -> int:
    """Run the program to its end, telling what its processes report. Raises CommandError."""
    reader = folder.reader()

    def tell_news() -> None:
        with _silently():
            for line in seen.take(reader.read_new()):
                _tell(line)

    with Program(argv, folder) as program:
        program.start()
        while (code := program.wait(_LOOK_EVERY_S)) is None:
            tell_news()
    tell_news()
    return code


def _why_unarmed(folder: RunFolder, argv: Sequence[str], seen: Seen, code: int) -> str:
    """Why nothing was armed, told in one line; empty where something was, or where it does not matter."""
    if seen.armed or os.environ.get("KEEPFED_DISABLE", "0") not in {"", "0"}:
        return ""
    reason = ""
    with _silently():
        reason = explain_unarmed(folder, argv)
        said_there = any(interpreter.error for interpreter in folder.unarmed())
        failed_before = code != 0 and reason == say("run.unarmed_no_loader")
        if not said_there and not failed_before:  # a program that failed has said enough itself
            _tell(say("run.unarmed", reason=reason))
    return reason


def _tell(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed stderr
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _silently() -> contextlib.suppress:
    """Nothing that fails while we report may end the program, or change its exit code."""
    return contextlib.suppress(Exception)
