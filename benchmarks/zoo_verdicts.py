"""What is promised of `num_workers="auto"`, and what came of it: met, missed, or open where the noise hides the answer.

A promise is judged by whole intervals: met when all of it lies on the right side of the bar, missed when none of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pairs import Interval, median_interval
from zoo_figures import (
    BACK,
    BACK_S,
    BACK_WINDOWS,
    MOST_MOVES,
    SETTLE_S,
    SETTLE_WINDOWS,
    cpu_ratio,
    returns,
    search_share,
    search_time_share,
    settled_ratio,
    settling,
    share_of,
)

MEDIAN_SHARE, WORST_SHARE, CPU_RATIO, SEARCH_SHARE, OVERHEAD = 0.97, 0.93, 1.10, 0.10, 1.01

Record = dict[str, Any]


def at_least(bar: float, found: Interval) -> bool | None:
    """Met, missed, or open (None) where the interval holds the bar."""
    return True if found.low >= bar else False if found.high < bar else None


def at_most(bar: float, found: Interval) -> bool | None:
    """The same for what should be small."""
    return True if found.high <= bar else False if found.low > bar else None


def all_of(verdicts: Sequence[bool | None]) -> bool | None:
    """Missed if one is missed, open if one is open."""
    return False if False in verdicts else None if None in verdicts else True


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise, and what came of it."""

    promise: str
    found: str
    met: bool | None
    """None: open, or nothing was measured."""


def bars(
    cells: Sequence[Record], changes: Sequence[Record], settled: Sequence[Record], *, judged: bool = True
) -> list[Bar]:
    """Every promise with its figures; those of which nothing was measured are left out. A single round judges nothing."""
    found = []
    if cells:
        found += [*_throughput(cells), _cpu(cells), _settled(cells), _search(cells)]
    if changes:
        found.append(_changes(changes))
    if settled:
        ratios = [settled_ratio(record) for record in settled]
        worst = max(ratios, key=lambda ratio: ratio.median)
        met = all_of([at_most(OVERHEAD, ratio) for ratio in ratios])
        found.append(Bar("once settled, CPU per batch ≤ 1.01 × a fixed count's", f"worst {_text(worst)}", met))
    return found if judged else [replace(bar, met=None) for bar in found]


def _throughput(cells: Sequence[Record]) -> list[Bar]:
    shares = {record["name"]: share_of(record, "auto") for record in cells}
    middle = median_interval([share.median for share in shares.values()])
    worst = min(shares, key=lambda name: shares[name].median)
    return [
        Bar(
            f"throughput ≥ {MEDIAN_SHARE:.0%} of the oracle's in the median",
            _text(middle),
            at_least(MEDIAN_SHARE, middle),
        ),
        Bar(
            f"throughput ≥ {WORST_SHARE:.0%} of the oracle's in the worst case",
            f"{_text(shares[worst])} ({worst})",
            all_of([at_least(WORST_SHARE, share) for share in shares.values()]),
        ),
    ]


def _cpu(cells: Sequence[Record]) -> Bar:
    found = {record["name"]: cpu_ratio(record) for record in cells}
    ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
    verdicts = [None if ratio is None else at_most(CPU_RATIO, ratio) for ratio in found.values()]
    said = f"above in {verdicts.count(False)} of {len(found)} cells"
    if ratios:
        worst = max(ratios, key=lambda name: ratios[name].median)
        middle = median(ratio.median for ratio in ratios.values())
        said = f"median {middle:.2f}, worst {_text(ratios[worst])} ({worst}), {said}"
    return Bar(f"CPU-seconds per sample ≤ {CPU_RATIO:g} × the cheapest good plan's", said, all_of(verdicts))


def _settled(cells: Sequence[Record]) -> Bar:
    found = {record["name"]: settling(record) for record in cells}
    failed = [name for name, cell in found.items() if not cell.kept]
    slowest = max(cell.seconds for cell in found.values())
    said = f"slowest median {slowest:.0f} s, most moves {max(cell.moves for cell in found.values())}"
    return Bar(
        f"settled within {SETTLE_S:.0f} s or {SETTLE_WINDOWS} windows, in ≤ {MOST_MOVES} moves",
        said + (f"; not kept: {', '.join(failed)}" if failed else ""),
        not failed,
    )


def _search(cells: Sequence[Record]) -> Bar:
    shares = {record["name"]: search_share(record) for record in cells}
    worst = max(shares, key=lambda name: shares[name])
    lasts = median(search_time_share(record) for record in cells)
    return Bar(
        f"a search costs ≤ {SEARCH_SHARE:.0%} of the sweep's seconds (training lost)",
        f"median {median(shares.values()):.1%}, worst {shares[worst]:.1%} ({worst}); by the clock, training meanwhile, {lasts:.0%}",
        shares[worst] <= SEARCH_SHARE,
    )


def _changes(changes: Sequence[Record]) -> Bar:
    found = {record["name"]: returns(record) for record in changes}
    failed = [name for name, rounds in found.items() if not all(one.kept for one in rounds)]
    times = [one.seconds for rounds in found.values() for one in rounds if one.seconds is not None]
    slowest = f"slowest {max(times):.0f} s" if times else "never back"
    return Bar(
        f"after a change of load ≥ {BACK:.0%} again within {BACK_S:.0f} s or {BACK_WINDOWS} windows",
        slowest + (f"; not kept: {', '.join(failed)}" if failed else ""),
        not failed,
    )


def _text(interval: Interval) -> str:
    return f"{interval.median:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
