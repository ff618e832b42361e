"""A session of `keepfed tune -- COMMAND`: run the program, let its loaders settle, say what was found and keep it.

What people lose when such a tool is careless: the traceback of their own program, buried under our table; a plan file
that was half written, or written from half a measurement; the exit code that their scripts rely on. So a plan is written
only for loaders that have settled, and a program that fails has the last word.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from keepfed.cli.run import make_run_folder
from keepfed.cli.tune.advice import advice, failure, run_line
from keepfed.cli.tune.files import shown_path, write_json
from keepfed.cli.tune.progress import progress
from keepfed.cli.tune.report import keep_report
from keepfed.cli.tune.table import report
from keepfed.cli.tune.terminal import line, shell_line, show
from keepfed.errors import ProfileError
from keepfed.events import Event
from keepfed.feed import RunConfig
from keepfed.host.facts import HostFacts, read_host
from keepfed.launch.program import CommandError, Program
from keepfed.launch.unarmed import explain_unarmed
from keepfed.plan import LoaderId
from keepfed.profile import Evidence, HostProfile, LoaderProfile, Profile, write_profile
from keepfed.text import language, say
from keepfed.tuning import history as past
from keepfed.tuning.numbers import seconds_text
from keepfed.tuning.results import LoaderResult, document
from keepfed.tuning.session import Ending, Outcome, Session, verdict_code


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

    report_file: Path | None
    """Where the page goes."""

    folder: Path
    """The start folder: history and run folder lie here."""

    search: str = "online"
    """How plans are found: "online" or "exhaustive"."""


@dataclass(slots=True)
class Tuning:
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
        config = RunConfig(mode="tune", search=request.search, lang=language())
        folder = make_run_folder(config)
        self.host = read_host()
        with Program(self.argv(), folder) as program:
            session = Session(
                program,
                folder.reader(),
                goes_on=request.goes_on,
                max_seconds=request.max_seconds,
                heard=self.heard,
                enough=self.enough,
            )
            self.announce()
            try:
                outcome = session.run()
            except CommandError as error:
                line(self.out, str(error))
                return error.exit_code
            joined = bool(session.tally.joined or outcome.results)
            return self._finish(outcome, "" if joined else explain_unarmed(folder, request.command, request.folder))

    def start_name(self) -> str:
        """What the plan at the start is called."""
        return say("tune_report.before")

    def search_name(self) -> str:
        """What the JSON document calls this search."""
        return self.request.search

    def argv(self) -> Sequence[str]:
        """The program that is started."""
        return self.request.command

    def announce(self) -> None:
        """What is about to happen."""
        if shutil.which(self.request.command[0]) is None:
            return  # starting it is about to fail, and then that is all that should be said
        key = "tune_report.announce_continue" if self.request.goes_on else "tune_report.announce_stop"
        program = shell_line(self.request.command)
        limit = seconds_text(self.request.max_seconds)
        line(self.out, say(key, program=program, limit=limit), wrap=True)

    def heard(self, event: Event) -> None:
        """One line for an event that is worth one."""
        text = progress(event, sweeping=self.request.search == "exhaustive")
        if text:
            line(self.out, text)

    def enough(self, results: tuple[LoaderResult, ...], ending: Ending) -> None:
        """The search is over: say what happens to the program."""
        what = "going_on" if self.request.goes_on else "stopping"
        why = {Ending.TIME_UP: "time_up_", Ending.HOPELESS: "hopeless_"}.get(ending, "")
        line(self.out, say(f"tune_report.{why}{what}", limit=seconds_text(self.request.max_seconds)))
        if self.request.goes_on and verdict_code(results) != 3:
            self.conclude(results, verdict_code(results))

    # ------------------------------------------------------------------------------------------------------ the end

    def _finish(self, outcome: Outcome, unarmed: str) -> int:
        """Say and keep what there is; return the exit code."""
        results, code = outcome.results, outcome.exit_code
        measured = any(result.measured for result in results)
        if outcome.ending is Ending.INTERRUPTED:
            self._finish_interrupted(results, measured=measured)
        elif outcome.ending is Ending.PROGRAM_ENDED and outcome.code != 0:
            self.finish_failed(outcome, measured=measured)
        elif not measured:
            line(self.out, say("tune_report.nothing_measured", reason=unarmed or self._why_nothing(outcome)))
        elif self.concluded != _settled(results):
            self.conclude(results, code)
        return 2 if self.plan_failed and code in {0, 4} else code

    def _finish_interrupted(self, results: tuple[LoaderResult, ...], *, measured: bool) -> None:
        if self.concluded is not None:
            return
        key = "tune_report.interrupted" if measured else "tune_report.interrupted_nothing"
        line(self.out, say(key))
        if measured:
            self.show(results)
            self.keep_json(results)
            self.keep_report(results)

    def finish_failed(self, outcome: Outcome, *, measured: bool) -> None:
        """One line, so that the program's own last words stay in sight; the numbers go into the files."""
        if self.concluded is not None:
            line(self.out, say("tune_report.failed_later", code=outcome.code))
            return
        line(self.out, failure(outcome.results, outcome.code))
        if measured:
            self.keep_json(outcome.results)
            self.keep_report(outcome.results)
            self._keep_history(outcome.results, outcome.code)

    def _why_nothing(self, outcome: Outcome) -> str:
        handled = [str(result.loader) for result in outcome.results if result.handled]
        left = [result for result in outcome.results if not result.handled]
        if handled:
            key = "tune_report.time_up_early" if outcome.ending is Ending.TIME_UP else "tune_report.ended_early"
            limit = seconds_text(self.request.max_seconds)
            return say(key, loaders=", ".join(handled), limit=limit)
        if left:
            sentences = (say("tune_report.left", loader=one.loader, reason=one.left_because) for one in left)
            return say("tune_report.list").join(sentences)
        return say("tune_report.no_loader")

    def conclude(self, results: tuple[LoaderResult, ...], code: int) -> None:
        """Table, plan file, JSON, history, what to do."""
        request, first = self.request, self.concluded is None
        self.concluded = _settled(results)
        self.show(results)
        self.keep_json(results)
        if first:
            self._keep_history(results, code)
        plan_name = shown_path(request.plan, request.folder)
        planned = self.keep_plan(results)
        self.keep_report(results, self.how_to_use(results, planned))
        self.advise(results, plan_name, planned=planned)
        unsettled = [str(result.loader) for result in results if result.measured and not result.settled]
        if unsettled and code == 4:
            show(self.out, "")
            self.say_unsettled(", ".join(unsettled), plan_name)

    def show(self, results: tuple[LoaderResult, ...]) -> None:
        """The table."""
        show(self.out, report(results, curve=self.request.search == "exhaustive", start=self.start_name()))

    def how_to_use(self, _results: tuple[LoaderResult, ...], planned: bool, /) -> str:
        """The command that trains with the plan file, for the top of the page; empty where there is none."""
        return run_line(self.request.command, self.request.plan_option) if planned else ""

    def measured_command(self) -> str:
        """What was measured, as it can be typed."""
        return shell_line(self.request.command)

    def advise(self, results: tuple[LoaderResult, ...], plan_name: str, *, planned: bool) -> None:
        """What to do now. `planned`: the plan file was written."""
        if planned:
            command, option = self.request.command, self.request.plan_option
            show(self.out, advice(results, command, plan_name, plan_option=option))

    def say_unsettled(self, loaders: str, plan_name: str) -> None:
        """Why these loaders are not in the plan file, and what would help."""
        line(self.out, say("tune_report.not_settled", file=plan_name, loaders=loaders))

    def keep_plan(self, results: tuple[LoaderResult, ...]) -> bool:
        """Write what has settled into the plan file; whether that was done."""
        known = [result for result in results if result.settled and result.loader.site]
        for result in results:
            if result.settled and result not in known:
                line(self.out, say("tune_report.no_site", loader=result.loader))
        if not known:
            return False
        profile = Profile(_host_profile(self.host), tuple(_entry(result) for result in known))
        try:
            write_profile(self.request.plan, profile, alive=[result.loader for result in results])
        except ProfileError as error:
            line(self.out, str(error))
            self.plan_failed = True
        return not self.plan_failed

    def document(self, results: tuple[LoaderResult, ...]) -> dict[str, Any]:
        """What goes into the JSON file and the report."""
        return document(results, self.host.to_json(), search=self.search_name())

    def keep_json(self, results: tuple[LoaderResult, ...]) -> None:
        """Write the JSON document, if one was asked for."""
        file = self.request.json_file
        if file is not None:
            try:
                write_json(file, self.document(results))
            except OSError as error:
                line(self.out, say("tune_report.json_failed", file=file, reason=error.strerror or error))

    def keep_report(self, results: tuple[LoaderResult, ...], use: str = "") -> None:
        """Write the page, if one was asked for."""
        found = self.document(results)
        keep_report(self.out, self.request.report_file, found, self.measured_command(), use)

    def _keep_history(self, results: tuple[LoaderResult, ...], code: int) -> None:
        now = datetime.now(UTC)
        entry = past.Past(
            time=now.isoformat(timespec="seconds"),
            command=self.request.command,
            exit=code,
            seconds=(now - self.began).total_seconds(),
            host=self.host.fingerprint,
            loaders=tuple(result.to_json(timeline=False) for result in results if result.measured),
        )
        try:
            past.append(self.request.folder, entry)
        except OSError as error:
            file = shown_path(past.path_in(self.request.folder), self.request.folder)
            line(self.out, say("tune_report.history_failed", file=file, reason=error.strerror or error))


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
