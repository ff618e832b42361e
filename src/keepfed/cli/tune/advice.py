"""What to do with what was found: the command that uses it, or the places where it would be set by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from keepfed.cli.tune.terminal import shell_line
from keepfed.text import say
from keepfed.tuning.flags import prefetch_flag, worker_flag
from keepfed.tuning.numbers import arrow, rate
from keepfed.tuning.results import LoaderResult


def advice(
    results: Iterable[LoaderResult], command: Sequence[str], written: str, *, plan_option: str = ""
) -> RenderableType:
    """What to do with the settled loaders: the command that uses them, and how to set them by hand.

    `written` names the plan file, `plan_option` is the file given with --plan.
    """
    settled = [result for result in results if result.settled]
    run = run_line(command, plan_option)
    lines = [Text(""), Text(say("tune_report.written", file=written)), Text(""), typed(run, "bold")]
    edits = [edit for result in settled for edit in by_hand(result, command)]
    if edits:
        lines += [Text(""), Text(say("tune_report.by_hand")), Text("")]
        lines += [typed(edit) for edit in dict.fromkeys(edits)]
    else:
        lines += [Text(""), Text(say("tune_report.nothing_to_change"))]
    return Group(*lines)


def run_line(command: Sequence[str], plan_option: str = "") -> str:
    """The command that trains with what was found, as it can be typed."""
    options = ["--plan", plan_option] if plan_option else []
    return shell_line(["keepfed", "run", *options, "--", *command])


def typed(line: str, style: str = "") -> Text:
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
        workers=arrow(str(result.before.plan.num_workers), str(result.after.plan.num_workers)),
        rate=arrow(rate(result.before.batches_per_s), rate(result.after.batches_per_s)),
    )
