"""How fast do batches travel from workers to the program: torch's DataLoader against keepfed's.

Question: same dataset, same two persistent workers, samples ready in memory and a loop that does nothing with a batch:
what is left is collating and carrying it over. How many batches per second, and how much CPU time of the parent for each?

Method: both loaders live in one process and are warmed by an epoch of their own. A pair is one epoch of each, one right
after the other, in turned order from pair to pair (ABBA), because on a shared machine the same code differs by several
percent within minutes and by a factor of two within the hour: only ratios of neighbours mean anything. An epoch is timed
from `iter()` to its last batch. The figure is the median of the pairs' ratios with a 95 % bootstrap interval, and a bar
counts as met when the lower end of the interval meets it. Before anything is timed both must deliver equal batches.

Result (bars: 2x for the first three; 8x16 only must not be slower):

    2026-11-20, 2 cores (AMD EPYC, virtual), torch 2.13.0, Python 3.11.7, otherwise idle

    batch                         MB   torch b/s   other b/s   ratio  95 % interval        parent CPU ms/batch   share  bar
    256x3x224x224 float32     154.14        11.4       152.5   13.73  [12.26, 14.30]           22.499 -> 0.377      2%  2x met
    256x3x224x224 uint8        38.54        47.0       501.8   10.99  [10.20, 11.35]            6.654 -> 0.215      3%  2x met
    64x1024 float32             0.26       524.7      5153.1    8.95  [8.65, 10.23]             0.932 -> 0.094     11%  2x met
    8x16 float32                0.00       620.4      8838.5   14.59  [13.12, 15.31]            0.867 -> 0.057      6%  1x met

    Page faults are dear on this virtual machine, which is what torch pays for fresh memory in every batch: expect smaller
    ratios where they are cheap.

Re-run (about four minutes on two cores; exit status 1 if a bar is missed):

    python benchmarks/transport.py --json transport.json
    python benchmarks/transport.py --candidate torch     # torch against itself: how wide is the noise?
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True, slots=True)
class Case:
    """One shape of batch."""

    name: str
    shape: tuple[int, ...]
    """Shape of a sample."""
    dtype: torch.dtype
    batch_size: int
    batches: int
    """Batches in one timed epoch."""
    bar: float
    """What the lower end of the ratio's interval has to reach."""


CASES = (
    Case("256x3x224x224 float32", (3, 224, 224), torch.float32, 256, 24, 2.0),
    Case("256x3x224x224 uint8", (3, 224, 224), torch.uint8, 256, 40, 2.0),
    Case("64x1024 float32", (1024,), torch.float32, 64, 1500, 2.0),
    Case("8x16 float32", (16,), torch.float32, 8, 4000, 1.0),
)
QUICK_BATCHES = 12


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed epoch."""

    batches_per_s: float
    parent_cpu_s: float
    """CPU seconds of the parent process per batch, its threads included."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and where it lies with 95 % confidence."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one case."""

    case: str
    batch_mb: float
    torch_batches_per_s: float
    candidate_batches_per_s: float
    ratio: Interval
    torch_parent_cpu_s: float
    candidate_parent_cpu_s: float
    parent_cpu_ratio: float
    """The candidate's parent CPU seconds per batch as a share of torch's, median of the pairs."""
    bar: float | None
    """None where nothing is judged: torch against itself, or a quick run."""
    met: bool | None


class Ready(Dataset[tuple[torch.Tensor, int]]):
    """Samples that are already tensors in memory: fetching one costs nothing."""

    def __init__(self, case: Case, batches: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.samples = [(torch.rand(case.shape, generator=draw) * 255).to(case.dtype) for _ in range(8)]
        self.length = case.batch_size * batches

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.samples[index % len(self.samples)], index


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case, print the table; 1 when keepfed misses a bar."""
    args = parse_args(argv)
    candidate = loader_class(args.candidate)
    cases = [case for case in CASES if args.case in case.name]
    print(f"torch {torch.__version__} against {args.candidate}, {args.workers} workers, {args.pairs} pairs", flush=True)
    print(HEADER, flush=True)
    judged = args.candidate == "keepfed" and not args.quick
    rows = []
    for case in cases:
        batches = QUICK_BATCHES if args.quick else case.batches
        with (
            warmed(DataLoader, case, batches, args.workers) as left,
            warmed(candidate, case, batches, args.workers) as right,
        ):
            require_equal(left, right, case)
            rows.append(summed_up(case, timed_pairs(left, right, args.pairs), judged=judged))
        print(line(rows[-1]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(record(args, rows), indent=2) + "\n", encoding="utf-8")
    return 1 if any(row.met is False for row in rows) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="torch's DataLoader against keepfed's, in interleaved pairs.")
    parser.add_argument("--candidate", choices=("keepfed", "torch"), default="keepfed", help="who runs against torch")
    parser.add_argument("--pairs", type=int, default=None, help="pairs per case (default 10, with --quick 2)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a few batches only, to see that it runs; judges nothing")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    args = parser.parse_args(argv)
    if args.pairs is None:
        args.pairs = 2 if args.quick else 10
    if args.pairs < 1 or args.workers < 1:
        parser.error("--pairs and --workers must be at least 1")
    if not any(args.case in case.name for case in CASES):
        parser.error(f"--case {args.case}: none of {', '.join(case.name for case in CASES)}")
    return args


