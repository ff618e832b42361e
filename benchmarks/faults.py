"""What survives when things go wrong: torch's DataLoader against keepfed's, fault by fault.

Question: when a worker dies, is stopped or never returns from a sample, when memory or descriptors are scarce, when the
training process is killed: does the program get every sample once, in order, and unaltered? How long until it is told, how
long until it goes on, and what is left behind?

Method: every cell (loader, fault, start method, kind of dataset) is a program in a process and session of its own, three
workers, 60 batches of four numbered samples, and a loop that only reads. `fault_cases.py` has the faults and the samples,
`fault_program.py` is the program, `fault_cells.py` watches it from outside. "Told" is the time from the strike to the first
line in the log or the exception in next(); "goes on" is that to the first batch of a worker that did not live when it struck. A
program hangs when no batch comes for 30 s (60 s for the first), and is then killed. Left behind is what still runs a second
after the end. Draws from the workers' random streams must be those of torch's loader in a run without faults.

keepfed's cells must all survive and leave nothing, with deaths made good within a second under fork.

Re-run (about half an hour on two quiet cores; exit status 1 if keepfed missed something):

    python benchmarks/faults.py --json faults.json --markdown faults.md
    python benchmarks/faults.py --quick                              # keepfed, fork: two minutes
    python benchmarks/faults.py --fault killed sleep --method spawn --only torch
    python benchmarks/faults.py --known faults.json --json faults.json      # go on after an interruption
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fault_cases import FAULTS, KINDS, METHODS, WORKERS
from fault_cells import GONE_S, HANGS_S, LEAVES_S, STARTS_S, Outcome, in_a_fresh_process
from fault_program import Cell

LOADERS = ("torch", "keepfed")
REDONE_S = 1.0
"""From a death to the first batch of the new worker, under fork."""
REFERENCE = Cell("torch", "none", "fork", "map")
"""Whose draws all others must equal: worker k makes the same batches of a stream as of indices."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cells and print a line for each; 1 when keepfed missed something."""
    args = parse_args(argv)
    began = {"date": time.strftime("%Y-%m-%d"), "load_average": os.getloadavg()[0]}
    digest = in_a_fresh_process(REFERENCE).digest
    print(HEADER, flush=True)
    known = known_from(args.known)
    outcomes, missed = [], []
    for cell in cells(args):
        outcomes.append(known.get(cell) or in_a_fresh_process(cell))
        found = missed_by(outcomes[-1], digest)
        missed += [f"{cell}: {what}" for what in found]
        print(line(outcomes[-1], found), flush=True)
        if args.json is not None:  # after every cell: a run of half an hour may be interrupted
            args.json.write_text(json.dumps(record(began, outcomes, missed), indent=2) + "\n", encoding="utf-8")
    if args.markdown is not None:
        args.markdown.write_text(markdown(outcomes), encoding="utf-8")
    print("\n".join(f"missed: {what}" for what in missed))
    return 1 if missed else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="What torch's DataLoader and keepfed's make of faults.")
    parser.add_argument(
        "--fault", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS)
    )
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", choices=LOADERS, default="", help="only this loader")
    parser.add_argument("--quick", action="store_true", help="keepfed by fork alone")
    parser.add_argument(
        "--known",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="cells that these --json files have are not run",
    )
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="write what came of each cell here, too"
    )
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="write the table here, too")
    args = parser.parse_args(argv)
    if args.quick:
        args.method, args.only = ["fork"], "keepfed"
    return args


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """The cells that were asked for and can be, start method by start method: the slow ones come last."""
    for method in args.method:
        for name in args.fault:
            fault = FAULTS[name]
            for loader in [args.only] if args.only else LOADERS:
                if (loader == "torch" and fault.only_keepfed) or (method != "fork" and fault.only_fork):
                    continue
                yield from (Cell(loader, name, method, kind) for kind in args.kind)


def known_from(files: Sequence[Path]) -> dict[Cell, Outcome]:
    """What came of the cells of earlier runs."""
    found = [outcome for file in files for outcome in json.loads(file.read_text(encoding="utf-8"))["outcomes"]]
    outcomes = [Outcome(**{**fields, "cell": Cell(**fields["cell"])}) for fields in found]
    return {outcome.cell: outcome for outcome in outcomes}


