"""Measures one cell: every run a fresh process with a time limit, and what is compared side by side in one round.

    cell      sweep (once) ─→ its best plan, the rivals' plans ─→ rounds: every plan and ours, order turned from round to round
    change    sweep of the changed load ─→ rounds: the best plan, ours through the change, the best plan
    settled   stretches of ours and of the same plan fixed, in turn, in one process

The best of a sweep is the largest of many noisy numbers and looks better than it is: its figure there is used for nothing but
choosing it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fault_cells import end_session
from zoo_cells import ALL_COUNTS, MOST_WORKERS, Cell, Change, cores, step_seconds
from zoo_figures import GOOD, cpu_per_batch_s, key, rate
from zoo_program import BUCKET_S, Spec
from zoo_rivals import climb, lightning, torch_default, torch_suggested
from zoo_workloads import WORKLOADS, Workload

PROGRAM = Path(__file__).resolve().parent / "zoo_program.py"
CARRY_S = 2e-4
"""A batch takes about so long to be carried over, however little it costs."""
STARTS_S = 60.0
"""A process may take so much longer than what it measures."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How thoroughly everything is measured."""

    counts: tuple[int, ...] = ALL_COUNTS
    """Worker counts of a sweep."""
    one_prefetch: bool = False
    """Whether a sweep leaves out the other prefetch factors of a workload."""
    seed: int = 0
    rounds: int = 4
    """Of every cell."""
    rival_rounds: int = 2
    """Of them with the rivals."""
    changed_rounds: int = 2
    twins: int = 3
    """Twice so many processes with settled stretches."""
    pairs: int = 10
    """Of stretches in each of them."""
    warm: float = 1.0
    """Times the seconds that a workload is given to become warm."""
    measure_s: float = 3.0
    """Of every stretch."""
    settle_s: float = 60.0
    after_s: float = 40.0
    """Watched after a change of load."""

    @classmethod
    def small(cls, seed: int) -> Effort:
        """What a quick run does."""
        return cls(
            (0, 1, 2, 4, 8),
            one_prefetch=True,
            seed=seed,
            rounds=1,
            rival_rounds=1,
            changed_rounds=1,
            twins=1,
            pairs=3,
            measure_s=1.0,
            warm=0.6,
            after_s=20.0,
        )

    @classmethod
    def medium(cls, seed: int) -> Effort:
        """What a run of an hour and a half does: a coarser sweep, fewer rounds, shorter stretches."""
        counts = (0, 1, 2, 3, 4, 8)
        return cls(counts, seed=seed, rounds=2, rival_rounds=1, changed_rounds=1, twins=1, measure_s=2.0)


class Failed(Exception):
    """A run brought no result."""


@dataclass(slots=True)
class Bench:
    """Runs programs, and knows what workloads cost here."""

    effort: Effort
    folder: Path
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    """Calibrations by workload; kept in the results, so that an interrupted benchmark goes on with the same steps."""
    say: Callable[[str], None] = print

    def run(self, spec: Spec) -> dict[str, Any]:
        """One process. Raises Failed when it ends badly or takes too long."""
        spec = replace(spec, folder=str(self.folder), seed=self.effort.seed)
        waits_s = spec.settle_s * 2 + spec.stay_s + spec.after_s if spec.role in {"auto", "follow", "settled"} else 0.0
        limit_s = STARTS_S + waits_s + 6 * (spec.warm_s + spec.measure_s) + spec.measure_s * 3 * spec.pairs
        return in_a_fresh_process(spec, limit_s)

    def spec(self, workload: str, step: str, role: str, **more: Any) -> Spec:
        """What a program of this cell is told; `more` goes before what the effort says."""
        costs, kind = self.cost_of(workload), WORKLOADS[workload]
        # Work is measured by the CPU clock, which a neighbour does not slow down.
        fetch_s = costs["fetch_s" if kind.waits else "fetch_cpu_s"]
        step_s = step_seconds(kind, step, fetch_s, cores()) if step else 0.0
        rounds = max(1, round(step_s * costs["rounds_per_s"])) if kind.computes and step_s else 0
        batch_s = max(step_s, fetch_s / (MOST_WORKERS if kind.waits else cores()), CARRY_S)
        settings = {
            "step_s": step_s,
            "step_rounds": rounds,
            "warm_s": self.effort.warm * kind.warm_s,
            "epoch_batches": max(100, round(kind.epoch_s / batch_s)),
            "measure_s": self.effort.measure_s,
            "settle_s": self.effort.settle_s,
            "after_s": self.effort.after_s,
        }
        return Spec(role, workload, str(self.folder), **(settings | more))

    def cost_of(self, workload: str) -> dict[str, float]:
        """What a batch takes in a process of its own; measured once per benchmark."""
        if workload not in self.costs:
            self.costs[workload] = self.run(Spec("calibrate", workload, "", measure_s=self.effort.measure_s))
        return self.costs[workload]


