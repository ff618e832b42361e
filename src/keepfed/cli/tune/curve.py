"""The curve of an exhaustive search in the terminal: one bar per plan that was measured, with its 95 % interval.

    workers  prefetch                                      batches/s  waiting
          1         2  ██████                             10.1 ± 0.1      79%
          2         2  ███████████▊░                      20.0 ± 0.6      58%
          4         2  ██████████████████████▌░  chosen   39.1 ± 0.9       2%

Bars begin at 0: a curve whose axis begins elsewhere makes noise look like progress. Nothing is drawn between the plans.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import percent, prefetch, rate
from keepfed.tuning.results import Point

BAR = 24
"""Columns of the longest bar."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bars(points: Sequence[Point], chosen: Plan | None) -> Table:
    """One row per plan, fewest workers first."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("right", "right", "left", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    heads = (
        "tune_report.workers",
        "tune_report.prefetch_short",
        "",
        "",
        "tune_report.rate",
        "tune_report.waiting_short",
    )
    table.add_row(*(Text(say(key) if key else "", "dim") for key in heads))
    longest = max((point.high or point.measured.batches_per_s for point in points), default=1.0)
    for point in points:
        plan, is_chosen = point.measured.plan, point.measured.plan == chosen
        style = "bold green" if is_chosen else ""
        table.add_row(
            Text(str(plan.num_workers), style),
            Text(prefetch(plan), style),
            Text(bar(point, longest), style or "cyan"),
            Text(say("tune_report.chosen") if is_chosen else "", style),
            Text(_with_interval(point), style),
            Text(percent(point.measured.wait_share), style),
        )
    return table


def bar(point: Point, longest: float) -> str:
    """Full up to the lower end of the interval, shaded up to its upper end."""
    low = point.low if point.low is not None else point.measured.batches_per_s
    high = point.high if point.high is not None else low
    eighths = round(8 * BAR * low / longest)
    solid = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return solid + "░" * (round(BAR * high / longest) - len(solid))


def _with_interval(point: Point) -> str:
    mean = point.measured.batches_per_s
    if point.low is None or point.high is None:
        return rate(mean)
    digits = len(rate(mean).partition(".")[2])
    return f"{rate(mean)} ± {(point.high - point.low) / 2:.{digits}f}"
