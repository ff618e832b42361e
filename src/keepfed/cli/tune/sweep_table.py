"""The table of a sweep, what to know about its numbers, and which value to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keepfed.cli.tune.terminal import shell_line
from keepfed.text import say
from keepfed.tuning.numbers import NONE, percent, rate, seconds_text, size, unit_text
from keepfed.tuning.sweep.choice import By, Choice, How, Row, warmer
from keepfed.tuning.sweep.rate import DRIFT
from keepfed.tuning.sweep.run import Ending, Limits
from keepfed.tuning.sweep.values import with_value

LONGEST_VALUE, ROOMY_VALUE = 16, 9
"""With all numbers at their widest a row then fits into 80 columns, with narrow and with wide gaps."""


def table(found: Sequence[Row], choice: Choice | None) -> RenderableType:
    """One row per value."""
    narrow = any(len(row.value) > ROOMY_VALUE for row in found)
    grid = Table.grid(padding=(0, 2 if narrow else 3, 0, 0))
    grid.add_column(no_wrap=True)
    for _ in range(7):
        grid.add_column(justify="right", no_wrap=True)
    unit = next((row.unit for row in found if row.rates), "it")
    kind = max((row.memory_kind for row in found), key=("pss", "uss", "rss").index, default="pss")
    heads = [unit_text(unit), *(say(f"sweep.head_{name}") for name in ("epoch", "wall"))]
    heads += [
        say("sweep.head_memory", kind=kind.upper()),
        *(say(f"sweep.head_{name}") for name in ("cpu", "per", "gpu")),
    ]
    grid.add_row(Text("{}", "dim"), *(Text(head, "dim") for head in heads))
    for row in found:
        best = choice is not None and row is choice.best
        equal = choice is not None and row in choice.equal and len(choice.equal) > 1
        grid.add_row(Text(_short(row.value), "bold" if best else ""), *_cells(row, best=best, equal=equal))
    return Group("", Padding(grid, (0, 0, 0, 2)))


def _short(value: str) -> str:
    """A value that leaves room for its numbers; of a path the end tells more."""
    return value if len(value) <= LONGEST_VALUE else f"…{value[1 - LONGEST_VALUE :]}"


def _cells(row: Row, *, best: bool, equal: bool) -> list[Text]:
    number = {
        How.FAILED: say("sweep.cell_failed"),
        How.NOT_STARTED: say("sweep.cell_not_started"),
    }.get(row.how, NONE if row.rate is None else rate(row.rate))
    if row.how is How.NOT_STARTED:
        return [Text(number)]
    return [
        Text(f"≈ {number}" if equal else number, "bold" if best else ""),
        Text(NONE if row.epoch_s is None else _short_s(row.epoch_s)),
        Text(_short_s(row.seconds)),
        Text(size(row.peak_bytes)),
        Text(NONE if row.cpu_s is None else rate(row.cpu_s)),
        Text(NONE if row.cpu_s_per_batch is None else _small_s(row.cpu_s_per_batch)),
        Text(percent(row.gpu_busy)),
    ]


def _short_s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else seconds_text(seconds)


def _small_s(seconds: float) -> str:
    return f"{rate(seconds)} s" if seconds >= 1 else f"{rate(1e3 * seconds)} ms"


def notes(
    found: Sequence[Row], choice: Choice | None, limits: Limits, left_out: int = 0, *, metric: bool = False
) -> RenderableType:
    """What a reader has to know before believing the numbers, most important first.

    `left_out`: runs that were not made, since they would have shown nothing either; `metric`: whether --metric was given.
    """
    said = [
        _failures(found),
        _cut_short(found),
        _without_rate(found, choice, left_out, limits, metric=metric),
        *_trust(found, choice),
    ]
    lines = [Padding(Text(one), (0, 0, 0, 2)) for one in said if one]
    return Group("", *lines) if lines else Group()


def _failures(found: Sequence[Row]) -> str:
    failed = [row for row in found if row.how is How.FAILED]
    codes = say("sweep.list").join(say("sweep.value_code", value=row.value, code=row.exit) for row in failed)
    return say("sweep.note_failed", codes=codes) if failed else ""


def _cut_short(found: Sequence[Row]) -> str:
    cut = [row for row in found if row.how is How.INTERRUPTED]
    return say("sweep.note_cut_short", values=_listed(cut)) if cut else ""


def _without_rate(found: Sequence[Row], choice: Choice | None, left_out: int, limits: Limits, *, metric: bool) -> str:
    without = [row for row in found if row.how is How.NO_RATE]
    if not without:
        return ""
    stopped = without[-1].runs[-1].ending is Ending.TOO_SLOW
    key = (
        "sweep.note_no_rate_left_out" if left_out else "sweep.note_no_rate_stopped" if stopped else "sweep.note_no_rate"
    )
    if choice is not None and choice.by is By.SECONDS:
        key = "sweep.note_by_seconds"
    hint = say("sweep.hint_metric_unmatched" if metric else "sweep.hint_metric")
    said = say(key, values=_listed(without), limit=seconds_text(limits.whole_s))
    return say("sweep.sentences", first=said, second=hint)


def _trust(found: Sequence[Row], choice: Choice | None) -> list[str]:
    said = []
    measured = [row for row in found if row.how is How.MEASURED]
    if choice is not None and (len(measured) > 1 or choice.by is By.SECONDS):
        key = "sweep.note_repeated" if choice.repeated else "sweep.note_single"
        said.append(say(key, band=percent(choice.band)))
    if choice is not None and choice.by is By.EPOCH:
        said.append(say("sweep.note_by_epoch"))
    drifting = [row for row in measured if abs(row.change) > DRIFT]
    if drifting:
        changes = (say("sweep.value_change", value=row.value, change=f"{row.change:+.0%}") for row in drifting)
        said.append(say("sweep.note_drift", changes=say("sweep.list").join(changes)))
    if short := [row for row in measured if not row.warm]:
        said.append(say("sweep.note_short", values=_listed(short)))
    if read := warmer(found):
        first, *others = read.items()
        most = max(number for _, number in others)
        said.append(
            say("sweep.note_cache", value=first[0], first=size(first[1]), others=size(most) if most else "0 MiB")
        )
    if any(row.memory_kind == "rss" for row in found):
        said.append(say("sweep.note_rss"))
    return said


def _listed(listed: Sequence[Row]) -> str:
    return say("sweep.list").join(row.value for row in listed)


def advice(choice: Choice, command: Sequence[str], *, alone: bool = False) -> RenderableType:
    """Which value to take and why, and the command with it. `alone`: no other value was measured."""
    best, equal = choice.best, choice.equal
    if alone:
        sentence = say("sweep.best_only", value=best.value)
    elif len(equal) == 1:
        key = "sweep.best_seconds" if choice.by is By.SECONDS else "sweep.best"
        sentence = say(key, value=best.value)
    else:
        key = "sweep.best_of_equal" if best is not choice.fastest else "sweep.best_and_cheapest"
        sentence = say(key, value=best.value, equal=_listed(equal), fastest=choice.fastest.value)
    use = shell_line(with_value(command, best.value))
    typed = Text(f"  {use}", "bold", no_wrap=True, overflow="ignore")
    return Group("", Text(sentence), "", typed, "", Text(say("sweep.not_written")))


def swept(sweep: Mapping[str, Any]) -> str:
    """A sweep of the history, from its JSON: rates by value, and the one to take."""
    known = sweep["values"]
    units = {value["unit"] for value in known if value["batches_per_s"]}
    unit = unit_text(units.pop()) if len(units) == 1 else ""
    rates = [
        say(
            "sweep.past_value",
            value=value["value"],
            rate=rate(number) if number and value["how"] == "measured" else NONE,
        )
        for value in known
        for number in [value["batches_per_s"]]
    ]
    best = say("sweep.past_best", value=sweep["best"]) if isinstance(sweep.get("best"), str) else ""
    return "   ".join(part for part in (unit, *rates, best) if part)
