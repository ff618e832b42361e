"""A thousand random deaths.

Question: is ever a sample lost, repeated, out of order or altered?

Method: round after round, a loader of random make (start method, map-style or iterable, fixed or automatic worker count, 1 to 4
workers, prefetch, persistent or not, an epoch that is left early, a program that keeps its last batches or pauses) is read
for some epochs while its workers are killed: one, or all at once, or one and shortly afterwards another, sometimes the
process that forks them, sometimes stopped instead of killed; at random moments, by a timer that goes off wherever the
training process stands, or between two batches. Every batch is compared with that of the same loader in a run where nobody
died: sample numbers, their order, every byte, and what was drawn from the worker's random stream. Where the worker
count is fixed, that other run is torch's own loader's.

Batches that kill worker after worker end an epoch on purpose. So after a strike (or two in a row) all batches that were in
preparation come out before the next.

The seed is printed; the same seed makes the same rounds and strikes, at moments that differ with the machine's mood.

    python benchmarks/soak.py                                # 1,000 kills, a few minutes: make soak
    python benchmarks/soak.py --kills 10000 --json soak.json
    python benchmarks/soak.py --seed 7 --first 31 --rounds 1   # only round 31 of the run with seed 7
    python benchmarks/soak.py --verify                       # with a checksum on every batch
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from fault_cases import BATCH, DATASETS, FAULTS, Samples, is_right
from soak_strikes import Striker

BATCHES = 48
"""In an epoch: a multiple of 1, 2, 3 and 4 workers, so that all shares of a stream are equally long."""
EPOCHS = 3
LEFT_AFTER = 17
"""Batches of an epoch that is left early."""
SAMPLE_S = 0.001
PAUSE_S = 0.004
HANGS_S = 120.0
"""An epoch that takes so long hangs: stacks are printed and the soak is over."""


@dataclass(frozen=True, slots=True)
class Making:
    """What batches depend on."""

    kind: str
    workers: int
    prefetch: int
    persistent: bool
    auto: bool
    """Whether the worker count may change, so that draws are made per batch."""
    leaves: bool
    """Whether the second epoch is left early."""


@dataclass(frozen=True, slots=True)
class Round:
    """One loader and the program around it."""

    number: int
    making: Making
    method: str
    keeps: int
    """How many of its last batches the program keeps."""
    pauses: bool
    """Whether it takes its time over a batch, so that workers rest."""


@dataclass(slots=True)
class Score:
    """What happened so far."""

    kills: int = 0
    stops: int = 0
    zygotes: int = 0
    rounds: int = 0
    batches: int = 0
    restarts: int = 0
    slowest_s: float = 0.0
    """The longest wait for a batch after a strike by which nobody was stopped."""
    faults: list[str] = field(default_factory=list)
    """What was wrong."""


class Wrong(Exception):
    """A batch that is not the one of the undisturbed run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Rounds until enough was killed; 1 when something was wrong."""
    args = parse_args(argv)
    if args.verify:
        os.environ["KEEPFED_VERIFY"] = "1"
    print(f"seed {args.seed}, {args.kills} kills, torch {torch.__version__}, {os.cpu_count()} cores", flush=True)
    warnings.filterwarnings("ignore", "This DataLoader will create")
    logging.getLogger("keepfed").setLevel(logging.CRITICAL)  # a line for every death
    score, began_s, told = Score(), time.monotonic(), 0
    before: Counter[str] | None = None
    for number in range(args.first, args.first + args.rounds):
        if score.kills >= args.kills or time.monotonic() - began_s > args.minutes * 60:
            break
        play(drawn(args.seed, number, args.method), args, score)
        if number == args.first + WARM_ROUNDS:
            before = holdings()
        if score.kills - told >= args.kills // 10 or score.faults:
            told = score.kills
            print(line(score, time.monotonic() - began_s), flush=True)
        if score.faults:
            break
    score.faults += [] if before is None else left_over(before)
    print(verdict(score, args), flush=True)
    if args.json is not None:
        args.json.write_text(
            json.dumps(record(args, score, time.monotonic() - began_s), indent=2) + "\n", encoding="utf-8"
        )
    return 1 if score.faults or (args.rounds == ENDLESS and score.kills < args.kills) else 0


ENDLESS = 1_000_000
WARM_ROUNDS = 12
"""After these, every start method has what it keeps for the life of the process."""
KEPT = Counter({"descriptors of /memfd": 64})
"""By the shelf of a loader with an automatic count: as many regions as it ever had at a time, at two descriptors each."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="Random deaths of keepfed's workers; every batch is checked.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--minutes", type=float, default=10.0, help="give up after so long (default 10)")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--rounds", type=int, default=ENDLESS, help="at most so many rounds")
    parser.add_argument("--method", nargs="+", default=["fork"] * 6 + ["forkserver", "spawn"], help="drawn from these")
    parser.add_argument("--stops", type=float, default=0.005, help="share of strikes that stop a worker (6 s each)")
    parser.add_argument("--zygotes", type=float, default=0.03, help="share of strikes that kill the forking process")
    parser.add_argument("--verify", action="store_true", help="with KEEPFED_VERIFY=1")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the outcome here, too")
    args = parser.parse_args(argv)
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1_000_000)
    return args


