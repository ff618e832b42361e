"""What it costs to be able to replace any worker at any moment: heartbeats, notes, histories and the watchdog.

Question: with two persistent workers, how much more CPU time does a batch take than with a loader that could neither say
what its workers are doing nor replace one of them?

Method: both loaders live in one process, one after the other in turned order from pair to pair (ABBA, `pairs.py`), an epoch
each; each case in several processes, since where a process happens to have its memory is worth a percent. Compared are CPU
seconds of the trainer and its workers per batch (clock_gettime(2) of each process, so that starting them does not count),
which other programs disturb less than time by the clock. The figure is the median of the ratios (with / without) over all
pairs, with a 95 % bootstrap interval.

Without: parts are replaced by ones that do nothing, here and only here (`without`): heartbeats and watchdog, or the notes and
histories by which a replacement draws what the dead worker would have drawn, or all of them. There is no such switch in the
product. What cannot be taken out is the same on both sides: slots and sockets of their own for every worker, answers that
say which task they are for.

A bar counts as met when the upper end of the interval is at most 1.01, as missed when the lower end is above it, and as open
in between. Exit status 1 if one is missed.

Result:

    2026-11-21, 2 cores (AMD EPYC, virtual), torch 2.13.0, Python 3.11.7, idle but for the last row (load average 13 to 17),
    2 workers, 300 to 900 pairs in 2 or 3 processes (last row: 40 in 2)

    batch                     without      without us    with us   ratio  95 % interval     bar
    64x1024 float32           all               237.0      249.7  1.0555  [1.0460, 1.0692]  1.01x missed
    8x16 float32              all               155.4      165.3  1.0606  [1.0433, 1.0752]  1.01x missed
    dict of 6, batch 32       all               245.3      253.4  1.0399  [1.0293, 1.0542]  1.01x missed
    work-bound, 5 ms/sample   all             41038.5    41341.9  1.0076  [1.0045, 1.0162]  1.01x open

    Missed for batches that cost their workers next to nothing: 8 to 13 us each, of which the calls timed alone explain 2 to 4.
    With against with came out at 1.011 [0.995, 1.026] (8x16, 1,200 pairs), so a bar of 1 % is at the edge of what this can
    tell. For samples that take work, what is left are the notes of the random states, a three hundredth at most.

Re-run (some ten minutes on two quiet cores):

    python benchmarks/overhead.py --json overhead.json
    python benchmarks/overhead.py --null             # with against with: how wide is the noise?
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from batches import CASES, Case
from pairs import Interval, in_turn, median_interval

from keepfed import DataLoader
from keepfed.heartbeat import Pulse
from keepfed.loader import queues
from keepfed.loader.history import History
from keepfed.loader.notes import Notes
from keepfed.loader.watcher import Watcher
from keepfed.loader.weight import Scales

WORKERS = 2
BAR = 1.01
NAMES = ("8x16 float32", "64x1024 float32", "dict of 6, batch 32", "work-bound, 5 ms/sample")
BATCHES = 200
"""At most so many in an epoch: short ones, since what disturbs both sides of a pair alike cancels out."""
PARTS = ("all", "guards", "redo")
"""What is left out: heartbeats, watchdog and scales; or notes and histories; or all of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one case."""

    case: str
    part: str
    """What is left out on the other side."""
    without_us: float
    """CPU microseconds of trainer and workers per batch, median."""
    with_us: float
    ratio: Interval
    met: bool | None
    """None: the interval holds the bar, or nothing is judged."""


def nothing(*_: Any) -> None:
    """What takes the place of everything that is left out."""


GUARDS: dict[type, Sequence[str]] = {
    Pulse: ("batch", "phase", "idle"),
    Watcher: ("begin", "look"),
    Scales: ("perhaps_weigh",),
}
REDO: dict[type, Sequence[str]] = {
    Notes: ("thing_done",),
    History: ("task", "resume", "has_noted"),
}
LEFT_OUT = {"all": GUARDS | REDO, "guards": GUARDS, "redo": REDO, "nothing": {}}


@contextmanager
def without(part: str) -> Iterator[None]:
    """These methods do nothing in this block, and never in workers that are forked in it."""
    with ExitStack() as patches:
        for kind, methods in LEFT_OUT[part].items():
            for method in methods:
                patches.enter_context(patch.object(kind, method, nothing))
        if Pulse in LEFT_OUT[part]:
            patches.enter_context(patch.object(queues, "stamps", nothing))
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case, print the table; 1 when a bar is missed."""
    args = parse_args(argv)
    cases = [case for case in CASES if case.name in NAMES and args.case in case.name]
    if args.once:
        print(json.dumps(measured(cases[0], args)))
        return 0
    print(
        f"torch {torch.__version__}, {args.processes} processes of {args.pairs} pairs, {WORKERS} workers\n{HEADER}",
        flush=True,
    )
    rows = []
    for case in cases:
        for part in args.part:
            pairs = [pair for _ in range(args.processes) for pair in in_a_fresh_process(case, part, args)]
            rows.append(summed_up(case.name, part, pairs, judged=not (args.quick or args.null)))
            print(line(rows[-1]), flush=True)
    if args.json is not None:
        record = {
            "schema": "keepfed.benchmark.overhead/1",
            "torch": torch.__version__,
            "rows": [asdict(row) for row in rows],
        }
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if any(row.met is False for row in rows) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="CPU time per batch with heartbeats, notes and watchdog, and without.")
    parser.add_argument("--pairs", type=int, default=40, help="pairs per process (default 40)")
    parser.add_argument("--processes", type=int, default=3, help="fresh processes per case (default 3)")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS), help="what the other side has not")
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    parser.add_argument("--null", action="store_true", help="with against with: nothing should be found")
    parser.add_argument("--quick", action="store_true", help="a few batches only, to see that it runs")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if min(args.pairs, args.processes) < 1:
        parser.error("--pairs and --processes must be at least 1")
    if not any(args.case in name for name in NAMES):
        parser.error(f"--case {args.case}: none of {', '.join(NAMES)}")
    return args


