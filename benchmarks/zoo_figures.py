"""From what was measured to what is said of it: shares of the best plan, CPU seconds, the cost of a search, and verdicts.

Everything here is arithmetic on the records that `zoo_measure.py` writes, so that figures can be made anew without measuring.
A record's rounds hold one run of every plan each, measured side by side; only runs of one round are ever divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pairs import Interval, median_interval

GOOD = 0.95
"""Plans that reach so much of the best are as good as the best: two cores tell nothing finer apart."""
BACK = 0.93
"""Back, after a change of load: this share of what the best plan gives then."""
SPAN_S = 3.0
"""Over which a program must be back to count as back."""

MEDIAN_SHARE, WORST_SHARE, CPU_RATIO, SEARCH_SHARE, OVERHEAD = 0.97, 0.93, 1.10, 0.10, 1.01
SETTLE_S, SETTLE_WINDOWS, MOST_MOVES = 30.0, 20, 6
BACK_S, BACK_WINDOWS = 20.0, 15

Run = dict[str, Any]
Record = dict[str, Any]


def rate(run: Run) -> float:
    """Batches per second."""
    return float(run["batches"] / run["seconds"])


def cpu_per_batch_s(run: Run) -> float:
    """CPU seconds of trainer and workers per batch."""
    return float(run["cpu_s"] / run["batches"])


def key(count: int, prefetch: int) -> str:
    """A plan, as records name it."""
    return f"{count}x{prefetch}"


def share_of(record: Record, plan: str) -> Interval:
    """Throughput of this plan ("auto", or a key) as a share of the sweep's best, over all rounds that have both."""
    rounds = [found for found in record["rounds"] if plan in found]
    return median_interval([rate(found[plan]) / rate(found[record["oracle"]]) for found in rounds])


def cheapest_good(record: Record) -> str:
    """The fixed plan that takes the fewest CPU seconds per batch of those that, measured again, are as good as the best."""
    plans = {plan for found in record["rounds"] for plan in found} - {"auto"}
    good = [plan for plan in plans if plan == record["oracle"] or share_of(record, plan).median >= GOOD]
    return min(good, key=lambda plan: (median(_cpu_of(record, plan)), plan))


def cpu_ratio(record: Record) -> Interval:
    """CPU seconds per batch of ours over those of the cheapest good plan."""
    cheapest = cheapest_good(record)
    rounds = [found for found in record["rounds"] if cheapest in found]
    return median_interval([cpu_per_batch_s(found["auto"]) / cpu_per_batch_s(found[cheapest]) for found in rounds])


def _cpu_of(record: Record, plan: str) -> list[float]:
    return [cpu_per_batch_s(found[plan]) for found in record["rounds"] if plan in found]


# ---------------------------------------------------------------------------------------------------------------- searches


@dataclass(frozen=True, slots=True)
class Settling:
    """How the searches of a cell went: the median of its runs, and whether each kept to what is promised."""

    settled: int
    """Searches that settled."""
    searches: int
    seconds: float
    windows: float
    batches: float
    moves: int
    """Of the search with the most."""
    kept: bool
    """Every one settled within 30 s or 20 windows, in 6 moves at most."""


def settling(record: Record) -> Settling:
    """Of all rounds of a cell."""
    searches = [found["auto"]["search"] for found in record["rounds"]]
    done = [search for search in searches if search["settled"]]
    return Settling(
        settled=len(done),
        searches=len(searches),
        seconds=median([search["seconds"] for search in done] or [float("inf")]),
        windows=median(search["windows"] for search in searches),
        batches=median(search["batches"] for search in searches),
        moves=max(search["moves"] for search in searches),
        kept=all(map(keeps, searches)),
    )


def keeps(search: Run) -> bool:
    """Whether one search kept to what is promised."""
    quick = search["settled"] and (search["seconds"] <= SETTLE_S or search["windows"] <= SETTLE_WINDOWS)
    return bool(quick and search["moves"] <= MOST_MOVES)


def lost_s(run: Run) -> float:
    """Seconds of training that a search took: its time, less what its batches take under the plan that it found.

    Every batch of the search is one that the program trains on; those of a sweep are thrown away.
    """
    search = run["search"]
    return max(0.0, float(search["seconds"] or 0.0) - float(search["batches"]) / rate(run))


