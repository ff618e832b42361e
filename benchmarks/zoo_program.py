"""A program of the zoo: one training loop in a fresh process, told by its argument what to train on and what to measure.

    python zoo_program.py '{"role": "fixed", "workload": "photos", "step_s": 0.03, "count": 2, ...}'   ─→ one line of JSON

The loop is the same for every plan; only `num_workers` differs. Measured are stretches (`zoo_stretch.py`) within an
epoch whose workers are warm.

    fixed      a given plan: batches per second, CPU seconds
    auto       num_workers="auto": how the search went, and then the same
    follow     the same, whose load changes some seconds after it has settled: batches in every tenth of a second from then on
    settled    after settling, in turn with an iterator of a given plan: CPU seconds per batch of both
    calibrate  what one batch takes in a process, and how many rounds the computing step makes in a second
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pairs import in_turn
from torch.utils.data import RandomSampler
from zoo_search import changes_of_plan, records_in, search_in
from zoo_stretch import Stretch, cpu_s_of, pids_below
from zoo_workloads import CHEAP_EPOCH_S, WORKLOADS, Dearer

from keepfed import DataLoader
from keepfed.feed import RUN_VARIABLE, RunConfig, RunFolder
from keepfed.plan import Plan

LOOK_S = 0.25
"""How often an unsettled program looks into its run folder."""
FEWEST_BATCHES = 8
WATCHED_EPOCHS, WATCHED_BATCHES = 4, 20
"""A loader without workers has proven itself by then: two epochs to look, one whose first batches are compared."""
BUCKET_S = 0.1


@dataclass(slots=True)
class Spec:
    """What is asked of one process."""

    role: str
    workload: str
    folder: str
    """For the files of the datasets."""
    seed: int = 0
    step_s: float = 0.0
    step_rounds: int = 0
    """Rounds of the computing step; 0: it sleeps for `step_s`."""
    count: int = 0
    prefetch: int = 2
    epoch_batches: int = 1000
    warm_s: float = 1.0
    measure_s: float = 3.0
    settle_s: float = 60.0
    """An unsettled program is measured as it is after this time."""
    stay_s: float = 4.0
    """From settling to the change of load."""
    after_s: float = 40.0
    """From the change of load to the end."""
    change: str = ""
    """Of zoo_cells.CHANGES; "fixed" runs have it from the beginning."""
    pairs: int = 10
    """Of settled stretches."""
    turned: bool = False
    """Settled: the fixed workers are forked first. Who comes second may be faster by a tenth for good (where its memory lies)."""


SHORTEST_SLEEP_S = 1e-3
"""A sleep lasts some 60 µs longer than it was asked for, and hundreds beside neighbours (timer slack, prctl(2)): a shorter step
turns round until its time has come, as a host does that launches small kernels one after another."""


class Step:
    """The training step: sleeps as the host does while a GPU computes, or computes on the CPU."""

    def __init__(self, seconds: float, rounds: int) -> None:
        self.seconds, self.rounds = seconds, rounds
        draw = torch.Generator().manual_seed(0)
        self._left, self._right = (torch.rand((384, 384), generator=draw) for _ in range(2))

    def __call__(self) -> None:
        """One of them."""
        if self.rounds:
            for _ in range(self.rounds):
                self._left @ self._right
        elif self.seconds >= SHORTEST_SLEEP_S:
            time.sleep(self.seconds)
        elif self.seconds > 0:
            until_s = time.perf_counter() + self.seconds
            while time.perf_counter() < until_s:
                pass

    def halve(self) -> None:
        """From now on it takes half as long."""
        self.seconds, self.rounds = self.seconds / 2, max(min(1, self.rounds), self.rounds // 2)


class Program:
    """The loop of one process."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.workload = WORKLOADS[spec.workload]
        torch.manual_seed(spec.seed)
        random.seed(spec.seed)
        dataset = self.workload.dataset(Path(spec.folder), spec.seed, spec.epoch_batches * self.workload.batch_size)
        self.dataset = Dearer(dataset) if spec.change == "samples-double" else dataset
        self.step = Step(spec.step_s, spec.step_rounds)
        self.delivered = 0

    def loader(self, num_workers: Any, **options: Any) -> DataLoader:
        """The loader under test."""
        draw = torch.Generator().manual_seed(self.spec.seed)
        if self.workload.memory_limit_bytes is not None:
            options["memory_limit"] = self.workload.memory_limit_bytes
        return DataLoader(
            self.dataset,
            self.workload.batch_size,
            sampler=RandomSampler(self.dataset, replacement=True, generator=draw),  # any length, without a list of it
            num_workers=num_workers,
            collate_fn=self.workload.collate_fn,
            **options,
        )

    def batches(self, loader: Any) -> Iterator[int]:
        """Trains for ever; after each step, how many batches this epoch has had."""
        while True:
            for number, _ in enumerate(loader, 1):
                self.step()
                self.delivered += 1
                yield number

    def change_load(self) -> None:
        """What the cell's change is."""
        if self.spec.change == "step-halves":
            self.step.halve()
        elif self.spec.change == "samples-double":
            self.dataset.times.fill_(2)
        elif self.spec.change == "cores-halve":
            halve_cores()