def loader_class(candidate: str) -> Any:
    """The class that runs against torch's."""
    return DataLoader if candidate == "torch" else importlib.import_module("keepfed").DataLoader


@contextmanager
def warmed(kind: Any, case: Case, batches: int, workers: int) -> Iterator[Any]:
    """A loader whose workers are up and have carried a whole epoch; they are gone afterwards."""
    loader = kind(Ready(case, batches), batch_size=case.batch_size, num_workers=workers, persistent_workers=True)
    try:
        for _ in loader:
            pass
        yield loader
    finally:
        # Persistent workers live as long as the loader's iterator, and end with it.
        loader._iterator = None


def require_equal(left: Any, right: Any, case: Case) -> None:
    """A faster loader that delivers something else would have won nothing."""
    for number, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        if not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            raise SystemExit(f"{case.name}: batch {number} differs from torch's, nothing was timed")


def timed_pairs(left: Any, right: Any, pairs: int) -> list[tuple[Timing, Timing]]:
    """`pairs` times (left, right), run in turned order every other time."""
    timings = []
    for number in range(pairs):
        if number % 2:
            second, first = timed_epoch(right), timed_epoch(left)
        else:
            first, second = timed_epoch(left), timed_epoch(right)
        timings.append((first, second))
    return timings


def timed_epoch(loader: Any) -> Timing:
    """One epoch, each batch dropped as soon as it is there.

    The clock starts before `iter()`: workers are up, but no batch is, so that none made before the start counts.
    """
    started_s, cpu_s = time.perf_counter(), time.process_time()
    count = sum(1 for _ in loader)
    cpu_s, elapsed_s = time.process_time() - cpu_s, time.perf_counter() - started_s
    return Timing(batches_per_s=count / elapsed_s, parent_cpu_s=cpu_s / count)


def summed_up(case: Case, pairs: Sequence[tuple[Timing, Timing]], *, judged: bool) -> Row:
    """The row of one case from its pairs of (torch, candidate)."""
    ratio = median_interval([right.batches_per_s / left.batches_per_s for left, right in pairs])
    return Row(
        case=case.name,
        batch_mb=case.batch_size * torch.Size(case.shape).numel() * case.dtype.itemsize / 1e6,
        torch_batches_per_s=float(np.median([left.batches_per_s for left, _ in pairs])),
        candidate_batches_per_s=float(np.median([right.batches_per_s for _, right in pairs])),
        ratio=ratio,
        torch_parent_cpu_s=float(np.median([left.parent_cpu_s for left, _ in pairs])),
        candidate_parent_cpu_s=float(np.median([right.parent_cpu_s for _, right in pairs])),
        parent_cpu_ratio=float(np.median([right.parent_cpu_s / left.parent_cpu_s for left, right in pairs])),
        bar=case.bar if judged else None,
        met=ratio.low >= case.bar if judged else None,
    )


def median_interval(values: Sequence[float], resamples: int = 10_000) -> Interval:
    """The median and its 95 % percentile-bootstrap interval; the resampling is seeded, equal values in, equal values out."""
    if not values:
        raise ValueError("no values, no median: at least one pair is needed")
    sample = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.percentile(np.median(sample[picks], axis=1), [2.5, 97.5])
    return Interval(low=float(low), median=float(np.median(sample)), high=float(high))


HEADER = (
    f"{'batch':24}{'MB':>8}{'torch b/s':>12}{'other b/s':>12}{'ratio':>8}  {'95 % interval':16}"
    f"{'parent CPU ms/batch':>24}{'share':>8}  bar"
)


def line(row: Row) -> str:
    """A row of the printed table."""
    interval = f"[{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
    cpu = f"{row.torch_parent_cpu_s * 1e3:.3f} -> {row.candidate_parent_cpu_s * 1e3:.3f}"
    verdict = "-" if row.bar is None else f"{row.bar:g}x {'met' if row.met else 'missed'}"
    return (
        f"{row.case:24}{row.batch_mb:8.2f}{row.torch_batches_per_s:12.1f}{row.candidate_batches_per_s:12.1f}"
        f"{row.ratio.median:8.2f}  {interval:16}{cpu:>24}{row.parent_cpu_ratio:8.0%}"
        f"  {verdict}"
    )


def record(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.transport/1",
        "candidate": args.candidate,
        "torch": torch.__version__,
        "workers": args.workers,
        "pairs": args.pairs,
        "quick": args.quick,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