def search_share(record: Record) -> float:
    """What a search costs, as a share of the sweep's seconds; the median of the rounds."""
    return median(lost_s(found["auto"]) / record["sweep_s"] for found in record["rounds"])


def search_time_share(record: Record) -> float:
    """How long a search lasts, as a share of the sweep's seconds, although the program trains meanwhile."""
    return median(
        (found["auto"]["search"]["seconds"] or float("inf")) / record["sweep_s"] for found in record["rounds"]
    )


def prediction_errors(records: Sequence[Record]) -> list[float]:
    """Relative errors of what the model had predicted for the plans that were tried, sorted."""
    searches = [found["auto"]["search"] for record in records for found in record["rounds"]]
    pairs = [pair for search in searches for pair in search["predictions"]]
    return sorted(abs(predicted / measured - 1) for predicted, measured in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of these sorted values below which (or at which) this share of them lies."""
    return values[min(len(values) - 1, int(share * len(values)))]


# ----------------------------------------------------------------------------------------------------------------- changes


@dataclass(frozen=True, slots=True)
class Return:
    """When a program was back after its load had changed."""

    seconds: float | None
    """None: not until the end."""
    windows: int | None
    share: float
    """Throughput of the last ten seconds as a share of the best plan's."""

    @property
    def kept(self) -> bool:
        """Whether that is what is promised."""
        if self.seconds is None or self.windows is None:
            return False
        return self.seconds <= BACK_S or self.windows <= BACK_WINDOWS


def returned(counts: Sequence[int], bucket_s: float, best: float, windows_at_s: Sequence[float]) -> Return:
    """From batches per bucket of time after the change, and the best plan's batches per second then.

    Back is when both the next seconds and all that follows reach the share, so that a lucky second does not count.
    """
    span, last = round(SPAN_S / bucket_s), round(10.0 / bucket_s)
    share = sum(counts[-last:]) / (min(last, len(counts)) * bucket_s * best)
    for start in range(len(counts) - span + 1):
        spans = counts[start : start + span], counts[start:]
        if all(sum(part) >= BACK * best * len(part) * bucket_s for part in spans):
            seconds = start * bucket_s
            return Return(seconds, sum(at_s <= seconds for at_s in windows_at_s), share)
    return Return(None, None, share)


def returns(record: Record) -> list[Return]:
    """Of every round of a changed load; the best plan ran before and after the program, and its mean counts."""
    found = []
    for runs in record["rounds"]:
        best = (rate(runs["before"]) + rate(runs["after"])) / 2
        follow = runs["follow"]
        found.append(returned(follow["counts"], record["bucket_s"], best, follow["windows_at_s"]))
    return found


# ---------------------------------------------------------------------------------------------------------------- verdicts


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


def bars(cells: Sequence[Record], changes: Sequence[Record], settled: Sequence[Record]) -> list[Bar]:
    """Every promise with its figures; those of which nothing was measured are left out."""
    found = []
    if cells:
        found += [*_throughput(cells), _cpu(cells), _settled(cells), _search(cells)]
    if changes:
        found.append(_changes(changes))
    if settled:
        ratios = [median_interval([right / left for left, right in record["pairs"]]) for record in settled]
        worst = max(ratios, key=lambda ratio: ratio.median)
        met = all_of([at_most(OVERHEAD, ratio) for ratio in ratios])
        found.append(Bar("once settled, CPU per batch ≤ 1.01 × a fixed count's", f"worst {_text(worst)}", met))
    return found


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
    ratios = {record["name"]: cpu_ratio(record) for record in cells}
    worst = max(ratios, key=lambda name: ratios[name].median)
    middle = median(ratio.median for ratio in ratios.values())
    over = sum(at_most(CPU_RATIO, ratio) is False for ratio in ratios.values())
    return Bar(
        f"CPU-seconds per sample ≤ {CPU_RATIO:g} × the cheapest good plan's",
        f"median {middle:.2f}, worst {_text(ratios[worst])} ({worst}), above in {over} of {len(ratios)} cells",
        all_of([at_most(CPU_RATIO, ratio) for ratio in ratios.values()]),
    )


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
