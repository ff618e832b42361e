"""`keepfed tune -- COMMAND`: run the program, let its loaders find their settings, say what was found and keep it.

What people lose when such a tool is careless: the traceback of their own program, buried under our table; a plan file
that was half written, or written from half a measurement; the exit code that their scripts rely on. So everything that can
be refused is refused before the program starts, and a plan is written only for loaders that have settled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from os import W_OK, access, environ
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keepfed.cli import render
from keepfed.cli.run import make_run_folder
from keepfed.errors import ProfileError, UnreachableError, UsageError
from keepfed.events import Event
from keepfed.feed import RunConfig
from keepfed.host.facts import HostFacts, read_host
from keepfed.launch.program import CommandError, Program
from keepfed.launch.unarmed import explain_unarmed
from keepfed.plan import LoaderId
from keepfed.profile import (
    FILE_NAME,
    Evidence,
    HostProfile,
    LoaderProfile,
    Profile,
    read_profile,
    replace_file,
    write_profile,
)
from keepfed.text import language, say
from keepfed.tuning import history as past
from keepfed.tuning.session import Ending, Outcome, Session, verdict_code
from keepfed.tuning.summary import LoaderResult

DEFAULT_MAX_SECONDS = 600.0


class Then(StrEnum):
    """What follows when the loaders have settled."""

    STOP = "stop"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Request:
    """One checked `keepfed tune` command line."""

    command: tuple[str, ...]
    """The user's program."""

    goes_on: bool
    """Whether the program trains on when its loaders have settled."""

    max_seconds: float
    """Longest time to measure."""

    plan: Path
    """The plan file to write."""

    plan_option: str
    """The same as given with --plan; empty without."""

    json_file: Path | None
    """Where the JSON document goes."""

    folder: Path
    """The start folder: history and run folder lie here."""


def tune(
    ctx: typer.Context,
    then: Annotated[Then, typer.Option(help=say("tune_report.help_then"))] = Then.STOP,
    max_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help=say("tune_report.help_max_seconds"))
    ] = DEFAULT_MAX_SECONDS,
    plan: Annotated[str, typer.Option(metavar="FILE", help=say("tune_report.help_plan"))] = "",
    json_file: Annotated[str, typer.Option("--json", metavar="FILE", help=say("tune_report.help_json"))] = "",
    history: Annotated[bool, typer.Option("--history", help=say("tune_report.help_history"))] = False,
) -> int:
    """Find the settings of an unmodified program by measuring it while it trains. Returns the exit code."""
    command = tuple(ctx.args)
    folder = Path.cwd()
    if json_file:
        _check_place("--json", Path(json_file))
    if history:
        return _history(folder, command, Path(json_file) if json_file else None)
    if not command:
        raise UsageError(say("tune_report.command_missing"), next_step=say("tune_report.command_missing_next"))
    if not (isfinite(max_seconds) and max_seconds > 0):
        raise UsageError(
            say("tune_report.bad_max_seconds", value=f"{max_seconds:g}"),
            next_step=say("tune_report.bad_max_seconds_next"),
        )
    if environ.get("KEEPFED_DISABLE", "0") not in {"", "0"}:
        raise UsageError(say("tune_report.disabled"), next_step=say("tune_report.disabled_next"))
    plan_file = folder / (plan or FILE_NAME)
    _check_place("--plan" if plan else FILE_NAME, plan_file)
    if plan_file.exists():
        read_profile(plan_file)
    request = Request(
        command, then is Then.CONTINUE, max_seconds, plan_file, plan, Path(json_file) if json_file else None, folder
    )
    return _Tuning(request, render.console()).run()


def _check_place(option: str, file: Path) -> None:
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


def _history(folder: Path, command: Sequence[str], json_file: Path | None) -> int:
    if command:
        raise UsageError(
            say("tune_report.history_with_command", program=render.shell_line(command)),
            next_step=say("tune_report.history_with_command_next"),
        )
    try:
        sessions, unreadable = past.read(folder)
    except OSError as error:
        raise UnreachableError(f"{past.path_in(folder)}: {error.strerror or error}") from error
    err = render.console()
    if unreadable:
        file = render.plan_path(past.path_in(folder), folder)
        render.line(err, say("tune_report.history_unreadable_lines", count=unreadable, file=file))
    if json_file is not None:
        _write_json(json_file, render.history_document(sessions))
    if sessions:
        render.show(render.stdout_console(), render.history(sessions))
    else:
        render.line(err, say("tune_report.history_empty"))
    return 0


