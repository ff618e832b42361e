"""`keepfed tune --sweep VALUES -- COMMAND … {} …`: the command line, what is said meanwhile, what is kept.

Nothing goes into keepfed.toml. The value stands for an argument of the command, and from outside nobody knows which of its
loaders that argument is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from os import environ
from pathlib import Path
from typing import Any

from rich.console import Console

from keepfed.cli.run import make_run_folder
from keepfed.cli.tune.files import shown_path, write_json
from keepfed.cli.tune.report import keep_report
from keepfed.cli.tune.sweep_table import advice, notes, table
from keepfed.cli.tune.terminal import line, shell_line, show
from keepfed.errors import UnreachableError, UsageError
from keepfed.feed import RunConfig, RunFolder
from keepfed.host.facts import HostFacts, read_host
from keepfed.launch.program import Program
from keepfed.text import language, say
from keepfed.tuning import history as past
from keepfed.tuning.numbers import rate, seconds_text, size, unit_text
from keepfed.tuning.results import SCHEMA
from keepfed.tuning.sweep.choice import By, Choice, How, Row, choose, main_bar, rows
from keepfed.tuning.sweep.progress_lines import Metric
from keepfed.tuning.sweep.rate import steady
from keepfed.tuning.sweep.rounds import Turn, sweep, turns
from keepfed.tuning.sweep.run import Ending, Limits, Run, Runner, Watched
from keepfed.tuning.sweep.screen import last_lines
from keepfed.tuning.sweep.values import check_placeholder, parse_values, with_value

EACH_S = 60.0
"""Seconds of measuring per run: long enough to leave out 15 s of warm-up, and five values take five minutes."""

STARTING_S = 600.0
"""What a run may take on top until its first progress: large models take minutes to load."""

SHOWN_LINES = 12
"""Last lines of a program that failed: a short traceback."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options as typed; None where one was left out."""

    sweep: str | None
    """--sweep"""
    metric: str | None
    """--metric"""
    each: float | None
    """--each"""
    repeat: int | None
    """--repeat"""

    @property
    def anything(self) -> bool:
        """Whether this is about a sweep at all."""
        return any(option is not None for option in (self.sweep, self.metric, self.each, self.repeat))


@dataclass(frozen=True, slots=True)
class Request:
    """One checked command line."""

    command: tuple[str, ...]
    """The user's program, with {} in it."""

    values: tuple[str, ...]
    """What is to stand for {}."""

    metric: str | None
    """The regular expression of --metric."""

    limits: Limits
    """How long a run may take."""

    repeat: int
    """Runs per value."""

    folder: Path
    """The start folder: history and run folder lie here."""


def check_sweep(
    asked: Asked, command: Sequence[str], foreign: Mapping[str, bool], max_seconds: float | None
) -> Request:
    """The request behind the options. `foreign` tells which options were given that have no place here. Raises UsageError."""
    if asked.sweep is None:
        option = next(name for name in ("metric", "each", "repeat") if getattr(asked, name) is not None)
        raise UsageError(say("sweep.without_values", option=f"--{option}"), next_step=say("sweep.bad_values_next"))
    for option, given in foreign.items():
        if given:
            raise UsageError(say("sweep.foreign_option", option=option), next_step=say("sweep.foreign_option_next"))
    values = parse_values(asked.sweep)
    if not command:
        raise UsageError(say("tune_report.command_missing"), next_step=say("sweep.no_placeholder_next"))
    check_placeholder(command)
    if asked.metric is not None:
        Metric(asked.metric)
    each = EACH_S if asked.each is None else asked.each
    if not (isfinite(each) and each > 0):
        raise UsageError(say("sweep.bad_each", value=f"{each:g}"), next_step=say("sweep.bad_each_next"))
    repeat = 1 if asked.repeat is None else asked.repeat
    if repeat < 1:
        raise UsageError(say("sweep.bad_repeat", value=repeat), next_step=say("sweep.bad_repeat_next"))
    limits = Limits(each, each + STARTING_S if max_seconds is None else max_seconds)
    return Request(tuple(command), values, asked.metric, limits, repeat, Path.cwd())


