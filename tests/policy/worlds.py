"""Worlds at random: programs and hosts that nobody chose, and the best that could be had in each."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise

from keepfed.plan import Plan
from keepfed.policy.controller import Controller
from keepfed.policy.cost import Bounds, fit
from tests.policy.driven import Run, bounds_of, drive
from tests.policy.simulated import Host, World, rate

MOST = 16
SOME = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


@dataclass(frozen=True, slots=True)
class Case:
    """One program on one host, and where the search begins."""

    world: World
    start: Plan
    bounds: Bounds

    def plans(self) -> list[Plan]:
        """The plans of an exhaustive sweep, as far as they are allowed."""
        burst = self.world.tail[0] or self.world.shape == "lognormal"
        swept = [Plan(workers, prefetch) for workers in SOME for prefetch in ((2, 4, 8) if burst else (2,))]
        world = self.world
        fitting = [plan for plan in swept if fit(plan, self.bounds, world.batch_bytes, world.worker_bytes) == plan]
        fitting += [Plan(0)] * (self.bounds.min_workers == 0)
        return fitting or [fit(self.start, self.bounds, world.batch_bytes, world.worker_bytes)]


def draw(rng: random.Random) -> Case:
    """A program on a host: fetching takes 1 ms to 1 s, a step 3 ms to 0.3 s.

    Assumed: the cost of a whole batch scatters by at least some per cent (with none at all workers and step fall into
    lock-step), the host's speed by up to 4 %, a gap comes after ten seconds of training at the earliest.
    """
    fetch_s, step_s = 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-2.5, -0.5)
    cores = rng.choice([1, 2, 2, 4, 8, 16, 32])
    cpu_s = rng.choice([0, 0.1, 0.5, 0.9, 1]) * fetch_s
    world = replace(World(), cores=cores, wait_s=fetch_s - cpu_s, cpu_s=cpu_s, noise=rng.choice([0.01, 0.02, 0.04]))
    world = _with_step(rng, world, step_s)
    world = _with_samples(rng, world)
    if rng.random() < 0.2 and cpu_s <= 0.6 * fetch_s:
        world = replace(world, source=rng.uniform(0.3, 1.5) / step_s)
    if rng.random() < 0.2:
        world = replace(world, cold=rng.uniform(2, 6), warm_after=rng.choice([50, 200]))
    if rng.random() < 0.2:
        every = int(rng.choice([10, 30]) / max(step_s, fetch_s / MOST))
        world = replace(world, gap_every=every, gap_s=rng.choice([2, 10]))
    if rng.random() < 0.3:
        world = replace(world, epoch=rng.choice([50, 100, 300]))
    return _with_limits(rng, _with_neighbours(rng, world))


def _with_step(rng: random.Random, world: World, step_s: float) -> World:
    kind = rng.choice(["lock-step", "cpu", "gpu"])
    if kind == "lock-step":
        return replace(world, step_s=step_s)
    if kind == "cpu":
        return replace(world, step_s=0.0, step_cpu_s=step_s, step_threads=min(world.cores, rng.choice([1, 2, 4])))
    return replace(world, step_s=0.0, gpu_s=step_s, step_cpu_s=min(step_s / 3, 0.003), ahead=rng.choice([1, 4, 30]))


def _with_samples(rng: random.Random, world: World) -> World:
    """Even, lognormal, of two kinds, or with one sample in twenty that takes several times as long."""
    samples = rng.choice([1, 8, 8, 32])
    kind = rng.choice(["even", "even", "lognormal", "bimodal", "tail"])
    if kind == "lognormal":
        return replace(world, samples=samples, shape="lognormal", spread=rng.choice([0.3, 0.6]))
    if kind == "bimodal":
        return replace(world, samples=samples, shape="bimodal", spread=rng.choice([0.3, 0.6]))
    if kind == "tail":
        return replace(world, samples=samples, spread=0.1, tail=(0.05, rng.choice([3, 6, 10])))
    return replace(world, samples=samples, spread=rng.choice([0.1, 0.3]) if samples == 1 else 0.3)


def _with_neighbours(rng: random.Random, world: World) -> World:
    """Other processes that come and go, and samples that slowly become dearer or cheaper."""
    if rng.random() < 0.15:
        every_s = rng.choice([7.0, 23.0])
        world = replace(world, visits=(every_s, rng.uniform(0.1, 0.4) * every_s, rng.choice([0.25, 0.5]) * world.cores))
    if rng.random() < 0.15:
        world = replace(world, drift=rng.choice([-0.05, 0.05]))
    return world


def _with_limits(rng: random.Random, world: World) -> Case:
    """Where the search begins and what it may use: now and then little memory, no workers, or a program that asked for none."""
    if rng.random() < 0.15:
        world = replace(world, batch_bytes=rng.choice([1e6, 5e7]), memory_bytes=rng.choice([4e8, 8e8, 1.6e9]))
    start = Plan(rng.choice([1, 1, 2, 4, 8, 12]), 2)
    if rng.random() < 0.1:
        return Case(world, Plan(0, 2), bounds_of(world, MOST, fewest=0))
    return Case(world, start, bounds_of(world, MOST, zero=world.epoch > 0 and rng.random() < 0.5))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one search ended."""

    case: Case
    run: Run
    controller: Controller
    share: float
    """Throughput of the plan chosen, of the best that any plan gives."""


def search(seed: int, case: Case, seconds: float = 300.0) -> tuple[Run, Controller]:
    """One controller in one world, until it settles."""
    controller = Controller(case.start, case.bounds)
    return drive(Host(case.world, case.start, seed=seed), controller, seconds=seconds), controller


def outcome(seed: int) -> Outcome:
    """Draw a world, search it, and compare with a sweep that no user would wait for."""
    case = draw(random.Random(seed))
    run, controller = search(seed, case)
    world = case.world.at(run.windows[-1].now_s if run.windows else 0.0)
    return Outcome(case, run, controller, share_of_best(world, controller.plan, case.plans()))


def share_of_best(world: World, chosen: Plan, plans: list[Plan]) -> float:
    """Throughput of one plan, of the best of all; where samples for nothing would bring no more, nothing is swept."""
    reached = rate(world, chosen)
    return min(1.0, reached / best_rate(world, plans, reached))


def best_rate(world: World, plans: list[Plan], reached: float) -> float:
    """The best of some plans and of what was reached, or what a loader without any cost would bring if that is no more."""
    free = rate(replace(world, wait_s=0.0, cpu_s=0.0, source=float("inf")), Plan(0))
    return free if reached >= 0.995 * free else max(reached, *(rate(world, plan) for plan in plans))


def reversals(counts: list[int]) -> int:
    """How often a knob changes its direction."""
    steps = [b - a for a, b in pairwise(counts) if a != b]
    return sum(1 for a, b in pairwise(steps) if (a > 0) != (b > 0))