def halve_cores() -> None:
    """What `taskset -a -p` from outside does to the whole tree."""
    usable = sorted(os.sched_getaffinity(0))
    half = set(usable[: max(1, len(usable) // 2)])
    for pid in [os.getpid(), *pids_below()]:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), half)


def measure(program: Program, numbers: Iterator[int], workers: int) -> Stretch:
    """Throughput and CPU of what runs, once it is warm and in the middle of an epoch."""
    spec, found = program.spec, Stretch()
    warm_batches = 3 * max(1, workers)
    began_s, first = time.perf_counter(), program.delivered
    warm = False
    for number in numbers:
        now_s = time.perf_counter()
        if not warm:
            warm = now_s - began_s >= spec.warm_s and program.delivered - first >= warm_batches
        if warm and not found.begun and number > warm_batches:
            found.begin(number)
        elif found.begun and number == spec.epoch_batches:
            found.end(number)
        enough = found.batches_by(number) >= FEWEST_BATCHES and found.lasts() >= spec.measure_s
        if enough or now_s - began_s > 5 * (spec.warm_s + spec.measure_s):
            break
    found.end(number)
    if not found.batches:
        raise RuntimeError(f"no stretch began within {time.perf_counter() - began_s:.0f} s")
    return found


# ------------------------------------------------------------------------------------------------------------------- roles


def fixed(spec: Spec) -> dict[str, Any]:
    """One plan, and whatever has changed from the beginning."""
    program = Program(spec)
    program.change_load()
    options = {"prefetch_factor": spec.prefetch} if spec.count else {}
    loader = program.loader(spec.count, **options)
    found = measure(program, program.batches(loader), spec.count)
    return found.found() | {"memory_bytes": loader.stats().memory_bytes}


def in_run_folder(role: Callable[[Spec, Path], dict[str, Any]], spec: Spec) -> dict[str, Any]:
    """The loader reports into a run folder, as below `keepfed tune`."""
    with tempfile.TemporaryDirectory() as start:
        folder = RunFolder.create(Path(start), RunConfig(mode="tune"))
        os.environ[RUN_VARIABLE] = str(folder.path)
        return role(spec, folder.path)


def train_until_settled(program: Program, numbers: Iterator[int], records: Path) -> None:
    """Returns when the plan has settled, or it is taking too long."""
    began_s = looked_s = time.perf_counter()
    for _ in numbers:
        now_s = time.perf_counter()
        if now_s - looked_s >= LOOK_S:
            looked_s = now_s
            settled = any(record["event"] == "settled" for record in records_in(records))
            if settled or now_s - began_s > program.spec.settle_s:
                return


def plan_of(loader: DataLoader) -> Plan:
    """The plan in force of a loader that has begun."""
    plan = loader.stats().plan
    if plan is None:
        raise RuntimeError(f"torch's own iterator runs this loader: {loader.stats().fallback}")
    return plan


def auto(spec: Spec, records: Path) -> dict[str, Any]:
    """The search, and what it came to."""
    program = Program(spec)
    loader = program.loader("auto")
    began_s, numbers = time.time(), program.batches(loader)
    train_until_settled(program, numbers, records)
    trained = {"batches": program.delivered, "trained_s": time.time() - began_s}
    train_until_it_stays(program, numbers, loader)
    found = measure(program, numbers, plan_of(loader).num_workers)
    plan, search = plan_of(loader), search_in(records_in(records), began_s)
    return found.found() | {
        "search": asdict(search) | trained,
        "plan": [plan.num_workers, plan.prefetch_factor],
        "memory_bytes": loader.stats().memory_bytes,
    }


def train_until_it_stays(program: Program, numbers: Iterator[int], loader: DataLoader) -> None:
    """Where no workers at all may be best: that begins between two epochs, after some that were watched."""
    if program.workload.epoch_s > CHEAP_EPOCH_S:
        return
    began_s, epochs, before = time.perf_counter(), 0, None
    for number in numbers:
        if number == WATCHED_BATCHES:
            epochs, last, before = epochs + 1, before, plan_of(loader)
            if epochs >= WATCHED_EPOCHS and last == before:
                return
        if time.perf_counter() - began_s > program.spec.settle_s:
            return


def follow(spec: Spec, records: Path) -> dict[str, Any]:
    """Settles, goes on for a while, changes its load, goes on."""
    program = Program(spec)
    loader = program.loader("auto")
    began_s, numbers = time.time(), program.batches(loader)
    train_until_settled(program, numbers, records)
    search = search_in(records_in(records), began_s)
    train_for(numbers, spec.stay_s)
    changed_s, changed_at = time.time(), time.perf_counter()
    program.change_load()
    counts = [0] * round(spec.after_s / BUCKET_S)
    for _ in numbers:
        bucket = int((time.perf_counter() - changed_at) / BUCKET_S)
        if bucket >= len(counts):
            break
        counts[bucket] += 1
    later = [record for record in records_in(records) if record["time_s"] > changed_s]
    windows = [record for record in later if record["event"] == "window"]
    return {
        "search": asdict(search),
        "counts": counts,
        "windows_at_s": [round(window["time_s"] - changed_s, 2) for window in windows],
        "plans": [[window["plan"]["num_workers"], window["plan"]["prefetch_factor"]] for window in windows],
        "moves": changes_of_plan(windows),
    }


def train_for(numbers: Iterator[int], seconds: float) -> None:
    """Goes on for so long."""
    end_s = time.perf_counter() + seconds
    for _ in numbers:
        if time.perf_counter() >= end_s:
            return


def settled(spec: Spec, records: Path) -> dict[str, Any]:
    """CPU seconds per batch of a settled loader and of a fixed plan, the same one, stretch by stretch in turned order.

    The step must be the limit: then both have everything prepared at both ends of a stretch, and nobody works for the
    other's stretch.
    """
    from keepfed.loader.fixed import fixed_iterator  # below a run the loader itself would be steered, too

    program = Program(spec)
    loader = program.loader("auto")
    steered = program.batches(loader)
    train_until_settled(program, steered, records)
    search, plan = search_in(records_in(records), 0.0), plan_of(loader)
    options = {"prefetch_factor": plan.prefetch_factor} if plan.num_workers else {}
    plain = program.batches(Fixed(fixed_iterator, program.loader(plan.num_workers, **options)))
    ours = pids_below()
    train_for(plain, spec.warm_s)
    theirs = sorted(set(pids_below()) - set(ours))
    if spec.turned:
        steered = program.batches(loader)  # a new epoch, and new workers: the old ones end with their iterator
        train_for(steered, spec.warm_s)
        ours = sorted(set(pids_below()) - set(theirs))
    sides = [partial(cpu_per_batch_s, program, *side) for side in ((plain, theirs), (steered, ours))]
    for side in sides:
        side()
    pairs = list(in_turn(spec.pairs, *sides))
    return {"pairs": pairs, "plan": [plan.num_workers, plan.prefetch_factor], "settled": search.settled}


class Fixed:
    """A loader whose iterators have this plan, whoever steers the others."""

    def __init__(self, iterator: Callable[[Any], Any], loader: Any) -> None:
        self._iterator, self._loader = iterator, loader

    def __iter__(self) -> Any:
        return self._iterator(self._loader)


def cpu_per_batch_s(program: Program, numbers: Iterator[int], pids: list[int]) -> float:
    """Of a stretch that begins and ends with everything prepared."""
    began_s, before = time.process_time() + sum(map(cpu_s_of, pids)), program.delivered
    train_for(numbers, program.spec.measure_s)
    spent_s = time.process_time() - began_s
    time.sleep(0.2)  # the workers' last batches belong to this stretch; the trainer does nothing meanwhile
    return (spent_s + sum(map(cpu_s_of, pids))) / (program.delivered - before)


def calibrate(spec: Spec) -> dict[str, Any]:
    """Seconds per batch in a process of its own with one thread, as workers have, and rounds per second of the step."""
    program = Program(spec)
    rounds, rounds_s = timed(Step(0.0, 1), spec.measure_s / 2)
    torch.set_num_threads(1)
    collate = program.workload.collate_fn or torch.utils.data.default_collate
    size = program.workload.batch_size
    indices = iter(range(10**9))

    def made() -> Any:
        return collate([program.dataset[next(indices)] for _ in range(size)])

    made()
    began_s = time.process_time()
    batches, seconds = timed(made, spec.measure_s)
    return {
        "fetch_s": seconds / batches,
        "fetch_cpu_s": (time.process_time() - began_s) / batches,
        "rounds_per_s": rounds / rounds_s,
    }


def timed(work: Callable[[], Any], at_least_s: float) -> tuple[int, float]:
    """How often it was done in so many seconds."""
    done, began_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - began_s) < at_least_s:
        work()
        done += 1
    return done, passed_s


ROLES: dict[str, Callable[[Spec], dict[str, Any]]] = {
    "fixed": fixed,
    "auto": partial(in_run_folder, auto),
    "follow": partial(in_run_folder, follow),
    "settled": partial(in_run_folder, settled),
    "calibrate": calibrate,
}


def main() -> None:
    spec = Spec(**json.loads(sys.argv[1]))
    found = ROLES[spec.role](spec)
    print(json.dumps(found), flush=True)
    os._exit(0)  # iterators of generators that stay suspended would be closed one by one, which nobody measures


if __name__ == "__main__":
    main()
