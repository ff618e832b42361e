"""Worlds at random: programs and hosts that nobody chose, and the best that could be had in each."""

from __future__ import annotations

import random
from dataclasses import dataclass

from keepfed.plan import Plan
from keepfed.policy.controller import Controller
from tests.policy.simulated import Host, Run, World, bounds_of, drive, rate

MOST = 16
SOME = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


def draw(rng: random.Random) -> tuple[World, Plan]:
    """A program on a host: fetching takes 1 ms to 1 s, a step 3 ms to 0.3 s.

    Assumed: fetch times scatter by 5 to 30 % (whole batches; with none at all workers and step fall into lock-step), the
    host's speed by up to 4 %, a gap comes after ten seconds of training at the earliest.
    """
    fetch_s, step_s = 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-2.5, -0.5)
    cores = rng.choice([1, 2, 2, 4, 8, 16, 32])
    cpu_s = rng.choice([0, 0.1, 0.5, 0.9, 1]) * fetch_s
    facts: dict[str, float] = {"cores": cores, "wait_s": fetch_s - cpu_s, "cpu_s": cpu_s}
    facts |= {"spread": rng.choice([0.05, 0.1, 0.3]), "noise": rng.choice([0.01, 0.02, 0.04]), "step_s": 0.0}
    kind = rng.choice(["lock-step", "cpu", "gpu"])
    if kind == "lock-step":
        facts["step_s"] = step_s
    elif kind == "cpu":
        facts |= {"step_cpu_s": step_s, "step_threads": min(cores, rng.choice([1, 2, 4]))}
    else:
        facts |= {"gpu_s": step_s, "step_cpu_s": min(step_s / 3, 0.003)}
    if rng.random() < 0.2 and cpu_s <= 0.6 * fetch_s:
        facts["source"] = rng.uniform(0.3, 1.5) / step_s
    if rng.random() < 0.2:
        facts |= {"cold": rng.uniform(2, 6), "warm_after": rng.choice([50, 200])}
    if rng.random() < 0.2:
        facts |= {"gap_every": int(rng.choice([10, 30]) / max(step_s, fetch_s / MOST)), "gap_s": rng.choice([2, 10])}
    if rng.random() < 0.15:
        facts["epoch"] = rng.choice([100, 300])
    return World(**facts), Plan(rng.choice([1, 1, 2, 4, 8, 12]), 2)  # type: ignore[arg-type]  # counts among the floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one search ended."""

    world: World
    run: Run
    controller: Controller
    share: float
    """Throughput of the plan chosen, of the best that any plan gives."""


def search(seed: int, world: World, start: Plan, seconds: float = 300.0) -> tuple[Run, Controller]:
    """One controller in one world, until it settles."""
    controller = Controller(start, bounds_of(world, MOST))
    return drive(Host(world, start, seed=seed), controller, seconds=seconds), controller


def outcome(seed: int) -> Outcome:
    """Draw a world, search it, and compare with a sweep that no user would wait for."""
    world, start = draw(random.Random(seed))
    run, controller = search(seed, world, start)
    best = max(rate(world, Plan(workers), 250) for workers in SOME)
    return Outcome(world, run, controller, rate(world, controller.plan, 250) / best)
