"""Whether `keepfed tune` settles where an exhaustive sweep of num_workers would.

Question: for a program of `programs/`, how fast does it train at every worker count, which count does tune settle on, and
what share of the best throughput does that count reach?

Method, all in one run: the unmodified program once per count (`--num-workers N`), torch's loader, for a number of steps
that it logs itself; then `keepfed tune` on the program with its own count; then the sweep's best count and tune's, in
turned order (ABBA), because the best of many noisy runs looks better than it is. The share is the median over those pairs,
with a 95 % bootstrap interval. A throughput is the mean of the windows that the program logs, without the first, in which
the workers start. Without `--tune` only the sweep is done.

Result:

    2026-11-20, 2 cores (AMD EPYC, virtual), torch 2.13.0, Python 3.11.7, otherwise idle; waiting.py, 150 steps per count

    workers       0      1      2      3      4      5      6      7      8
    batches/s  4.92   6.12  12.31  18.47  23.85  23.95  24.06  24.01  23.89

    best of the sweep: 6 workers
    keepfed tune: 4 workers, prefetch 2, 2 moves in 20 s, settled, limited by step
    tuned / best: 0.998 [0.986, 0.999], bar 0.95 met

Re-run (some five minutes on two cores; exit status 1 if the share's interval ends below 95 %):

    python benchmarks/workers_sweep.py waiting --tune --json waiting.json
    python benchmarks/workers_sweep.py cheap --max-workers 4 --tune
    python benchmarks/workers_sweep.py ../examples/photos/train.py --max-workers 4 --tune -- --gpu-step-ms 110
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pairs import Interval, in_turn, median_interval

PROGRAMS = Path(__file__).resolve().parent / "programs"
BAR = 0.95
THROUGHPUT = re.compile(r"([\d.]+) (batches|img)/s$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Point:
    """What the program reached at one count."""

    num_workers: int
    throughput: float
    """In the unit that the program logs: batches or images per second."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tune settled on, from its own report."""

    num_workers: int
    prefetch_factor: int | None
    batches_per_s: float | None
    moves: int
    seconds: float
    settled: bool
    limited_by: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sweep, tune's answer, and how they compare in fresh runs."""

    sweep: tuple[Point, ...]
    tuned: Tuned
    best_num_workers: int
    share: Interval
    """Throughput at tune's count as a share of that at the sweep's best, in pairs of fresh runs."""
    met: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, tune, compare; 1 when tune's count reaches less than 95 % of the best."""
    args = parse_args(argv)
    counts = range(args.min_workers, args.max_workers + 1)
    sweep = []
    for count in counts:
        sweep.append(measure(args, count))
        print(f"num_workers {count}: {sweep[-1].throughput:8.2f}/s", flush=True)
    found: dict[str, Any] = {"sweep": [asdict(point) for point in sweep]}
    missed = False
    if args.tune:
        comparison = compare(args, sweep, tune(args))
        print(verdict(comparison), flush=True)
        found, missed = asdict(comparison), not comparison.met
    if args.json is not None:
        record = {"schema": "keepfed.benchmark.workers_sweep/1", "program": args.program.name, "steps": args.steps}
        args.json.write_text(json.dumps(record | found, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(
        description="Sweep num_workers of a program and compare keepfed tune with it.",
        epilog="What follows -- goes to the program.",
    )
    parser.add_argument("program", type=program_file, help="a name from programs/, or the path of a script")
    parser.add_argument("--min-workers", type=int, default=0)
    parser.add_argument("--max-workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150, help="training steps per count (default 150)")
    parser.add_argument("--log-every", type=int, default=25, help="steps per window that the program logs (default 25)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of fresh runs, best against tuned (default 4)")
    parser.add_argument("--tune", action="store_true", help="run keepfed tune, too, and compare")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result here, too")
    own, arguments = split(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    args.arguments = arguments
    if not 0 <= args.min_workers <= args.max_workers:
        parser.error("--min-workers and --max-workers must be 0 or more, in this order")
    if args.steps < 2 * args.log_every:
        parser.error(
            "--steps must be at least twice --log-every: the first window, in which workers start, is not used"
        )
    return args


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those of the program after `--`."""
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def program_file(name: str) -> Path:
    """The script that is meant: one of programs/ by its name, any other by its path."""
    for path in (PROGRAMS / f"{name}.py", Path(name), Path(__file__).resolve().parent / name):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in PROGRAMS.glob("*.py")))
    raise argparse.ArgumentTypeError(f"no program {name!r}: give one of {known}, or the path of a script")


def measure(args: argparse.Namespace, count: int) -> Point:
    """One run of the program at `count` workers, stopped after `--steps` steps."""
    flags = ["--num-workers", str(count), "--log-every", str(args.log_every), "--epochs", "1"]
    command = [sys.executable, "-W", "ignore", str(args.program), *args.arguments, *flags]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for text in program.stdout:
            lines += [text] if " step " in text and THROUGHPUT.search(text) else []
            if len(lines) * args.log_every >= args.steps:
                program.terminate()
                break
        program.communicate()
    if len(lines) < 2:
        raise SystemExit(
            f"{args.program.name} --num-workers {count} logged {len(lines)} windows, at least 2 are needed"
        )
    return Point(num_workers=count, throughput=throughput("".join(lines)))


def throughput(log: str) -> float:
    """Mean over the windows in a program's log, without the first.

    Windows have equally many steps, so the mean over time is the harmonic one.
    """
    values = [float(match[1]) for match in THROUGHPUT.finditer(log)][1:]
    return 1 / fmean(1 / value for value in values)


def tune(args: argparse.Namespace) -> Tuned:
    """Let keepfed tune the program as it stands; its plan and records go to a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        report_file = Path(folder, "tune.json")
        command = [sys.executable, "-m", "keepfed", "tune", "--json", str(report_file), "--"]
        command += [sys.executable, "-W", "ignore", str(args.program), *args.arguments]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False)
        if not report_file.exists():
            raise SystemExit(f"keepfed tune ended with {done.returncode} and wrote no report")
        return tuned_from(json.loads(report_file.read_text(encoding="utf-8")))


def tuned_from(report: dict[str, Any]) -> Tuned:
    """The first loader of a `keepfed.tune/1` report; these programs have one."""
    loader = report["loaders"][0]
    return Tuned(
        num_workers=loader["after"]["num_workers"],
        prefetch_factor=loader["after"]["prefetch_factor"],
        batches_per_s=loader["after"]["batches_per_s"],
        moves=len(loader["moves"]),
        seconds=loader["seconds"],
        settled=loader["settled"],
        limited_by=loader["limited_by"],
    )


def compare(args: argparse.Namespace, sweep: Sequence[Point], tuned: Tuned) -> Comparison:
    """Measure the best of the sweep and tune's count again, side by side."""
    best = max(sweep, key=lambda point: point.throughput).num_workers
    shares = [1.0] if best == tuned.num_workers else paired_shares(args, best, tuned.num_workers)
    share = median_interval(shares)
    return Comparison(sweep=tuple(sweep), tuned=tuned, best_num_workers=best, share=share, met=share.low >= BAR)


def paired_shares(args: argparse.Namespace, best: int, tuned: int) -> list[float]:
    """Throughput at tune's count as a share of the best count's, from neighbouring runs in turned order."""
    runs = (partial(measure, args, count) for count in (best, tuned))
    return [right.throughput / left.throughput for left, right in in_turn(args.pairs, *runs)]


def verdict(comparison: Comparison) -> str:
    """What is printed below the sweep."""
    tuned, share = comparison.tuned, comparison.share
    return (
        f"best of the sweep: {comparison.best_num_workers} workers\n"
        f"keepfed tune: {tuned.num_workers} workers, prefetch {tuned.prefetch_factor}, {tuned.moves} moves in "
        f"{tuned.seconds:.0f} s, {'settled' if tuned.settled else 'NOT settled'}, limited by {tuned.limited_by}\n"
        f"tuned / best: {share.median:.3f} [{share.low:.3f}, {share.high:.3f}], bar {BAR:g} "
        f"{'met' if comparison.met else 'missed'}"
    )


if __name__ == "__main__":
    sys.exit(main())
