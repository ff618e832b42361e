"""How long does a program wait for its first batch: torch's DataLoader against keepfed's, by start method.

Question: from `iter(loader)` on, when is the first batch there, and when are the first 2 x workers batches (from then on
every worker works), in the first epoch of a fresh process and in the second one without persistent workers? With a dataset
object of 64 MiB, and with one of nothing.

Method: every first epoch is that of a fresh Python process, since what a loader starts once per process is part of the
answer; torch, numpy, the loader and the dataset are there before the clock starts. A pair is one process of torch's and one
of keepfed's, one right after the other, in turned order from pair to pair (ABBA). The figure is the median of the pairs'
ratios (torch's time / keepfed's) with a 95 % bootstrap interval; a bar counts as met when the interval's lower end meets
it. Samples are ready-made, batches small: what is timed is starting. Both must deliver the same batches.

Result (bar: 3x for the first batch, spawn, 8 workers, 64 MiB):

    2026-11-20, 2 cores (AMD EPYC, virtual), torch 2.13.0, Python 3.11.7, NOT idle: load average 10 from other programs,
    4 pairs for spawn and 5 for fork; the cases that are missing here were not measured

    method      dataset         until                     torch s  other s   ratio  95 % interval     bar
    fork        64 MiB of bytes first batch                 0.651    0.134    4.29  [3.91, 6.36]      -
    fork        64 MiB of bytes 2 x workers                 0.728    0.442    1.40  [1.24, 2.00]      -
    fork        64 MiB of bytes 2nd epoch, first            0.525    0.141    3.41  [2.47, 6.67]      -
    fork        64 MiB of bytes 2nd epoch, 2 x workers      0.693    0.449    1.34  [1.13, 1.83]      -
    spawn       64 MiB of bytes first batch                23.454    4.287    5.43  [4.63, 6.70]      3x met
    spawn       64 MiB of bytes 2 x workers                23.511    4.834    4.87  [4.09, 5.66]      -
    spawn       64 MiB of bytes 2nd epoch, first           24.846    1.011   23.83  [17.50, 27.62]    -
    spawn       64 MiB of bytes 2nd epoch, 2 x workers     24.891    1.577   15.69  [14.05, 18.77]    -

Re-run (about an hour on two cores, nearly all of it torch's; exit status 1 if a bar is missed):

    python benchmarks/startup.py --json startup.json
    python benchmarks/startup.py --candidate torch --method spawn    # torch against itself: how wide is the noise?
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Interval, in_turn, median_interval
from torch.utils.data import Dataset

METHODS = ("fork", "forkserver", "spawn")
BIG_BYTES = 64 << 20
BAR = 3.0
"""What the lower end of the ratio's interval has to reach for the first batch of spawned workers with the large object."""
PARTS = ("bytes", "array")
BATCH = 4