def missed_by(outcome: Outcome, digest: str) -> list[str]:
    """What keepfed did not do that it should have; nothing is asked of torch."""
    cell, fault = outcome.cell, FAULTS[outcome.cell.fault]
    if cell.loader != "keepfed" or outcome.end == "skipped":
        return []
    missed = [f"{outcome.end}: {outcome.words}"] if outcome.end != "survived" else []
    missed += [f"left behind: {what}" for what in outcome.left]
    if fault.corrupt < 0 and outcome.digest not in ("", digest):
        missed.append("other draws than torch's")
    if fault.deadly and cell.method == "fork" and outcome.end == "survived":
        missed += [f"{seconds(outcome.recovered_s)} until it went on"] if (outcome.recovered_s or 99) > REDONE_S else []
    if fault.trainer_dies and (outcome.gone_s or 0) > GONE_S:
        missed.append(f"children gone after {seconds(outcome.gone_s)}")
    return missed


# ---------------------------------------------------------------------------------------------------------------- printing

HEADER = f"{'fault':16}{'method':11}{'kind':9}{'loader':8} {'outcome':9}{'told':>8}{'goes on':>9}  "


def line(outcome: Outcome, missed: Sequence[str]) -> str:
    """A row of the printed table."""
    cell = outcome.cell
    notes = [outcome.words, *outcome.left, *(["MISSED"] if missed else [])]
    if outcome.gone_s is not None:
        notes.insert(0, f"children gone after {outcome.gone_s:.2f} s")
    where = f"{cell.fault:16}{cell.method:11}{cell.kind:9}{cell.loader:8} {outcome.end:9}"
    times = f"{seconds(outcome.detected_s):>8}{seconds(outcome.recovered_s):>9}"
    return f"{where}{times}  {'; '.join(filter(None, notes))}".rstrip()[:230]


def seconds(value: float | None) -> str:
    """Two decimals; a dash where there is nothing to say."""
    return "-" if value is None else f"{value:.2f} s"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table of the document page: a row per fault, a column per loader and start method, both kinds in one cell."""
    columns = [(loader, method) for loader in LOADERS for method in METHODS]
    columns = [column for column in columns if any((o.cell.loader, o.cell.method) == column for o in outcomes)]
    rows = [["Fault", *(f"{loader}, {method}" for loader, method in columns)], ["---"] * (len(columns) + 1)]
    for name, fault in FAULTS.items():
        row = []
        for loader, method in columns:
            of = (loader, name, method)
            row.append([o for o in outcomes if (o.cell.loader, o.cell.fault, o.cell.method) == of])
        if any(row):
            rows.append([fault.title, *map(in_words, row)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def in_words(outcomes: Sequence[Outcome]) -> str:
    """What came of the cells of one loader, fault and start method (kinds of dataset); told apart where they differ."""
    gone_s = [outcome.gone_s for outcome in outcomes if outcome.gone_s is not None]
    if gone_s:
        return f"gone after {max(gone_s):.2f} s" if max(gone_s) < LEAVES_S else f"still there after {LEAVES_S:g} s"
    said = {outcome.cell.kind: ENDS[outcome.end] for outcome in outcomes}
    if len(set(said.values())) > 1:
        text = "; ".join(f"{kind}: {end}" for kind, end in said.items())
    else:
        text = next(iter(said.values()), "–")
    for word, name in (("told", "detected_s"), ("on", "recovered_s")):
        found = [value for outcome in outcomes if (value := getattr(outcome, name)) is not None]
        if found and not (word == "told" and text == ENDS["hangs"]):
            text += f", {word} {max(found):.2f} s"
    left = max((len(outcome.left) for outcome in outcomes), default=0)
    return f"{text}, leaves {left} process{'es' if left > 1 else ''}" if left else text


ENDS = {"survived": "✓", "error": "gives up", "hangs": "**hangs**", "wrong": "**wrong batches**", "skipped": "not run"}


def record(began: dict[str, Any], outcomes: Sequence[Outcome], missed: Sequence[str]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.faults/1",
        **began,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "workers": WORKERS,
        "hangs_s": HANGS_S,
        "starts_s": STARTS_S,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "missed": list(missed),
    }


if __name__ == "__main__":
    sys.exit(main())