def _write_json(file: Path, document: dict[str, object]) -> None:
    data = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    target = file.resolve() if file.is_symlink() else file
    if file.exists() and not file.is_file():  # a pipe or a device: it cannot be replaced
        file.write_bytes(data)
    else:
        replace_file(target, data)


@dataclass(slots=True)
class _Tuning:
    """One session from announcement to exit code."""

    request: Request
    out: Console
    host: HostFacts = field(init=False)
    began: datetime = field(init=False)
    concluded: frozenset[LoaderId] | None = None
    """The loaders that had settled when the results were said and written; None before."""
    plan_failed: bool = False

    def run(self) -> int:
        """Run the program to its end, or to the end of the search."""
        request = self.request
        self.began = datetime.now(UTC)
        config = RunConfig(
            mode="tune",
            then="continue" if request.goes_on else "stop",
            max_seconds=request.max_seconds,
            lang=language(),
        )
        folder = make_run_folder(config)
        self.host = read_host()
        with Program(request.command, folder) as program:
            session = Session(
                program,
                folder.reader(),
                goes_on=request.goes_on,
                max_seconds=request.max_seconds,
                heard=self._heard,
                enough=self._enough,
            )
            self._announce()
            try:
                outcome = session.run()
            except CommandError as error:
                render.line(self.out, str(error))
                return error.exit_code
            joined = bool(session.tally.joined or outcome.results)
            return self._finish(outcome, "" if joined else explain_unarmed(folder, request.command, request.folder))

    def _announce(self) -> None:
        if shutil.which(self.request.command[0]) is None:
            return  # starting it is about to fail, and then that is all that should be said
        key = "tune_report.announce_continue" if self.request.goes_on else "tune_report.announce_stop"
        program = render.shell_line(self.request.command)
        limit = render.seconds_text(self.request.max_seconds)
        render.line(self.out, say(key, program=program, limit=limit), wrap=True)

    def _heard(self, event: Event) -> None:
        text = render.progress(event)
        if text:
            render.line(self.out, text)

    def _enough(self, results: tuple[LoaderResult, ...], ending: Ending) -> None:
        what = "going_on" if self.request.goes_on else "stopping"
        why = {Ending.TIME_UP: "time_up_", Ending.HOPELESS: "hopeless_"}.get(ending, "")
        render.line(self.out, say(f"tune_report.{why}{what}", limit=render.seconds_text(self.request.max_seconds)))
        if self.request.goes_on and verdict_code(results) != 3:
            self._conclude(results, verdict_code(results))

    # ------------------------------------------------------------------------------------------------------ the end

    def _finish(self, outcome: Outcome, unarmed: str) -> int:
        """Say and keep what there is; return the exit code."""
        results, code = outcome.results, outcome.exit_code
        measured = any(result.measured for result in results)
        if outcome.ending is Ending.INTERRUPTED:
            self._finish_interrupted(results, measured=measured)
        elif outcome.ending is Ending.PROGRAM_ENDED and outcome.code != 0:
            self._finish_failed(outcome, measured=measured)
        elif not measured:
            render.line(self.out, say("tune_report.nothing_measured", reason=unarmed or self._why_nothing(outcome)))
        elif self.concluded != _settled(results):
            self._conclude(results, code)
        return 2 if self.plan_failed and code in {0, 4} else code

    def _finish_interrupted(self, results: tuple[LoaderResult, ...], *, measured: bool) -> None:
        if self.concluded is not None:
            return
        key = "tune_report.interrupted" if measured else "tune_report.interrupted_nothing"
        render.line(self.out, say(key))
        if measured:
            render.show(self.out, render.report(results))
            self._keep_json(results)

    def _finish_failed(self, outcome: Outcome, *, measured: bool) -> None:
        """One line, so that the program's own last words stay in sight; the numbers go into the files."""
        if self.concluded is not None:
            render.line(self.out, say("tune_report.failed_later", code=outcome.code))
            return
        render.line(self.out, render.failure(outcome.results, outcome.code))
        if measured:
            self._keep_json(outcome.results)
            self._keep_history(outcome.results, outcome.code)

    def _why_nothing(self, outcome: Outcome) -> str:
        handled = [str(result.loader) for result in outcome.results if result.handled]
        left = [result for result in outcome.results if not result.handled]
        if handled:
            key = "tune_report.time_up_early" if outcome.ending is Ending.TIME_UP else "tune_report.ended_early"
            limit = render.seconds_text(self.request.max_seconds)
            return say(key, loaders=", ".join(handled), limit=limit)
        if left:
            sentences = (say("tune_report.left", loader=one.loader, reason=one.left_because) for one in left)
            return say("tune_report.list").join(sentences)
        return say("tune_report.no_loader")

    def _conclude(self, results: tuple[LoaderResult, ...], code: int) -> None:
        """Table, plan file, JSON, history, what to do."""
        request, first = self.request, self.concluded is None
        self.concluded = _settled(results)
        render.show(self.out, render.report(results))
        self._keep_json(results)
        if first:
            self._keep_history(results, code)
        plan_name = render.plan_path(request.plan, request.folder)
        if self._keep_plan(results):
            render.show(self.out, render.advice(results, request.command, plan_name, plan_option=request.plan_option))
        unsettled = [str(result.loader) for result in results if result.measured and not result.settled]
        if unsettled and code == 4:
            render.show(self.out, "")
            render.line(self.out, say("tune_report.not_settled", file=plan_name, loaders=", ".join(unsettled)))

    def _keep_plan(self, results: tuple[LoaderResult, ...]) -> bool:
        known = [result for result in results if result.settled and result.loader.site]
        for result in results:
            if result.settled and result not in known:
                render.line(self.out, say("tune_report.no_site", loader=result.loader))
        if not known:
            return False
        profile = Profile(_host_profile(self.host), tuple(_entry(result) for result in known))
        try:
            write_profile(self.request.plan, profile, alive=[result.loader for result in results])
        except ProfileError as error:
            render.line(self.out, str(error))
            self.plan_failed = True
        return not self.plan_failed

    def _keep_json(self, results: tuple[LoaderResult, ...]) -> None:
        file = self.request.json_file
        if file is not None:
            try:
                _write_json(file, render.document(results, self.host.to_json()))
            except OSError as error:
                render.line(self.out, say("tune_report.json_failed", file=file, reason=error.strerror or error))

    def _keep_history(self, results: tuple[LoaderResult, ...], code: int) -> None:
        now = datetime.now(UTC)
        entry = past.Past(
            time=now.isoformat(timespec="seconds"),
            command=self.request.command,
            exit=code,
            seconds=(now - self.began).total_seconds(),
            host=self.host.fingerprint,
            loaders=tuple(result.to_json() for result in results if result.measured),
        )
        try:
            past.append(self.request.folder, entry)
        except OSError as error:
            file = render.plan_path(past.path_in(self.request.folder), self.request.folder)
            render.line(self.out, say("tune_report.history_failed", file=file, reason=error.strerror or error))


def _settled(results: tuple[LoaderResult, ...]) -> frozenset[LoaderId]:
    return frozenset(result.loader for result in results if result.settled)


def _host_profile(host: HostFacts) -> HostProfile:
    names = tuple(gpu.name or "?" for gpu in host.gpus)
    return HostProfile(host.fingerprint, host.cores_pool.value, host.memory_bytes, names)


def _entry(result: LoaderResult) -> LoaderProfile:
    assert result.before is not None
    assert result.after is not None
    evidence = Evidence(
        date=datetime.now(UTC).replace(microsecond=0),
        before=result.before,
        after=result.after,
        limited_by=result.limited_by,
        seconds=result.seconds,
    )
    return LoaderProfile(result.loader, result.after.plan, evidence)