def drawn(seed: int, number: int, methods: Sequence[str]) -> Round:
    """The round with this number."""
    dice = random.Random(f"{seed}/{number}")
    kind = dice.choice(("map", "map", "iterable"))
    making = Making(
        kind=kind,
        workers=dice.randint(1, 4),
        prefetch=dice.choice((1, 2, 2, 4)),
        persistent=dice.random() < 0.5,
        auto=kind == "map" and dice.random() < 0.25,
        leaves=dice.random() < 0.3,
    )
    method = dice.choice(list(methods))
    return Round(number, making, method, keeps=dice.choice((0, 0, 1, 8)), pauses=dice.random() < 0.25)


def play(this: Round, args: argparse.Namespace, score: Score) -> None:
    """One round; what is wrong is noted."""
    striker = Striker(f"{args.seed}/{this.number}/strikes", score, stops=args.stops, zygotes=args.zygotes)
    epochs = undisturbed(this.making)
    try:
        with loader_of("keepfed", this.making, this.method) as loader:
            before = 0
            for epoch, wanted in enumerate(epochs):
                iterator = iter(loader)
                # Of all loaders made here, where the worker count is automatic.
                before = before if epoch else loader.stats().restarts
                read(this, epoch, iterator, wanted, striker)
                del iterator
            score.restarts += loader.stats().restarts - before
    except Exception as error:
        score.faults.append(f"{this}: {type(error).__name__}: {error}")
    score.rounds += 1


def read(this: Round, epoch: int, iterator: Any, wanted: list[Any], striker: Striker) -> None:
    """One epoch under fire, compared batch by batch. Raises Wrong."""
    striker.begin(in_preparation=this.making.workers * this.making.prefetch)
    kept: deque[Any] = deque()
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        for place, expected in enumerate(wanted):
            batch = next(iterator, None)
            striker.delivered()
            if batch is None or seen(batch) != expected:
                found = "the end of the epoch" if batch is None else seen(batch)
                raise Wrong(f"epoch {epoch}, batch {place}: expected {expected}, found {found}")
            kept.append(batch)
            while len(kept) > this.keeps:
                check(kept.popleft(), epoch, place)
            if this.pauses:
                time.sleep(PAUSE_S)
            striker.strike_or_not(iterator)
        if not left_early(this.making, epoch) and next(iterator, None) is not None:
            raise Wrong(f"epoch {epoch}: more batches than there are")
    finally:
        striker.disarm()
        faulthandler.cancel_dump_traceback_later()
    for batch in kept:
        check(batch, epoch, len(wanted))


