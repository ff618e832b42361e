"""Whether `num_workers="auto"` chooses as well as an exhaustive sweep would, over a zoo of programs.

Question: for nine kinds of samples and three steps each (`zoo_workloads.py`, `zoo_cells.py`), what share of the best plan's
throughput does the plan reach that was chosen while the program trained; at what CPU cost; how soon, and what did the search
cost? Does it come back when the load changes? What does it cost once it has settled? And what would torch's default, torch's
and Lightning's suggestions, and a climb such as Paddle's have reached (`zoo_rivals.py`)?

Method: every run is a program in a fresh process (`zoo_program.py`), the same loop for all, with the whole step measured in
stretches of a few seconds whose workers are warm. All plans run on our loader, so that choices are compared and not
transports. A sweep over the worker counts finds the oracle, the climb finds its count, and then all of them run again side by
side with ours, which searches anew each time, in rounds of turned order (`zoo_measure.py`): the best of a sweep is
the largest of many noisy numbers and looks better than it is. Steps are set by what a batch costs on this machine, which is
measured first, so run it where nothing else runs. `zoo_figures.py` makes shares of what was measured, `zoo_verdicts.py` has what is
promised and judges it by whole intervals, so that what the noise hides is called open.

Re-run (exit status 1 if a promise is missed or a program fails):

    python benchmarks/tuning.py --quick                                  # five minutes on two cores
    python benchmarks/tuning.py --medium                                 # an hour and a half
    python benchmarks/tuning.py --json tuning.json --markdown tuning.md  # some hours; the same line goes on where it was stopped
    python benchmarks/tuning.py --cells photos reads/balanced photos/cores-halve rows/settled
    python benchmarks/tuning.py --seed 7 --json tuning-7.json            # other samples
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from zoo_cells import CELLS, CHANGED, QUICK, SETTLED, cores
from zoo_figures import settling, share_of
from zoo_measure import Bench, Effort, Failed, measured_cell, measured_change, measured_settled
from zoo_table import markdown, of_kind
from zoo_verdicts import bars

SCHEMA = "keepfed.benchmark.tuning/1"
Job = Callable[[Bench], dict[str, Any]]


def jobs() -> dict[str, Job]:
    """Everything that can be measured, by name."""
    found: dict[str, Job] = {cell.name: partial(measured_cell, cell=cell) for cell in CELLS}
    found |= {change.name: partial(measured_change, change=change) for change in CHANGED}
    return found | {f"{name}/settled": partial(measured_settled, workload=name) for name in SETTLED}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not in the results yet, print the tables; 1 when something was missed or failed."""
    args = parse_args(argv)
    results = results_from(args.json, began(args))
    bench = Bench(args.effort, data_folder(args), results["costs"], partial(print, flush=True))
    wanted = jobs()
    for name in args.cells:
        if "failed" not in results["records"].get(name, {"failed": "not yet"}):
            bench.say(f"{name}: measured before")
            continue
        results["records"][name] = recorded(name, wanted[name], bench)
        bench.say(line(results["records"][name]))
        if args.json is not None:  # after every one: a run of hours may be interrupted
            written_whole(args.json, json.dumps(results, indent=1) + "\n")
    records = list(results["records"].values())
    judged = args.effort.rounds > 1
    report = f"{headline(results)}\n\n{markdown(records, judged=judged)}"
    if args.markdown is not None:
        written_whole(args.markdown, report)
    print(f"\n{report}")
    kinds = (of_kind(records, kind) for kind in ("cell", "change", "settled"))
    missed = any(bar.met is False for bar in bars(*kinds, judged=judged))
    return 1 if missed or any("failed" in record for record in records) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in; `effort` and full names in `cells`."""
    parser = argparse.ArgumentParser(description="What num_workers='auto' chooses, beside a sweep and beside others.")
    parser.add_argument(
        "--cells",
        nargs="+",
        default=None,
        metavar="NAME",
        help="such as photos, photos/loader, reads/step-halves, rows/settled (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, one round each")
    parser.add_argument("--medium", action="store_true", help="everything, two rounds, a coarser sweep")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default 0)")
    parser.add_argument("--rounds", type=int, default=None, help="rounds per cell (default 4)")
    parser.add_argument("--measure-s", type=float, default=None, help="seconds per stretch (default 3)")
    parser.add_argument("--data", type=Path, default=None, metavar="FOLDER", help="where the samples' files are kept")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="results; what it has is not run again")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="write the tables here, too")
    args = parser.parse_args(argv)
    effort = (
        Effort.small(args.seed) if args.quick else Effort.medium(args.seed) if args.medium else Effort(seed=args.seed)
    )
    changes = {"rounds": args.rounds, "measure_s": args.measure_s}
    args.effort = replace(effort, **{name: value for name, value in changes.items() if value is not None})
    if args.effort.rounds < 1 or args.effort.measure_s <= 0:
        parser.error("--rounds must be at least 1 and --measure-s above 0")
    asked = args.cells or (QUICK if args.quick else list(jobs()))
    args.cells = [name for one in asked for name in named(one)]
    if not all(args.cells) or not args.cells:
        parser.error(f"--cells {' '.join(asked)}: each is one of {', '.join(jobs())}, or the part before the slash")
    return args


def named(asked: str) -> list[str]:
    """The jobs of this name, or of this workload; one empty name if there is none."""
    found = [name for name in jobs() if asked == name or asked == name.partition("/")[0]]
    return found or [""]


def began(args: argparse.Namespace) -> dict[str, Any]:
    """A results document without results."""
    return {
        "schema": SCHEMA,
        "date": time.strftime("%Y-%m-%d"),
        "cores": cores(),
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "effort": json.loads(json.dumps(asdict(args.effort))),
        "costs": {},
        "records": {},
    }


def results_from(file: Path | None, fresh: dict[str, Any]) -> dict[str, Any]:
    """Those of an interrupted run, or none yet. SystemExit when the file holds something that cannot be gone on with."""
    if file is None or not file.exists():
        return fresh
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key in ("schema", "cores", "torch", "effort"):
        if found.get(key) != fresh[key]:
            raise SystemExit(
                f"{file}: measured with {key} {found.get(key)!r}, and this run has {fresh[key]!r}. "
                "Go on with the same settings, or name another file."
            )
    return found


def data_folder(args: argparse.Namespace) -> Path:
    """Where files of the datasets are made once; of this user alone."""
    owner = os.getuid() if hasattr(os, "getuid") else "files"
    folder = args.data or Path(tempfile.gettempdir(), f"keepfed-zoo-{owner}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise SystemExit(f"{folder} belongs to another user: name another folder with --data")
    return folder


def recorded(name: str, job: Job, bench: Bench) -> dict[str, Any]:
    """What came of one job; a program that fails is recorded as such, and the others go on."""
    began_s = time.monotonic()
    try:
        record = job(bench)
    except Failed as error:
        record = {"kind": "failed", "name": name, "failed": str(error)}
    return record | {"seconds": round(time.monotonic() - began_s, 1)}


def written_whole(file: Path, text: str) -> None:
    """The new text or the old one, whenever the power fails."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def line(record: dict[str, Any]) -> str:
    """What is printed when a job is done."""
    took = f"{record['name']}: {record['seconds']:.0f} s"
    if "failed" in record:
        return f"{took}, FAILED: {record['failed']}"
    if record["kind"] == "cell":
        share, how = share_of(record, "auto"), settling(record)
        plans = " ".join("x".join(map(str, found["auto"]["plan"] or "?")) for found in record["rounds"])
        return (
            f"{took}; ours {plans}, {share.median:.3f} [{share.low:.3f}, {share.high:.3f}] of the oracle "
            f"{record['oracle']}; settled {how.settled}/{how.searches} in {how.seconds:.0f} s, {how.moves} moves at most"
        )
    return took


def headline(results: dict[str, Any]) -> str:
    """Where and how it was measured."""
    effort = results["effort"]
    return (
        f"{results['date']}, {results['cores']} cores ({results['machine']}), torch {results['torch']}, Python "
        f"{results['python']}, load average {results['load_average']:.1f} at the start; seed {effort['seed']}, "
        f"{effort['rounds']} rounds, stretches of {effort['measure_s']:g} s"
    )


if __name__ == "__main__":
    sys.exit(main())
