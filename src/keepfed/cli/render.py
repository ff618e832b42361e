"""What `keepfed tune` shows: lines while it runs, a table at the end, one JSON document.

Nothing is drawn live. The program shares our terminal, and a progress bar of its own may stand in the very line that we
would redraw; so there are whole lines only, at most one per plan that was tried.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keepfed.cli.run import loader_line
from keepfed.events import Event, LoaderSeen, Moved, Note, Settled
from keepfed.plan import LoaderId, Plan
from keepfed.profile import Measured
from keepfed.text import say
from keepfed.tuning.flags import prefetch_flag, worker_flag
from keepfed.tuning.history import SCHEMA as HISTORY_SCHEMA
from keepfed.tuning.history import Past
from keepfed.tuning.summary import LoaderResult, counting

SCHEMA = "keepfed.tune/1"
WIDTH = 80
"""Wider terminals do not make wider tables: the eye has to travel from a name to its numbers."""

_NONE = "–"


def console(file: IO[str] | None = None) -> Console:
    """Where everything here is printed: stderr unless told otherwise, at most 80 columns, colour as the terminal allows."""
    made = Console(file=file or sys.stderr, highlight=False, markup=False, emoji=False)
    made.width = min(made.width, WIDTH)
    return made


def stdout_console() -> Console:
    """For what is asked of keepfed itself and not of a program: on stdout, so that it can be piped."""
    return console(sys.stdout)


def line(out: Console, text: str, *, wrap: bool = False) -> None:
    """One line of ours between the program's, marked as ours.

    Unless `wrap`, a long one is left to the terminal: people copy from it, and tools look for lines.
    """
    said = Text.assemble(("keepfed: ", "bold"), text)
    if wrap:
        show(out, said)
        return
    with suppress(OSError, ValueError):  # a closed stderr must not end somebody's training
        out.print(said, soft_wrap=True)


def shell_line(command: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)


def show(out: Console, shown: RenderableType) -> None:
    """Print without the blanks that tables leave at the ends of lines: what is copied into an issue should be clean."""
    with out.capture() as captured:
        out.print(shown, crop=False)
    with suppress(OSError, ValueError):  # as above
        out.file.write("".join(f"{row.rstrip()}\n" for row in captured.get().splitlines()))
        out.file.flush()


# ---------------------------------------------------------------------------------------------------------- while it runs


def progress(event: Event) -> str | None:
    """The line that an event is worth, if any."""
    match event:
        case LoaderSeen():
            return re.sub(r"^keepfed\s*[:：]\s*", "", loader_line(event))
        case Moved() if event.batches_per_s > 0:
            key = "tune_report.move_kept" if event.kept else "tune_report.move_dropped"
            rate, wait = _rate(event.batches_per_s), _percent(event.wait_share)
            return say(key, loader=event.loader, plan=_plan(event.plan), rate=rate, wait=wait)
        case Settled():
            seconds = seconds_text(event.seconds)
            return say("tune_report.settled", loader=event.loader, plan=_plan(event.plan), seconds=seconds)
        case Note():
            return event.text
    return None


def _plan(plan: Plan) -> str:
    if plan.num_workers == 0:
        return say("tune_report.plan_none")
    key = "tune_report.plan_one" if plan.num_workers == 1 else "tune_report.plan"
    return say(key, workers=plan.num_workers, prefetch=plan.prefetch_factor)


def _workers(plan: Plan) -> str:
    key = {0: "tune_report.plan_none", 1: "tune_report.one_worker"}.get(plan.num_workers, "tune_report.n_workers")
    return say(key, workers=plan.num_workers)


# ---------------------------------------------------------------------------------------------------------- at the end


def report(results: Iterable[LoaderResult]) -> RenderableType:
    """One block per loader: numbers before and after, why, what limits it now."""
    known = tuple(results)
    counted = counting(known)
    blocks = [_block(result, minor=result not in counted) for result in known if result.measured]
    left = [Text(f"\n{_left(result)}") for result in known if not result.measured]
    return Group(*blocks, *left)


def _block(result: LoaderResult, *, minor: bool) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True, style="dim")
    title = Text.assemble((str(result.loader), "bold"), _detail(result))
    head.add_row(title, _state(result, minor=minor))
    reasons = _reasons(result)
    below: list[RenderableType] = ["", Padding(reasons, (0, 0, 0, 2))] if reasons.row_count else []
    return Group("", head, "", Padding(_numbers(result), (0, 0, 0, 2)), *below)


def _detail(result: LoaderResult) -> str:
    parts = []
    if result.batch_size is not None:
        parts.append(say("tune_report.batches_of", size=result.batch_size))
    if result.processes > 1:
        parts.append(say("tune_report.processes", count=result.processes))
    return "".join(say("tune_report.detail", text=part) for part in parts)


def _state(result: LoaderResult, *, minor: bool) -> str:
    if result.settled:
        return say("tune_report.state_settled", seconds=seconds_text(result.seconds))
    if minor:
        return say("tune_report.state_minor")
    return say("tune_report.state_unsettled", seconds=seconds_text(result.seconds))


def _numbers(result: LoaderResult) -> Table:
    before, after = result.before, result.after
    assert before is not None
    assert after is not None
    changed = before.plan != after.plan
    table = Table.grid(padding=(0, 4, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(3 if changed else 1):
        table.add_column(justify="right", no_wrap=True)

    def row(key: str, was: str, now: str, gain: str = "", style: str = "") -> None:
        if was != _NONE or now != _NONE:
            cells = [Text(was), Text(now, style), Text(gain, "bold green")] if changed else [Text(now)]
            table.add_row(Text(say(key)), *cells)

    if changed:
        after_key = "tune_report.after" if result.settled else "tune_report.best_so_far"
        table.add_row("", Text(say("tune_report.before"), "dim"), Text(say(after_key), "dim"), "")
    row("tune_report.workers", str(before.plan.num_workers), str(after.plan.num_workers), style="bold")
    row("tune_report.prefetch", _prefetch(before.plan), _prefetch(after.plan))
    row("tune_report.rate", _rate(before.batches_per_s), _rate(after.batches_per_s), _gain(before, after), "bold")
    row("tune_report.waiting", _percent(before.wait_share), _percent(after.wait_share))
    row("tune_report.gpu_idle", _percent(result.stall_share_before), _percent(result.stall_share))
    row("tune_report.memory", _size(result.memory_before_bytes), _size(result.memory_bytes))
    return table


def _reasons(result: LoaderResult) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(ratio=1)
    kept = [move.reason for move in result.moves if move.kept and move.reason]
    if kept:
        table.add_row(Text(say("tune_report.why")), Text(kept[-1]))
    if result.settled:
        # Without workers from start to end, the words say why there are none; that is no limit of the host's.
        stays_at_zero = not kept and result.after is not None and result.after.plan.num_workers == 0
        label = say("tune_report.why" if stays_at_zero else "tune_report.limit")
        table.add_row(Text(label), Text(result.reason or say(f"tune_report.limit_{result.limited_by}")))
    if result.moves:
        table.add_row(Text(say("tune_report.tried")), Text(say("tune_report.list").join(_tried(result))))
    return table


def _tried(result: LoaderResult) -> list[str]:
    tried = [move for move in result.moves if move.tried.batches_per_s > 0]
    plans = [move.tried.plan for move in tried]
    # The prefetch factor is only worth its words where it was one of the things tried.
    same = len({plan.prefetch_factor for plan in [*plans, *([result.before.plan] if result.before else [])]}) == 1
    return [
        say(
            "tune_report.tried_kept" if move.kept else "tune_report.tried_dropped",
            plan=_workers(plan) if same else _plan(plan),
            rate=_rate(move.tried.batches_per_s),
        )
        for move, plan in zip(tried, plans, strict=True)
    ]


def _left(result: LoaderResult) -> str:
    if not result.handled:
        return say("tune_report.left", loader=result.loader, reason=result.left_because)
    return say("tune_report.too_short", loader=result.loader)


# ---------------------------------------------------------------------------------------------------------- what to do


def advice(
    results: Iterable[LoaderResult], command: Sequence[str], written: str, *, plan_option: str = ""
) -> RenderableType:
    """What to do with the settled loaders: the command that uses them, and how to set them by hand.

    `written` names the plan file, `plan_option` is the file given with --plan.
    """
    settled = [result for result in results if result.settled]
    options = ["--plan", plan_option] if plan_option else []
    run = shell_line(["keepfed", "run", *options, "--", *command])
    lines = [Text(""), Text(say("tune_report.written", file=written)), Text(""), _typed(run, "bold")]
    edits = [edit for result in settled for edit in by_hand(result, command)]
    if edits:
        lines += [Text(""), Text(say("tune_report.by_hand")), Text("")]
        lines += [_typed(edit) for edit in dict.fromkeys(edits)]
    else:
        lines += [Text(""), Text(say("tune_report.nothing_to_change"))]
    return Group(*lines)


def _typed(line: str, style: str = "") -> Text:
    """Something to be copied: never cut, never broken by us."""
    return Text(f"  {line}", style, no_wrap=True, overflow="ignore")


def by_hand(result: LoaderResult, command: Sequence[str]) -> list[str]:
    """What would have to change in the command line or the source for the program to have this plan without keepfed."""
    asked, after = result.asked or (result.before.plan if result.before else None), result.after
    if asked is None or after is None:
        return []
    want, edits, keywords = after.plan, [], []
    if want.num_workers != asked.num_workers:
        flag = worker_flag(command, asked.num_workers, want.num_workers)
        if flag:
            edits.append(say("tune_report.flag", old=flag[0], new=flag[1], loader=result.loader))
        else:
            keywords.append(f"num_workers={want.num_workers}")
    # torch refuses a prefetch_factor without workers, and needs none where it is its default.
    if want.num_workers and want.prefetch_factor != (asked.prefetch_factor if asked.num_workers else 2):
        flag = prefetch_flag(command, asked.prefetch_factor, want.prefetch_factor)
        if flag:
            edits.append(say("tune_report.flag", old=flag[0], new=flag[1], loader=result.loader))
        else:
            keywords.append(f"prefetch_factor={want.prefetch_factor}")
    if keywords:
        edits.append(say("tune_report.source", site=result.loader.site, call=f"DataLoader(…, {', '.join(keywords)})"))
    if asked.num_workers and not want.num_workers:
        edits.append(say("tune_report.without_workers"))
    return edits


def failure(results: Iterable[LoaderResult], code: int) -> str:
    """The one line that we add when the program failed by itself; what is known so far goes into it."""
    found = "; ".join(_short(result) for result in results if result.measured)
    return say("tune_report.failed_measured", code=code, found=found) if found else say("tune_report.failed", code=code)


def _short(result: LoaderResult) -> str:
    assert result.before is not None
    assert result.after is not None
    return say(
        "tune_report.short",
        loader=result.loader,
        workers=_arrow(str(result.before.plan.num_workers), str(result.after.plan.num_workers)),
        rate=_arrow(_rate(result.before.batches_per_s), _rate(result.after.batches_per_s)),
    )


# ---------------------------------------------------------------------------------------------------------- JSON, history


def document(results: Iterable[LoaderResult], host: Mapping[str, Any]) -> dict[str, Any]:
    """The document of `tune --json`: the measured loaders on this host."""
    return {
        "schema": SCHEMA,
        "host": dict(host),
        "loaders": [result.to_json() for result in results if result.measured],
    }


def history_document(sessions: Sequence[Past]) -> dict[str, Any]:
    """The document of `tune --history --json`."""
    return {"schema": HISTORY_SCHEMA, "tunes": [past.to_json() for past in sessions]}


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
    return Group(*blocks)


def _how_it_ended(past: Past) -> str:
    key = {0: "tune_report.past_settled", 4: "tune_report.past_unsettled"}.get(past.exit, "tune_report.past_failed")
    return say(key, seconds=seconds_text(past.seconds), code=past.exit)


def _row(loader: Mapping[str, Any]) -> tuple[RenderableType, RenderableType]:
    was, now = loader["before"], loader["after"]
    table = Table.grid(padding=(0, 3, 0, 0))
    for width in (16, 23, 19):
        table.add_column(no_wrap=True, min_width=width)
    table.add_row(
        say("tune_report.past_workers", workers=_arrow(str(was["num_workers"]), str(now["num_workers"]))),
        say("tune_report.past_rate", rate=_arrow(_rate(was["batches_per_s"]), _rate(now["batches_per_s"]))),
        say("tune_report.past_wait", wait=_arrow(_percent(was["wait_share"]), _percent(now["wait_share"]))),
    )
    limit = say("tune_report.past_limit", limit=say(f"tune_report.name_{loader['limited_by']}"))
    name = Text.assemble(f"  {LoaderId(loader['site'], loader['dataset'])}", (limit, "dim"))
    return name, Padding(table, (0, 0, 0, 4))


def _local(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return time


# ---------------------------------------------------------------------------------------------------------- numbers


def _arrow(was: str, now: str) -> str:
    return was if was == now else f"{was} → {now}"


def _rate(per_s: float) -> str:
    """Three digits: 0.0421, 6.14, 21.0, 1840."""
    digits = 0 if per_s >= 100 else 1 if per_s >= 10 else 2
    return f"{per_s:.{digits}f}" if per_s >= 1 else f"{per_s:.3g}"


def _gain(before: Measured, after: Measured) -> str:
    if before.batches_per_s <= 0:
        return ""
    gain = after.batches_per_s / before.batches_per_s
    return f"{_rate(gain)}×" if gain >= 1.05 or gain <= 0.95 else ""


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:.0%}"


def _prefetch(plan: Plan) -> str:
    return str(plan.prefetch_factor) if plan.num_workers else _NONE


def _size(size_bytes: int | None) -> str:
    if not size_bytes:
        return _NONE
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """A duration: "24 s", "10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return say("tune_report.minutes", minutes=f"{seconds / 60:.0f}")


def plan_path(path: Path, folder: Path) -> str:
    """The plan file as the reader would type it from `folder`."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