def in_a_fresh_process(spec: Spec, limit_s: float) -> dict[str, Any]:
    """What the program prints. Whatever it leaves behind is ended with it."""
    command = [sys.executable, "-W", "ignore", str(PROGRAM), json.dumps(asdict(spec))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed(f"{spec}: no result after {limit_s:.0f} s") from None
        finally:
            end_session(process.pid)
    if process.returncode:
        raise Failed(f"{spec}: exit status {process.returncode}\n{err[-4000:]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


# -------------------------------------------------------------------------------------------------------------------- cells


def measured_cell(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The sweep, the rivals, and the rounds of one cell."""
    workload = WORKLOADS[cell.workload]
    spec = bench.spec(cell.workload, cell.step, "fixed")
    began_s = time.monotonic()
    swept = {key(*plan): bench.run(with_plan(spec, plan)) for plan in plans(workload, bench.effort)}
    sweep_s = time.monotonic() - began_s
    oracle = max(swept, key=lambda plan: rate(swept[plan]))
    bench.say(f"{cell.name}: best of the sweep {oracle}, {rate(swept[oracle]):.1f} batches/s")
    rivals, bare = rivals_of(bench, cell)
    others = {*rivals.values(), cheapest_swept(swept)} - {oracle}
    ours, rounds = bench.spec(cell.workload, cell.step, "auto"), []
    for number in range(bench.effort.rounds):
        fixed = [oracle, *sorted(others if number < bench.effort.rival_rounds else {cheapest_swept(swept)} - {oracle})]
        runs = {plan: with_plan(spec, plan_of(plan)) for plan in reversed(fixed)} | {"auto": ours}
        rounds.append(one_round(bench, runs, turned=number % 2 == 1))
    return {
        "kind": "cell",
        "name": cell.name,
        "step_s": spec.step_s,
        "batch_size": workload.batch_size,
        "sweep": swept,
        "sweep_s": sweep_s,
        "oracle": oracle,
        "rivals": rivals,
        "bare_batch_s": bare,
        "rounds": rounds,
    }


def one_round(bench: Bench, runs: dict[str, Spec], *, turned: bool) -> dict[str, Any]:
    """Every one of these once; the last two are neighbours either way."""
    names = list(runs)
    return {name: bench.run(runs[name]) for name in (reversed(names) if turned else names)}


def plans(workload: Workload, effort: Effort) -> Iterable[tuple[int, int]]:
    """The plans of a sweep."""
    for prefetch in workload.prefetches[: 1 if effort.one_prefetch else None]:
        for count in effort.counts:
            if count or prefetch == workload.prefetches[0]:
                yield count, prefetch


def with_plan(spec: Spec, plan: tuple[int, int]) -> Spec:
    """The same program with this plan."""
    return replace(spec, count=plan[0], prefetch=plan[1])


def plan_of(name: str) -> tuple[int, int]:
    """A plan from its key."""
    count, prefetch = name.split("x")
    return int(count), int(prefetch)


def cheapest_swept(swept: dict[str, Any]) -> str:
    """The plan that takes the fewest CPU seconds of those that the sweep found good."""
    best = max(map(rate, swept.values()))
    return min(
        (plan for plan in swept if rate(swept[plan]) >= GOOD * best), key=lambda plan: cpu_per_batch_s(swept[plan])
    )


def rivals_of(bench: Bench, cell: Cell) -> tuple[dict[str, str], dict[int, float]]:
    """The plans of the others, and the seconds per batch of the bare loader that the climb looked at."""
    bare: dict[int, float] = {}

    def batch_s(count: int) -> float:
        if count not in bare:
            spec = bench.spec(cell.workload, "", "fixed", count=count, measure_s=bench.effort.measure_s / 2)
            bare[count] = 1 / rate(bench.run(spec))
        return bare[count]

    chosen = {
        "torch default": torch_default(),
        "torch suggested": torch_suggested(cores()),
        "Lightning": lightning(cores()),
        "climb": climb(batch_s, MOST_WORKERS),
    }
    return {name: key(count, 2) for name, count in chosen.items()}, bare


# ------------------------------------------------------------------------------------------------------------------ changes


def measured_change(bench: Bench, change: Change) -> dict[str, Any]:
    """Ours through a change of load, beside the best plan for the load after it."""
    # The balanced step is what the load becomes: it is half of the demand before.
    spec = bench.spec(change.workload, "balanced", "fixed", change=change.what, epoch_batches=100_000)
    spec = replace(spec, **before_change(change.what, spec))
    swept = {key(count, 2): bench.run(with_plan(spec, (count, 2))) for count in bench.effort.counts}
    best = max(swept, key=lambda plan: rate(swept[plan]))
    bench.say(f"{change.name}: best after the change {best}, {rate(swept[best]):.1f} batches/s")
    rounds = []
    for _ in range(bench.effort.changed_rounds):
        fixed = with_plan(spec, plan_of(best))
        runs = {"before": fixed, "follow": replace(spec, role="follow"), "after": fixed}
        rounds.append(one_round(bench, runs, turned=False))
    return {
        "kind": "change",
        "name": change.name,
        "step_s": spec.step_s,
        "bucket_s": BUCKET_S,
        "sweep": swept,
        "oracle": best,
        "rounds": rounds,
    }


def before_change(what: str, spec: Spec) -> dict[str, Any]:
    """The step before the change, so that the demand after it is the balanced one."""
    return {} if what == "cores-halve" else {"step_s": 2 * spec.step_s, "step_rounds": 2 * spec.step_rounds}


def measured_settled(bench: Bench, workload: str) -> dict[str, Any]:
    """CPU seconds per batch of a settled loader beside a fixed one, in processes that fork them in turned order."""
    spec = bench.spec(workload, "step", "settled", pairs=bench.effort.pairs, epoch_batches=100_000)
    runs = [bench.run(replace(spec, turned=turned)) for _ in range(bench.effort.twins) for turned in (False, True)]
    return {"kind": "settled", "name": f"{workload}/settled", "step_s": spec.step_s, "runs": runs}
