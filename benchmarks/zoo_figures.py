"""From what was measured to what is said of it: shares of the best plan, CPU seconds, the cost of a search, returns.

Everything here is arithmetic on the records that `zoo_measure.py` writes, so that figures can be made anew without measuring.
A record's rounds hold one run of every plan each, measured side by side; only runs of one round are ever divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt
from statistics import median
from typing import Any

from pairs import Interval, median_interval

GOOD = 0.95
"""Plans that reach so much of the best are as good as the best: two cores tell nothing finer apart."""
BACK = 0.93
"""Back, after a change of load: this share of what the best plan gives then."""
SPAN_S = 3.0
"""Over which a program must be back to count as back."""

SETTLE_S, SETTLE_WINDOWS, MOST_MOVES = 30.0, 20, 6
BACK_S, BACK_WINDOWS = 20.0, 15

Run = dict[str, Any]
Record = dict[str, Any]


def rate(run: Run) -> float:
    """Batches per second."""
    return float(run["batches"] / run["seconds"])


def cpu_per_batch_s(run: Run) -> float:
    """CPU seconds of trainer and workers per batch; not a number where a plan changed while they were counted."""
    return nan if run["cpu_s"] is None else float(run["cpu_s"] / run["batches"])


def key(count: int, prefetch: int) -> str:
    """A plan, as records name it."""
    return f"{count}x{prefetch}"


def share_of(record: Record, plan: str) -> Interval:
    """Throughput of this plan ("auto", or a key) as a share of the sweep's best, over all rounds that have both."""
    rounds = [found for found in record["rounds"] if plan in found]
    return median_interval([rate(found[plan]) / rate(found[record["oracle"]]) for found in rounds])


def cheapest_good(record: Record) -> str:
    """The fixed plan that takes the fewest CPU seconds per batch of those that, measured again, are as good as the best."""
    plans: set[str] = {plan for found in record["rounds"] for plan in found} - {"auto"}
    good = [plan for plan in plans if plan == record["oracle"] or share_of(record, plan).median >= GOOD]
    return min(good, key=lambda plan: (median(_cpu_of(record, plan)), plan))


def cpu_ratio(record: Record) -> Interval | None:
    """CPU seconds per batch of ours over those of the cheapest good plan; None where ours kept changing its plan."""
    cheapest = cheapest_good(record)
    rounds = [found for found in record["rounds"] if cheapest in found]
    ratios = [cpu_per_batch_s(found["auto"]) / cpu_per_batch_s(found[cheapest]) for found in rounds]
    known = [ratio for ratio in ratios if not isnan(ratio)]
    return median_interval(known) if known else None


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
    later: int
    """Moves after that, in all: to no workers between two epochs, or since the load seemed to change."""
    kept: bool
    """Every one settled within 30 s or 20 windows, in 6 moves at most."""


def settling(record: Record) -> Settling:
    """Of all rounds of a cell."""
    searches = [found["auto"]["search"] for found in record["rounds"]]
    done = [search for search in searches if search["settled"]]
    return Settling(
        settled=len(done),
        searches=len(searches),
        seconds=median([search["seconds"] for search in done] or [inf]),
        windows=median(search["windows"] for search in searches),
        batches=median(search["batches"] for search in searches),
        moves=max(search["moves"] for search in searches),
        later=sum(search["later_moves"] for search in searches),
        kept=all(map(keeps, searches)),
    )


def keeps(search: Run) -> bool:
    """Whether one search kept to what is promised."""
    quick = search["settled"] and (search["seconds"] <= SETTLE_S or search["windows"] <= SETTLE_WINDOWS)
    return bool(quick and search["moves"] <= MOST_MOVES)


def lost_s(run: Run) -> float:
    """Seconds of training that a search took: its time, less what its batches take under the plan that it found.

    Endless if it did not settle. Every batch of the search is one that the program trains on; those of a sweep are thrown away.
    """
    search = run["search"]
    return max(0.0, float(search["trained_s"]) - search["batches"] / rate(run)) if search["settled"] else inf


def took_s(search: Run) -> float:
    """Seconds until it settled; endless if it did not."""
    return inf if search["seconds"] is None else float(search["seconds"])


def search_share(record: Record) -> float:
    """What a search costs, as a share of the sweep's seconds; the median of the rounds."""
    return float(median(lost_s(found["auto"]) / record["sweep_s"] for found in record["rounds"]))


def search_time_share(record: Record) -> float:
    """How long a search lasts, as a share of the sweep's seconds, although the program trains meanwhile."""
    return float(median(took_s(found["auto"]["search"]) / record["sweep_s"] for found in record["rounds"]))


def prediction_errors(records: Sequence[Record]) -> list[float]:
    """Relative errors of what the model had predicted for the plans that were tried, sorted."""
    searches = [found["auto"]["search"] for record in records for found in record["rounds"]]
    pairs = [pair for search in searches for pair in search["predictions"]]
    return sorted(abs(predicted / measured - 1) for predicted, measured in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of these sorted values below which (or at which) this share of them lies."""
    return values[min(len(values) - 1, int(share * len(values)))]


def settled_ratio(record: Record) -> Interval:
    """CPU seconds per batch of settled loaders over those of fixed ones.

    Each value is the geometric mean of a pair of stretches in a process where ours was forked first and of one where it was
    forked second, so that what the order of forking does to both cancels.
    """
    first, second = (
        [right / left for run in record["runs"][start::2] for left, right in run["pairs"]] for start in (0, 1)
    )
    return median_interval([sqrt(one * other) for one, other in zip(first, second, strict=True)])


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