def in_a_fresh_process(case: Case, part: str, args: argparse.Namespace) -> list[tuple[float, float]]:
    """The pairs of one process."""
    command = [sys.executable, __file__, "--once", "--case", case.name, "--part", part, "--pairs", str(args.pairs)]
    command += ["--quick"] * args.quick + ["--null"] * args.null
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return [(left, right) for left, right in json.loads(ended.stdout)]


def measured(case: Case, args: argparse.Namespace) -> list[tuple[float, float]]:
    """CPU seconds per batch (without, with), in this process."""
    batches = 8 if args.quick or case.work_bound else min(BATCHES, case.batches)
    dataset = case.dataset(batches * (case.batch_size or 1))
    part = "nothing" if args.null else args.part[0]
    bare, full = (started(case, dataset, left_out) for left_out in (part, "nothing"))
    return list(
        in_turn(
            args.pairs,
            partial(cpu_per_batch_s, bare, part, batches),
            partial(cpu_per_batch_s, full, "nothing", batches),
        )
    )


def started(case: Case, dataset: Any, part: str) -> DataLoader:
    """A loader whose persistent workers have carried an epoch, without this part."""
    options: dict[str, Any] = {} if case.collate_fn is None else {"collate_fn": case.collate_fn}
    loader = DataLoader(dataset, case.batch_size, num_workers=WORKERS, persistent_workers=True, **options)
    with without(part):
        for _ in loader:
            pass
    return loader


def cpu_per_batch_s(loader: Any, part: str, batches: int) -> float:
    """CPU seconds of trainer and workers per batch, over an epoch without this part."""
    clocks = [time.CLOCK_PROCESS_CPUTIME_ID, *(~worker.pid << 3 | 2 for worker in loader._iterator._workers)]
    with without(part):
        began_s = sum(map(time.clock_gettime, clocks))
        for _ in loader:
            pass
        return (sum(map(time.clock_gettime, clocks)) - began_s) / batches


def summed_up(case: str, part: str, pairs: Sequence[tuple[float, float]], *, judged: bool) -> Row:
    """The row of one case from its pairs of (without, with)."""
    ratio = median_interval([right / left for left, right in pairs])
    without_s, with_s = (median_interval([pair[side] for pair in pairs], 1).median for side in (0, 1))
    met = (ratio.high <= BAR or (None if ratio.low <= BAR else False)) if judged else None
    return Row(case, part, without_s * 1e6, with_s * 1e6, ratio, met)


HEADER = f"{'batch':26}{'without':12}{'without us':>11}{'with us':>11}{'ratio':>8}  {'95 % interval':18}bar"


def line(row: Row) -> str:
    """A row of the printed table."""
    interval = f"[{row.ratio.low:.4f}, {row.ratio.high:.4f}]"
    verdict = {True: "met", False: "missed", None: "open"}[row.met]
    return f"{row.case:26}{row.part:12}{row.without_us:11.1f}{row.with_us:11.1f}{row.ratio.median:8.4f}  {interval:18}{BAR:g}x {verdict}"


if __name__ == "__main__":
    sys.exit(main())
