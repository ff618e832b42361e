"""`keepfed tune`: the command line, and which of its ways is meant.

Everything that can be refused is refused here, before a program starts.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from os import environ
from pathlib import Path
from typing import Annotated

import typer

from keepfed.cli.main import SPEC
from keepfed.cli.tune import terminal
from keepfed.cli.tune.files import check_place
from keepfed.cli.tune.history import show_history
from keepfed.cli.tune.offline import Bench, SpecTuning, check_bench
from keepfed.cli.tune.program import Request, Tuning
from keepfed.cli.tune.report import check_report
from keepfed.cli.tune.sweep import Asked, Sweeping, check_sweep
from keepfed.errors import UsageError
from keepfed.profile import FILE_NAME, read_profile
from keepfed.text import say

DEFAULT_MAX_SECONDS = 600.0
EXHAUSTIVE_MAX_SECONDS = 1800.0
"""A dozen plans, twice at least, in windows of up to twelve seconds where batches are slow."""


class Then(StrEnum):
    """What follows when the loaders have settled."""

    STOP = "stop"
    CONTINUE = "continue"


def tune(
    ctx: typer.Context,
    then: Annotated[Then, typer.Option(help=say("tune_report.help_then"))] = Then.STOP,
    max_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help=say("tune_report.help_max_seconds"))
    ] = DEFAULT_MAX_SECONDS,
    plan: Annotated[str, typer.Option(metavar="FILE", help=say("tune_report.help_plan"))] = "",
    json_file: Annotated[str, typer.Option("--json", metavar="FILE", help=say("tune_report.help_json"))] = "",
    report_file: Annotated[str, typer.Option("--report", metavar="FILE", help=say("report.help"))] = "",
    history: Annotated[bool, typer.Option("--history", help=say("tune_report.help_history"))] = False,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help=say("tune_report.help_exhaustive"))] = False,
    step_ms: Annotated[float | None, typer.Option(metavar="N", help=say("offline.help_step_ms"))] = None,
    step: Annotated[str, typer.Option(metavar="FUNCTION", help=say("offline.help_step"))] = "",
    batch_size: Annotated[int | None, typer.Option(metavar="N", help=say("offline.help_batch_size"))] = None,
    collate: Annotated[str, typer.Option(metavar="FUNCTION", help=say("offline.help_collate"))] = "",
    offers: Annotated[bool, typer.Option("--offers", help=say("offline.help_offers"))] = False,
    sweep: Annotated[str | None, typer.Option(metavar="VALUES", help=say("sweep.help_sweep"))] = None,
    metric: Annotated[str | None, typer.Option(metavar="REGEX", help=say("sweep.help_metric"))] = None,
    each: Annotated[float | None, typer.Option(metavar="SECONDS", help=say("sweep.help_each"))] = None,
    repeat: Annotated[int | None, typer.Option(metavar="N", help=say("sweep.help_repeat"))] = None,
) -> int:
    """Find the settings of an unmodified program by measuring it while it trains. Returns the exit code."""
    command = tuple(ctx.args)
    folder = Path.cwd()
    if json_file:
        check_place("--json", Path(json_file))
    if report_file:
        check_report(Path(report_file), Path(json_file) if json_file else None, history=history)
    asked = Asked(sweep, metric, each, repeat)
    if asked.anything:
        _check_max_seconds(max_seconds)
        foreign = {
            "--history": history,
            "--plan": bool(plan),
            "--then continue": then is Then.CONTINUE,
            "--exhaustive": exhaustive,
            "--step-ms": step_ms is not None,
            "--step": bool(step),
            "--batch-size": batch_size is not None,
            "--collate": bool(collate),
            "--offers": offers,
        }
        request = check_sweep(asked, command, foreign, None if max_seconds == DEFAULT_MAX_SECONDS else max_seconds)
        files = (Path(json_file) if json_file else None, Path(report_file) if report_file else None)
        return Sweeping(request, *files, terminal.console()).run()
    if history:
        return show_history(folder, command, Path(json_file) if json_file else None)
    spec, bench = str(ctx.meta.get(SPEC, "")), Bench(step_ms, step, batch_size, collate, offers)
    check_bench(bench, spec, [word for word in command if word != spec], goes_on=then is Then.CONTINUE)
    if not command:
        raise UsageError(say("tune_report.command_missing"), next_step=say("tune_report.command_missing_next"))
    _check_max_seconds(max_seconds)
    if environ.get("KEEPFED_DISABLE", "0") not in {"", "0"}:
        raise UsageError(say("tune_report.disabled"), next_step=say("tune_report.disabled_next"))
    plan_file = folder / (plan or FILE_NAME)
    check_place("--plan" if plan else FILE_NAME, plan_file)
    if plan_file.exists():
        read_profile(plan_file)
    if exhaustive and max_seconds == DEFAULT_MAX_SECONDS:
        max_seconds = EXHAUSTIVE_MAX_SECONDS
    if spec:
        command = (spec, *bench.words())
    tuned = Request(
        command,
        then is Then.CONTINUE,
        max_seconds,
        plan_file,
        plan,
        Path(json_file) if json_file else None,
        Path(report_file) if report_file else None,
        folder,
        search="exhaustive" if exhaustive else "online",
    )
    out = terminal.console()
    return (SpecTuning(tuned, out, bench=bench) if spec else Tuning(tuned, out)).run()


def _check_max_seconds(max_seconds: float) -> None:
    if not (isfinite(max_seconds) and max_seconds > 0):
        raise UsageError(
            say("tune_report.bad_max_seconds", value=f"{max_seconds:g}"),
            next_step=say("tune_report.bad_max_seconds_next"),
        )
