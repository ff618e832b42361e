"""What `keepfed tune` shows at the end: one block per loader, numbers before and after, why, and what limits it now."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keepfed.cli.tune.curve import bars
from keepfed.profile import Measured
from keepfed.text import say
from keepfed.tuning.numbers import NONE, per_s, percent, plan_text, prefetch, rate, seconds_text, size, workers_text
from keepfed.tuning.phases import phases_text
from keepfed.tuning.results import LoaderResult, counting


def report(results: Iterable[LoaderResult], *, curve: bool = False, start: str = "") -> RenderableType:
    """One block per loader: numbers before and after, why, what limits it now.

    With `curve` all plans that were measured are drawn. `start` is what the plan at the start is called.
    """
    known = tuple(results)
    counted = counting(known)
    blocks = [
        _block(result, minor=result not in counted, curve=curve, start=start) for result in known if result.measured
    ]
    left = [Text(f"\n{_left(result)}") for result in known if not result.measured]
    return Group(*blocks, *left)


def _block(result: LoaderResult, *, minor: bool, curve: bool, start: str) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True, style="dim")
    title = Text.assemble((str(result.loader), "bold"), _detail(result))
    head.add_row(title, _state(result, minor=minor))
    reasons = _reasons(result, tried=not curve)
    below: list[RenderableType] = ["", Padding(reasons, (0, 0, 0, 2))] if reasons.row_count else []
    if curve:
        below = [
            "",
            Padding(bars(result.points, result.after.plan if result.settled and result.after else None), (0, 0, 0, 2)),
            *below,
        ]
    return Group("", head, "", Padding(_numbers(result, start), (0, 0, 0, 2)), *below)


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


def _numbers(result: LoaderResult, start: str) -> Table:
    before, after = result.before, result.after
    assert before is not None
    assert after is not None
    changed = before.plan != after.plan
    table = Table.grid(padding=(0, 4, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(3 if changed else 1):
        table.add_column(justify="right", no_wrap=True)

    def row(key: str, was: str, now: str, gain: str = "", style: str = "") -> None:
        if was != NONE or now != NONE:
            cells = [Text(was), Text(now, style), Text(gain, "bold green")] if changed else [Text(now)]
            table.add_row(Text(say(key)), *cells)

    if changed:
        after_key = "tune_report.after" if result.settled else "tune_report.best_so_far"
        table.add_row("", Text(start or say("tune_report.before"), "dim"), Text(say(after_key), "dim"), "")
    row("tune_report.workers", str(before.plan.num_workers), str(after.plan.num_workers), style="bold")
    row("tune_report.prefetch", prefetch(before.plan), prefetch(after.plan))
    row("tune_report.rate", rate(before.batches_per_s), rate(after.batches_per_s), _gain(before, after), "bold")
    row("tune_report.waiting", percent(before.wait_share), percent(after.wait_share))
    row("tune_report.gpu_idle", percent(result.stall_share_before), percent(result.stall_share))
    row("tune_report.memory", size(result.memory_before_bytes), size(result.memory_bytes))
    return table


def _reasons(result: LoaderResult, *, tried: bool) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(ratio=1, overflow="fold")  # a Chinese sentence has no blanks to be broken at
    # In a sweep that was cut short a plan leads, and that is no reason yet.
    kept = [move.reason for move in result.moves if move.kept and move.reason and (tried or result.settled)]
    if kept:
        table.add_row(Text(say("tune_report.why")), Text(kept[-1]))
    if result.settled:
        # Without workers from start to end, the words say why there are none; that is no limit of the host's.
        stays_at_zero = not kept and result.after is not None and result.after.plan.num_workers == 0
        label = say("tune_report.why" if stays_at_zero else "tune_report.limit")
        table.add_row(Text(label), Text(result.reason or say(f"tune_report.limit_{result.limited_by}")))
    if result.phases is not None:
        table.add_row(Text(say("lift.phases_label")), Text(phases_text(result.phases)))
    if result.what_if:
        table.add_row(Text(say("lift.label")), Text("\n".join(sentence.text for sentence in result.what_if)))
    if tried and result.moves:
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
            plan=workers_text(plan) if same else plan_text(plan),
            rate=per_s(move.tried.batches_per_s, move.predicted_batches_per_s),
        )
        for move, plan in zip(tried, plans, strict=True)
    ]


def _left(result: LoaderResult) -> str:
    if not result.handled:
        return say("tune_report.left", loader=result.loader, reason=result.left_because)
    return say("tune_report.too_short", loader=result.loader)


def _gain(before: Measured, after: Measured) -> str:
    if before.batches_per_s <= 0:
        return ""
    gain = after.batches_per_s / before.batches_per_s
    return f"{rate(gain)}×" if gain >= 1.05 or gain <= 0.95 else ""