@dataclass(frozen=True, slots=True)
class Case:
    """How workers are started, and what they are given."""

    method: str
    holds: str
    """What the dataset holds besides its samples: "nothing", or 64 MiB as "bytes" or as an "array" of numpy."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One process, two epochs; seconds from `iter(loader)`."""

    first_s: float
    """First batch."""
    steady_s: float
    """The first 2 x workers batches."""
    again_first_s: float
    """First batch of the second epoch, whose workers are new ones."""
    again_steady_s: float
    checksum: float
    """Of the batches, to be the same for both."""


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one figure of one case."""

    case: Case
    figure: str
    """Name of the field of Timing."""
    torch_s: float
    candidate_s: float
    ratio: Interval
    bar: float | None
    """None where nothing is judged."""
    met: bool | None


FIGURES = {
    "first_s": "first batch",
    "steady_s": "2 x workers",
    "again_first_s": "2nd epoch, first",
    "again_steady_s": "2nd epoch, 2 x workers",
}


class Ready(Dataset[torch.Tensor]):
    """Samples that cost nothing, and something large that travels with them."""

    def __init__(self, length: int, holds: str) -> None:
        self.length = length
        self.samples = [torch.full((16,), float(number)) for number in range(8)]
        self.large: Any = None
        if holds == "bytes":
            self.large = bytes(BIG_BYTES)
        elif holds == "array":
            self.large = np.ones(BIG_BYTES, np.uint8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.samples[index % len(self.samples)] + index


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case, print the table; 1 when keepfed misses a bar."""
    args = parse_args(argv)
    if args.once:
        print(json.dumps(asdict(once(args.once, Case(args.method, args.holds), args.workers))))
        return 0
    cases = [
        Case(method, holds)
        for method in METHODS
        for holds in ("nothing", *PARTS)
        if args.method in ("", method) and args.holds in ("", holds)
    ]
    print(f"torch {torch.__version__} against {args.candidate}, {args.workers} workers, {args.pairs} pairs", flush=True)
    print(HEADER, flush=True)
    rows = []
    for case in cases:
        pairs = timed_pairs(args.candidate, case, args.workers, args.pairs)
        for figure in FIGURES:
            rows.append(summed_up(case, figure, pairs, judged=args.candidate == "keepfed" and not args.quick))
            print(line(rows[-1]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(record(args, rows), indent=2) + "\n", encoding="utf-8")
    return 1 if any(row.met is False for row in rows) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="Time to the first batches, torch's DataLoader against keepfed's.")
    parser.add_argument("--candidate", choices=("keepfed", "torch"), default="keepfed", help="who runs against torch")
    parser.add_argument("--pairs", type=int, default=None, help="pairs per case (default 10, with --quick 1)")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--method", choices=("", *METHODS), default="", help="only this start method")
    parser.add_argument("--holds", choices=("", "nothing", *PARTS), default="", help="only datasets that hold this")
    parser.add_argument("--quick", action="store_true", help="one pair, to see that it runs; judges nothing")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    parser.add_argument("--once", choices=("keepfed", "torch"), default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.pairs is None:
        args.pairs = 1 if args.quick else 10
    if args.pairs < 1 or args.workers < 1:
        parser.error("--pairs and --workers must be at least 1")
    return args


def timed_pairs(candidate: str, case: Case, workers: int, pairs: int) -> list[tuple[Timing, Timing]]:
    """`pairs` times (torch, candidate), run in turned order every other time."""
    timings = []
    left, right = (partial(in_a_fresh_process, kind, case, workers) for kind in ("torch", candidate))
    for pair in in_turn(pairs, left, right):
        if pair[0].checksum != pair[1].checksum:
            raise SystemExit(f"{case}: the batches differ from torch's")
        timings.append(pair)
    return timings


def in_a_fresh_process(kind: str, case: Case, workers: int) -> Timing:
    """Two epochs in a Python process of their own."""
    command = [sys.executable, __file__, "--once", kind, "--method", case.method, "--holds", case.holds]
    ended = subprocess.run([*command, "--workers", str(workers)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return Timing(**json.loads(ended.stdout))


def once(kind: str, case: Case, workers: int) -> Timing:
    """Two epochs in this process."""
    loader_class: Any = (
        torch.utils.data.DataLoader if kind == "torch" else importlib.import_module("keepfed").DataLoader
    )
    batches = 4 * workers
    dataset = Ready(BATCH * batches, case.holds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores: that is the question
        loader = loader_class(dataset, BATCH, num_workers=workers, multiprocessing_context=case.method)
        first, again = epoch(loader, workers), epoch(loader, workers)
    return Timing(first[0], first[1], again[0], again[1], first[2] + again[2])


def epoch(loader: Any, workers: int) -> tuple[float, float, float]:
    """Seconds to the first batch, to the first 2 x workers batches, and the sum of everything."""
    started_s = time.perf_counter()
    first_s = steady_s = checksum = 0.0
    for number, batch in enumerate(loader, 1):
        if number == 1:
            first_s = time.perf_counter() - started_s
        if number == 2 * workers:
            steady_s = time.perf_counter() - started_s
        checksum += float(batch.sum())
    return first_s, steady_s, checksum


def summed_up(case: Case, figure: str, pairs: Sequence[tuple[Timing, Timing]], *, judged: bool) -> Row:
    """One figure of one case from its pairs of (torch, candidate)."""
    times = [(getattr(left, figure), getattr(right, figure)) for left, right in pairs]
    ratio = median_interval([left / right for left, right in times])
    bar = BAR if judged and figure == "first_s" and case.method == "spawn" and case.holds in PARTS else None
    return Row(
        case=case,
        figure=figure,
        torch_s=float(np.median([left for left, _ in times])),
        candidate_s=float(np.median([right for _, right in times])),
        ratio=ratio,
        bar=bar,
        met=None if bar is None else ratio.low >= bar,
    )


HEADER = f"{'method':12}{'dataset':16}{'until':24}{'torch s':>9}{'other s':>9}{'ratio':>8}  {'95 % interval':18}bar"


def line(row: Row) -> str:
    """A row of the printed table."""
    interval = f"[{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
    holds = "small" if row.case.holds == "nothing" else f"64 MiB of {row.case.holds}"
    verdict = "-" if row.bar is None else f"{row.bar:g}x {'met' if row.met else 'missed'}"
    times = f"{row.torch_s:9.3f}{row.candidate_s:9.3f}{row.ratio.median:8.2f}"
    return f"{row.case.method:12}{holds:16}{FIGURES[row.figure]:24}{times}  {interval:18}{verdict}"


def record(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.startup/1",
        "candidate": args.candidate,
        "torch": torch.__version__,
        "workers": args.workers,
        "pairs": args.pairs,
        "quick": args.quick,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