def check(batch: Any, epoch: int, place: int) -> None:
    """Raises Wrong for a batch whose bytes are not those that its numbers say: as late as the program lets go of it."""
    if not is_right(batch, FAULTS["none"]):
        raise Wrong(f"epoch {epoch}, at batch {place}: samples {batch['number'].tolist()} have other bytes")


def seen(batch: Any) -> tuple[list[int], list[float]]:
    """What is compared with the undisturbed run."""
    return batch["number"].tolist(), batch["draw"].tolist()


def left_early(making: Making, epoch: int) -> bool:
    """Whether this epoch is not read to its end."""
    return making.leaves and epoch == 1


@cache
def undisturbed(making: Making) -> list[list[Any]]:
    """What comes out of every epoch when nobody dies. Of torch's own loader, unless the worker count may change."""
    with loader_of("keepfed" if making.auto else "torch", making, "fork") as loader:
        epochs = []
        for epoch in range(EPOCHS):
            count = LEFT_AFTER if left_early(making, epoch) else BATCHES
            epochs.append([seen(batch) for batch in islice(loader, count)])
    return epochs


@contextmanager
def loader_of(kind: str, making: Making, method: str) -> Iterator[Any]:
    """A loader; its workers are gone afterwards."""
    torch.manual_seed(11)
    arguments: dict[str, Any] = {
        "batch_size": BATCH,
        "num_workers": "auto" if making.auto else making.workers,
        "prefetch_factor": making.prefetch,
        "persistent_workers": making.persistent,
        "multiprocessing_context": method,
    }
    dataset = DATASETS[making.kind](Samples("none", Path(), sample_s=SAMPLE_S), BATCH * BATCHES)
    if kind == "keepfed":
        import keepfed

        loader: Any = keepfed.DataLoader(dataset, **arguments)
    else:
        loader = torch.utils.data.DataLoader(dataset, **arguments)
    try:
        yield loader
    finally:
        loader._iterator = None


# --------------------------------------------------------------------------------------------------------------- leftovers


def holdings() -> Counter[str]:
    """What this process has: children, and descriptors by what they are."""
    gc.collect()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    found = Counter({"child processes": len(children)})
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            found[f"descriptors of {os.readlink(f'/proc/self/fd/{name}').partition(':')[0]}"] += 1
    return found


def left_over(before: Counter[str]) -> list[str]:
    """What is more than it was, a second after the end. Loaders with an automatic count keep memory files for their next."""
    end_s = time.monotonic() + 1.0
    while (more := holdings() - before - KEPT) and time.monotonic() < end_s:
        time.sleep(0.01)
    return [f"left over: {count} {what}" for what, count in more.items()]


# ---------------------------------------------------------------------------------------------------------------- printing


def line(score: Score, seconds: float) -> str:
    """How far it is."""
    return (
        f"{score.kills:6} kills, {score.zygotes} of the forking process; {score.stops} stops; {score.rounds} rounds, "
        f"{score.batches} batches, {score.restarts} workers replaced; longest wait {score.slowest_s:.2f} s; {seconds:.0f} s"
    )


def verdict(score: Score, args: argparse.Namespace) -> str:
    """The last line."""
    if score.faults:
        return "\n".join(["WRONG:", *score.faults, f"again: --seed {args.seed} --first {score.rounds - 1} --rounds 1"])
    if score.kills < args.kills and args.rounds == ENDLESS:
        return f"out of time after {score.kills} of {args.kills} kills; nothing was wrong so far"
    return f"{score.kills} kills: no sample lost, repeated, out of order or altered; nothing left behind"


def record(args: argparse.Namespace, score: Score, seconds: float) -> dict[str, Any]:
    """What --json writes."""
    about = {"schema": "keepfed.benchmark.soak/1", "seed": args.seed, "verify": args.verify, "seconds": round(seconds)}
    return {**about, "torch": torch.__version__, "cores": os.cpu_count(), **asdict(score)}


if __name__ == "__main__":
    sys.exit(main())
