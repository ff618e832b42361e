"""How fast do batches travel from workers to the program: torch's DataLoader against keepfed's, and others.

Question: same dataset, same two persistent workers, samples ready in memory and a loop that does nothing with a batch:
what is left is collating and carrying it over. How many batches per second, and how much CPU time of the parent for each?
`batches.py` has the kinds of batches, also those of programs that keep what they get, batch by themselves or carry text.

Method: both loaders live in one process and are warmed by an epoch of their own. A pair is one epoch of each, one right
after the other, in turned order from pair to pair (ABBA), because on a shared machine the same code differs by several
percent within minutes and by a factor of two within the hour: only ratios of neighbours mean anything. An epoch is timed
from `iter()` to its last batch; spdl's loader, which starts its workers anew in every epoch, from its first batch on. The
figure is the median of the pairs' ratios with a 95 % bootstrap interval. Before anything is timed both must deliver equal
batches.

Judged is keepfed alone. A bar counts as met when the lower end of the interval meets it; bars are for two workers. A row
without one ("1x") must not be slower: its interval must not lie below 1. Where the work of the workers is what takes the
time, CPU seconds of parent and workers together must not lie above torch's. With workers the parent may spend a quarter of
torch's CPU time per batch.

Result:

    2026-11-20, 2 cores (AMD EPYC, virtual), torch 2.13.0, Python 3.11.7, otherwise idle, 10 pairs, 2 workers

    batch                        MB  torch b/s  other b/s  ratio   95 % interval  parent CPU ms/batch  share  bar
    256x3x224x224 float32    154.14       13.4      101.0   7.54   [2.70, 12.78]      19.927 -> 0.377     2%  2.5x met
    256x3x224x224 uint8       38.54       48.6      483.8  10.13   [4.71, 12.60]       6.256 -> 0.259     4%  2.8x met
    64x1024 float32            0.26      608.0     6774.3  10.77   [9.42, 11.71]       0.808 -> 0.075    10%  5x met
    8x16 float32               0.00      795.8    11771.4  15.12  [12.62, 17.70]       0.684 -> 0.056     8%  10x met
    dict of 6, batch 32        0.01      343.5     7001.0  20.47  [19.77, 22.26]       1.558 -> 0.075     5%  5x met
    NumPy collate, 20 MB      20.00       26.4      392.8  14.98  [12.22, 16.14]      26.950 -> 0.236     1%  3x met
    work-bound, 5 ms/sample    0.00       46.2       48.8   1.05    [1.04, 1.07]       1.238 -> 0.411    32%  1x missed, all CPU 0.964 [0.956, 0.971]
    list(loader), 39 MB       38.54       47.5      466.2   9.74   [6.54, 10.33]       5.781 -> 0.294     5%  1x met
    labels kept, 39 MB        38.54       46.1      394.0   8.53    [4.92, 9.62]       6.835 -> 0.294     4%  1x met
    batch_size=None, 64 KB     0.07     1423.0     8284.0   5.73    [4.56, 6.53]       0.462 -> 0.095    21%  1x met
    strings, nested lists      0.00     8272.2    15133.0   1.70    [1.20, 2.08]       0.101 -> 0.059    62%  1x missed
    dataclass, 1 MB            1.05      569.4     4614.8   8.29    [7.36, 9.51]       0.794 -> 0.106    13%  1x met
    padded clips, 4-8 MB       7.89      184.6      733.7   4.03    [3.67, 4.36]       1.898 -> 0.240    13%  1x met
    epochs of 8 batches        0.26      133.3      119.6   0.90    [0.82, 0.95]       3.632 -> 2.033    56%  1x missed
    iterable, 64x1024          0.26      597.6     5137.6   8.88    [7.75, 9.28]       0.854 -> 0.125    15%  1x met

    Missed: three rows spend more than a quarter of torch's CPU time in the parent (work-bound 0.4 ms a batch, strings 0.06 ms,
    short epochs 2 ms); and epochs of eight batches, whose workers are forked anew each time, are slower than torch's: `iter()`
    returns sooner, but a worker that is forked through the zygote has its first batch ready later.

    Page faults are dear on this virtual machine, which is what torch pays for fresh memory in every batch: expect smaller
    ratios where they are cheap.

Re-run (about nine minutes on two quiet cores; exit status 1 if a bar is missed):

    python benchmarks/transport.py --json transport.json
    python benchmarks/transport.py --candidate torch             # torch against itself: how wide is the noise?
    python benchmarks/transport.py --workers 0 1 4               # no bars but "not slower"
    python benchmarks/transport.py --candidate keepfed spdl torchdata      # those that are installed (spdl-core, torchdata)
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import CASES, Case
from pairs import Interval, in_turn, median_interval
from torch.utils.data import DataLoader, IterableDataset

QUICK_BATCHES = 12
BAR_WORKERS = 2
"""The worker count that the bars are for."""
PARENT_SHARE = 0.25
"""Of torch's CPU time in the parent, what keepfed's may be."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loader that runs against torch's."""

    name: str
    module: str
    """The package that has to be importable."""
    make: Callable[..., Any]
    """Takes torch's arguments."""
    from_first: bool = False
    """Starts its workers anew in every epoch whatever is asked: timed from its first batch on, in its favour."""
    iterables: bool = True
    """Whether it takes iterable datasets."""