@dataclass(slots=True)
class Sweeping:
    """One sweep from announcement to exit code."""

    request: Request
    json_file: Path | None
    report_file: Path | None
    out: Console
    turns: list[Turn] = field(init=False)
    folder: RunFolder = field(init=False)
    host: HostFacts = field(init=False)
    began: datetime = field(init=False)
    _shown_s: float = -1.0

    def run(self) -> int:
        """Make the runs, say and keep what came of them. Returns the exit code; raises UnreachableError."""
        request = self.request
        self.began = datetime.now(UTC)
        self.folder = make_run_folder(RunConfig(mode="sweep", lang=language()))
        self.host = read_host()
        self.turns = turns(request.values, request.repeat)
        self._announce()
        runner = Runner(
            lambda argv, output, env: _Started(Program(argv, None, env, output)),
            request.limits,
            environ,
            None if request.metric is None else Metric(request.metric),
            has_gpu=bool(self.host.gpus),
        )
        try:
            runs, interrupted = sweep(
                runner, request.command, self.turns, self.folder.path, self._begins, self._seen, self._ended
            )
        except OSError as error:
            raise UnreachableError(say("sweep.no_output_file", reason=error)) from error
        return self._finish(runs, interrupted=interrupted)

    def _announce(self) -> None:
        request = self.request
        key = "sweep.announce_one" if len(self.turns) == 1 else "sweep.announce"
        said = say(
            key,
            count=len(self.turns),
            program=shell_line(request.command),
            each=seconds_text(request.limits.each_s),
            output=shown_path(self.folder.path, request.folder),
        )
        line(self.out, said, wrap=True)

    # ------------------------------------------------------------------------------------------------------ while it runs

    def _begins(self, turn: Turn) -> None:
        self._shown_s = -1.0
        self._status(say("sweep.starting", place=self._place(turn), value=turn.value))

    def _seen(self, turn: Turn, watched: Watched) -> None:
        """Where stderr is a terminal, one line that is drawn again each second: the program's own output is elsewhere."""
        now_s = datetime.now(UTC).timestamp()
        if not self._redraws or int(now_s) == self._shown_s:
            return
        self._shown_s = int(now_s)
        said = _rate_so_far(turn.value, watched)
        key = "sweep.so_far" if said else "sweep.nothing_yet"
        self._status(say(key, place=self._place(turn), value=turn.value, rate=said))

    def _ended(self, turn: Turn, run: Run) -> None:
        self._status("")
        (row,) = rows([run], [run.value])
        if run.ending is Ending.INTERRUPTED:
            return
        line(self.out, say("sweep.ended", place=self._place(turn), value=turn.value, what=_what(row)))
        if row.how is not How.MEASURED:
            self._show_last_words(run)
        if run.note and run.output is not None:
            line(self.out, say("sweep.output_lost", file=self._output(run), reason=run.note))

    @property
    def _redraws(self) -> bool:
        """Whether a line can be drawn again: on a terminal that knows escape sequences."""
        return self.out.is_terminal and not self.out.legacy_windows

    def _place(self, turn: Turn) -> str:
        return f"{turn.number}/{len(self.turns)}"

    def _status(self, text: str) -> None:
        if self._redraws:
            with suppress(OSError, ValueError):  # a closed stderr
                cut = text if self.out.width < 20 else text[: self.out.width - 12]
                self.out.file.write(f"\r\x1b[K{'keepfed: ' if cut else ''}{cut}")
                self.out.file.flush()

    def _show_last_words(self, run: Run) -> None:
        if run.output is None:
            line(self.out, run.note)
            return
        with suppress(OSError):
            with run.output.open("rb") as file:
                file.seek(max(0, run.output.stat().st_size - (1 << 16)))
                words = last_lines(file.read(), SHOWN_LINES)
            for word in words:
                show(self.out, f"    {word}")
            line(self.out, say("sweep.all_output", file=self._output(run)))

    def _output(self, run: Run) -> str:
        return shown_path(run.output, self.request.folder) if run.output is not None else ""

    # ------------------------------------------------------------------------------------------------------------ the end

    def _finish(self, runs: list[Run], *, interrupted: bool) -> int:
        found = rows(runs, self.request.values)
        choice = choose(found)
        code = self._code(found, choice, interrupted=interrupted)
        if interrupted:
            line(self.out, say("sweep.interrupted" if found else "sweep.interrupted_nothing"))
        if any(row.runs[0].output for row in found):
            show(self.out, table(found, choice))
            left_out, metric = self._left_out(runs, interrupted=interrupted), self.request.metric is not None
            show(self.out, notes(found, choice, self.request.limits, left_out, metric=metric))
            if choice is not None:
                alone = choice.by is not By.SECONDS and sum(row.how is How.MEASURED for row in found) == 1
                show(self.out, advice(choice, self.request.command, alone=alone))
            self._keep(found, choice, code)
        return code

    def _left_out(self, runs: Sequence[Run], *, interrupted: bool) -> int:
        """Runs that were not made because they would have shown nothing either."""
        return 0 if interrupted else len(self.turns) - len(runs)

    def _code(self, found: Sequence[Row], choice: Choice | None, *, interrupted: bool) -> int:
        if interrupted:
            return 130
        if all(row.how is How.NOT_STARTED for row in found):
            return found[0].exit or 126
        if choice is None:
            return 3
        bad = any(row.how in {How.FAILED, How.NOT_STARTED} for row in found)
        without = any(row.how is How.NO_RATE and choice.by is not By.SECONDS for row in found)
        return 4 if bad or without or len(found) < len(self.request.values) else 0

    def _keep(self, found: Sequence[Row], choice: Choice | None, code: int) -> None:
        """JSON, page, history."""
        request, swept = self.request, self._document(found, choice)
        document: dict[str, object] = {
            "schema": SCHEMA,
            "search": "sweep",
            "host": self.host.to_json(),
            "loaders": [],
            "sweep": swept,
        }
        if self.json_file is not None:
            try:
                write_json(self.json_file, document)
            except OSError as error:
                reason = error.strerror or error
                line(self.out, say("tune_report.json_failed", file=self.json_file, reason=reason))
        use = "" if choice is None else shell_line(with_value(request.command, choice.best.value))
        keep_report(self.out, self.report_file, document, shell_line(request.command), use)
        now = datetime.now(UTC)
        seconds = (now - self.began).total_seconds()
        time = now.isoformat(timespec="seconds")
        entry = past.Past(time, request.command, code, seconds, self.host.fingerprint, (), swept)
        try:
            past.append(request.folder, entry)
        except OSError as error:
            file = shown_path(past.path_in(request.folder), request.folder)
            line(self.out, say("tune_report.history_failed", file=file, reason=error.strerror or error))

    def _document(self, found: Sequence[Row], choice: Choice | None) -> dict[str, Any]:
        request = self.request
        return {
            "each_s": request.limits.each_s,
            "repeat": request.repeat,
            "metric": request.metric,
            "compared_by": None if choice is None else str(choice.by),
            "band": None if choice is None else round(choice.band, 4),
            "best": None if choice is None else choice.best.value,
            "fastest": None if choice is None else choice.fastest.value,
            "equal": [] if choice is None else [row.value for row in choice.equal],
            "values": [row.to_json() for row in found],
        }


