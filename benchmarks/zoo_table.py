"""The zoo's results as Markdown: a row per cell, per change of load and per settled loader, and every promise with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from pairs import Interval
from zoo_figures import (
    cheapest_good,
    cpu_ratio,
    percentile,
    prediction_errors,
    returns,
    search_share,
    settled_ratio,
    settling,
    share_of,
)
from zoo_verdicts import Bar, bars

Record = dict[str, Any]
VERDICT = {True: "met", False: "**missed**", None: "open"}


def markdown(records: Sequence[Record], *, judged: bool = True) -> str:
    """Everything that was measured; sections of which there is nothing are left out, and so is the verdict of a quick run."""
    cells, changes, settled = (of_kind(records, kind) for kind in ("cell", "change", "settled"))
    failed = [f"- {record['name']}: {record['failed'].splitlines()[-1]}" for record in records if "failed" in record]
    sections = [
        table(
            "Promises",
            ("promise", "found", "verdict"),
            [promise(bar) for bar in bars(cells, changes, settled, judged=judged)],
        ),
        table("Cells", CELL_HEAD, [cell_row(record) for record in cells]),
        table("Changes of load", CHANGE_HEAD, [row for record in changes for row in change_rows(record)]),
        table("Once settled", SETTLED_HEAD, [settled_row(record) for record in settled]),
        model_line(cells),
        "\n".join(["Not measured:", "", *failed]) if failed else "",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    """Those of this kind that were measured."""
    return [record for record in records if record["kind"] == kind and "failed" not in record]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Nothing where there are no rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"### {title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def promise(bar: Bar) -> tuple[str, ...]:
    return bar.promise, bar.found, VERDICT[bar.met]


RIVALS = ("torch default", "torch suggested", "Lightning", "climb")
CELL_HEAD = (
    "cell",
    "step ms",
    "oracle",
    "ours",
    "ours / oracle",
    *RIVALS,
    "CPU ratio",
    "settled in",
    "moves",
    "search cost",
)


def cell_row(record: Record) -> tuple[str, ...]:
    """One cell; plans are workers x prefetch."""
    how, ratio = settling(record), cpu_ratio(record)
    return (
        record["name"],
        f"{record['step_s'] * 1e3:.2f}",
        record["oracle"],
        " ".join(sorted({plan_text(found["auto"]["plan"]) for found in record["rounds"]})),
        with_interval(share_of(record, "auto")),
        *(f"{share_of(record, record['rivals'][name]).median:.2f} ({record['rivals'][name]})" for name in RIVALS),
        f"{'?' if ratio is None else with_interval(ratio)} of {cheapest_good(record)}",
        f"{how.seconds:.0f} s, {how.windows:g} windows, {how.batches:g} batches"
        + (f"; {how.later} later moves" if how.later else "")
        + ("" if how.settled == how.searches else f" ({how.settled} of {how.searches})"),
        str(how.moves),
        f"{search_share(record):.1%}",
    )


def plan_text(plan: Sequence[int] | None) -> str:
    return "?" if plan is None else f"{plan[0]}x{plan[1]}"


CHANGE_HEAD = ("load", "best plan after", "back after", "windows", "moves", "ours / best at the end")


def change_rows(record: Record) -> list[tuple[str, ...]]:
    """One row per round."""
    return [
        (
            record["name"],
            record["oracle"],
            "not" if back.seconds is None else f"{back.seconds:.1f} s",
            "" if back.windows is None else str(back.windows),
            str(runs["follow"]["moves"]),
            f"{back.share:.3f}",
        )
        for back, runs in zip(returns(record), record["rounds"], strict=True)
    ]


SETTLED_HEAD = ("workload", "plan", "CPU of a fixed count, ms per batch", "ours / fixed")


def settled_row(record: Record) -> tuple[str, ...]:
    """One workload."""
    fixed = median(left for run in record["runs"] for left, _ in run["pairs"])
    plans = " ".join(sorted({plan_text(run["plan"]) for run in record["runs"]}))
    ratio = settled_ratio(record)
    return record["name"], plans, f"{fixed * 1e3:.3f}", f"{ratio.median:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"


def model_line(cells: Sequence[Record]) -> str:
    """How well the model had predicted what was then measured."""
    errors = prediction_errors(cells)
    if not errors:
        return ""
    return (
        f"Predictions of the model for {len(errors)} plans that were tried, beside what was measured: relative error "
        f"{percentile(errors, 0.5):.1%} in the median, {percentile(errors, 0.9):.1%} at the 90th percentile."
    )


def with_interval(interval: Interval) -> str:
    return f"{interval.median:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