def _spdl(dataset: Any, *, persistent_workers: bool, **options: Any) -> Any:
    """spdl's loader, by fork and in order as the others; it refuses `persistent_workers`."""
    del persistent_workers
    make = importlib.import_module("spdl.dataloader").get_pytorch_dataloader
    return make(dataset, in_order=True, multiprocessing_context="fork", **options)


def _keepfed(dataset: Any, **options: Any) -> Any:
    return importlib.import_module("keepfed").DataLoader(dataset, **options)


def _torchdata(dataset: Any, **options: Any) -> Any:
    return importlib.import_module("torchdata.stateful_dataloader").StatefulDataLoader(dataset, **options)


CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("torch", "torch", DataLoader),
        Candidate("keepfed", "keepfed", _keepfed),
        Candidate("spdl", "spdl.dataloader", _spdl, from_first=True, iterables=False),
        Candidate("torchdata", "torchdata", _torchdata),
    )
}


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed run of a case."""

    batches_per_s: float
    parent_cpu_s: float
    """CPU seconds of the parent process per batch, its threads included."""
    all_cpu_s: float = 0.0
    """CPU seconds of the parent and of all workers that ended meanwhile, per batch."""


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one case for one candidate."""

    case: str
    candidate: str
    workers: int
    batch_mb: float
    torch_batches_per_s: float
    candidate_batches_per_s: float
    ratio: Interval
    torch_parent_cpu_s: float
    candidate_parent_cpu_s: float
    parent_cpu_ratio: float
    """The candidate's parent CPU seconds per batch as a share of torch's, median of the pairs."""
    all_cpu_ratio: Interval | None
    """The same for parent and workers together, where the case is about their work."""
    bar: float | None
    """Times torch that the interval's lower end has to reach; None: the interval must not lie below 1."""
    missed: tuple[str, ...] | None
    """What was missed; None where nothing is judged: another candidate, or a quick run."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """A loader that has carried a whole epoch."""

    loader: Any
    case: Case
    from_first: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case, print the table; 1 when keepfed misses a bar."""
    args = parse_args(argv)
    print(f"torch {torch.__version__}, {args.pairs} pairs, {args.workers} workers", flush=True)
    candidates = present([CANDIDATES[name] for name in args.candidate])
    print(HEADER, flush=True)
    rows = []
    for workers in args.workers:
        for case in CASES:
            if args.case in case.name:
                rows += run_case(case, candidates, workers, args)
    if args.json is not None:
        args.json.write_text(json.dumps(record(args, rows), indent=2) + "\n", encoding="utf-8")
    missed = [row for row in rows if row.missed]
    print("\n".join(f"missed: {row.case}, {row.workers} workers: {', '.join(row.missed or ())}" for row in missed))
    return 1 if missed else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="torch's DataLoader against others, in interleaved pairs.")
    parser.add_argument(
        "--candidate", choices=CANDIDATES, nargs="+", default=["keepfed"], help="who runs against torch"
    )
    parser.add_argument("--pairs", type=int, default=None, help="pairs per case (default 10, with --quick 2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[BAR_WORKERS])
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a few batches only, to see that it runs; judges nothing")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    args = parser.parse_args(argv)
    if args.pairs is None:
        args.pairs = 2 if args.quick else 10
    if args.pairs < 1 or min(args.workers) < 0:
        parser.error("--pairs must be at least 1 and --workers at least 0")
    if not any(args.case in case.name for case in CASES):
        parser.error(f"--case {args.case}: none of {', '.join(case.name for case in CASES)}")
    return args


def present(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that are installed; a line for each that is not."""
    found = []
    for candidate in candidates:
        if importlib.util.find_spec(candidate.module.partition(".")[0]) is None:
            print(f"{candidate.name}: not installed, left out", flush=True)
        else:
            found.append(candidate)
    return found


def run_case(case: Case, candidates: Sequence[Candidate], workers: int, args: argparse.Namespace) -> list[Row]:
    """The rows of one case, printed as they come."""
    rows = []
    batches = min(QUICK_BATCHES, case.batches) if args.quick else case.batches
    dataset = case.dataset(batches * (case.batch_size or 1))
    for candidate in candidates:
        if isinstance(dataset, IterableDataset) and not candidate.iterables:
            continue
        with (
            warmed(CANDIDATES["torch"], case, dataset, workers) as left,
            warmed(candidate, case, dataset, workers) as right,
        ):
            batch_mb = require_equal(left.loader, right.loader, case)
            pairs = list(in_turn(args.pairs, partial(timed, left), partial(timed, right)))
        judged = candidate.name == "keepfed" and not args.quick
        rows.append(summed_up(case, pairs, judged=judged, candidate=candidate.name, workers=workers, batch_mb=batch_mb))
        print(line(rows[-1]), flush=True)
    return rows


@contextmanager
def warmed(candidate: Candidate, case: Case, dataset: Any, workers: int) -> Iterator[Warmed]:
    """A loader whose workers are up and have carried a whole epoch; they are gone afterwards."""
    persistent = case.persistent and workers > 0
    options = {} if case.collate_fn is None else {"collate_fn": case.collate_fn}
    loader = candidate.make(
        dataset, batch_size=case.batch_size, num_workers=workers, persistent_workers=persistent, **options
    )
    try:
        for _ in loader:
            pass
        yield Warmed(loader, case, candidate.from_first and workers > 0)
    finally:
        # Persistent workers live as long as the loader's iterator, and end with it.
        loader._iterator = None


def require_equal(left: Any, right: Any, case: Case) -> float:
    """A faster loader that delivers something else would have won nothing. Returns the size of the first batch in MB."""
    batch_mb = 0.0
    for number, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        if not same(ours, theirs):
            raise SystemExit(f"{case.name}: batch {number} differs from torch's, nothing was timed")
        batch_mb = batch_mb or size_of(ours) / 1e6
    return batch_mb


def same(ours: Any, theirs: Any) -> bool:
    """Whether two batches are equal, to the last element."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, torch.Tensor):
        return ours.dtype is theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    left, right = parts_of(ours), parts_of(theirs)
    if left is None or right is None:
        return bool(ours == theirs)
    return len(left) == len(right) and all(map(same, left, right))


def size_of(batch: Any) -> float:
    """Bytes of the tensors, arrays and strings in a batch."""
    parts = parts_of(batch)
    if parts is None:
        return getattr(batch, "nbytes", len(batch) if isinstance(batch, str) else 8)
    return sum(map(size_of, parts))


def parts_of(batch: Any) -> list[Any] | None:
    """What a container holds; None for what is none."""
    if isinstance(batch, dict):
        return [*batch, *batch.values()]
    if isinstance(batch, (list, tuple)):
        return list(batch)
    return [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else None


def timed(warm: Warmed) -> Timing:
    """One run: an epoch, or as many as the case has.

    The clock starts before `iter()`: persistent workers are up, but no batch is, so that none made before the start counts.
    """
    iterable, consume = warm.loader, warm.case.consume or drop_all
    if warm.from_first:
        iterable = iter(warm.loader)
        next(iterable)
    started_s, parent_s, all_s = time.perf_counter(), time.process_time(), all_cpu_s()
    count = sum(consume(iterable) for _ in range(1 if warm.from_first else warm.case.epochs))
    elapsed_s, parent_s = time.perf_counter() - started_s, time.process_time() - parent_s
    return Timing(count / elapsed_s, parent_s / count, (all_cpu_s() - all_s) / count)


def drop_all(loader: Any) -> int:
    """Each batch is dropped as soon as it is there."""
    return sum(1 for _ in loader)


def all_cpu_s() -> float:
    """CPU seconds of this process and of its descendants that ended and were waited for (getrusage(2))."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def summed_up(
    case: Case,
    pairs: Sequence[tuple[Timing, Timing]],
    *,
    judged: bool,
    candidate: str = "keepfed",
    workers: int = BAR_WORKERS,
    batch_mb: float = 0.0,
) -> Row:
    """The row of one case from its pairs of (torch, candidate)."""
    ratio = median_interval([right.batches_per_s / left.batches_per_s for left, right in pairs])
    parent_ratio = float(np.median([right.parent_cpu_s / left.parent_cpu_s for left, right in pairs]))
    all_ratio = (
        median_interval([right.all_cpu_s / left.all_cpu_s for left, right in pairs]) if case.work_bound else None
    )
    bar = case.bar if workers == BAR_WORKERS else None
    return Row(
        case=case.name,
        candidate=candidate,
        workers=workers,
        batch_mb=batch_mb,
        torch_batches_per_s=float(np.median([left.batches_per_s for left, _ in pairs])),
        candidate_batches_per_s=float(np.median([right.batches_per_s for _, right in pairs])),
        ratio=ratio,
        torch_parent_cpu_s=float(np.median([left.parent_cpu_s for left, _ in pairs])),
        candidate_parent_cpu_s=float(np.median([right.parent_cpu_s for _, right in pairs])),
        parent_cpu_ratio=parent_ratio,
        all_cpu_ratio=all_ratio,
        bar=bar,
        missed=what_was_missed(ratio, bar, all_ratio, parent_ratio if workers else 0.0) if judged else None,
    )


def what_was_missed(ratio: Interval, bar: float | None, all_cpu: Interval | None, parent_cpu: float) -> tuple[str, ...]:
    """Every bar that these figures miss, in words."""
    missed = []
    if bar is not None and ratio.low < bar:
        missed.append(f"{bar:g} times torch")
    if ratio.high < 1:
        missed.append("slower than torch")
    if all_cpu is not None and all_cpu.low > 1:
        missed.append("more CPU time than torch")
    if parent_cpu > PARENT_SHARE:
        missed.append(f"{parent_cpu:.0%} of torch's CPU time in the parent")
    return tuple(missed)


HEADER = (
    f"{'batch':25}{'loader':>10}{'wk':>3}{'MB':>8}{'torch b/s':>11}{'other b/s':>11}{'ratio':>7}  {'95 % interval':15}"
    f"{'parent CPU ms/batch':>22}{'share':>7}  bar"
)


def line(row: Row) -> str:
    """A row of the printed table."""
    interval = f"[{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
    cpu = f"{row.torch_parent_cpu_s * 1e3:.3f} -> {row.candidate_parent_cpu_s * 1e3:.3f}"
    verdict = "-" if row.missed is None else f"{row.bar or 1:g}x {'missed' if row.missed else 'met'}"
    if row.all_cpu_ratio is not None:
        verdict += (
            f", all CPU {row.all_cpu_ratio.median:.3f} [{row.all_cpu_ratio.low:.3f}, {row.all_cpu_ratio.high:.3f}]"
        )
    return (
        f"{row.case:25}{row.candidate:>10}{row.workers:3}{row.batch_mb:8.2f}{row.torch_batches_per_s:11.1f}"
        f"{row.candidate_batches_per_s:11.1f}{row.ratio.median:7.2f}  {interval:15}{cpu:>22}{row.parent_cpu_ratio:7.0%}"
        f"  {verdict}"
    )


def record(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.transport/2",
        "torch": torch.__version__,
        "pairs": args.pairs,
        "quick": args.quick,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