class _Started:
    """A program that is started on entering and ended on leaving."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __enter__(self) -> Program:
        self._program.start()
        return self._program

    def __exit__(self, *details: object) -> None:
        self._program.__exit__(*details)


def _what(row: Row) -> str:
    """What came of one run, in a few words."""
    if row.how is How.NOT_STARTED:
        return say("sweep.what_not_started")
    if row.how is How.FAILED:
        return say("sweep.what_failed", code=row.exit, seconds=seconds_text(row.seconds))
    if row.rate is None:
        key = "sweep.what_no_rate" if row.runs[-1].ending is Ending.ENDED else "sweep.what_no_rate_stopped"
        return say(key, seconds=seconds_text(row.seconds))
    return say("sweep.what_measured", rate=rate(row.rate), unit=unit_text(row.unit), memory=size(row.peak_bytes))


def _rate_so_far(value: str, watched: Watched) -> str:
    run = Run(value, Ending.TIME_UP, None, 0.0, watched.tracks, None, None)
    key = main_bar([run])
    tracks = [(bar, track) for bar, track in watched.tracks.items() if (bar.words, bar.unit) == key]
    if not tracks:
        return ""
    bar, track = max(tracks, key=lambda one: len(one[1]))
    part = steady(track)
    return "" if part is None else f"{rate(part.rate)} {unit_text(bar.unit)}"
