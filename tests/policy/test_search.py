"""The exhaustive search in simulated worlds."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import cache

import pytest

from keepfed import text
from keepfed.plan import Plan
from keepfed.policy.cost import Bounds, memory_of
from keepfed.policy.decision import Hold, Move, Settled
from keepfed.policy.search import MOST_LAPS, Search, grid
from keepfed.policy.window import Observation
from tests.policy.driven import Run, bounds_of, drive
from tests.policy.simulated import Host, World, rate
from tests.policy.worlds import draw, share_of_best

DRAWN = int(os.environ.get("KEEPFED_WORLDS", "3"))
ANEW = "KEEPFED_WORLDS" in os.environ
FIRST = random.randrange(10**9) if ANEW else 1000

WORLDS = {
    "step": World(wait_s=0.16, step_s=0.04, noise=0.04),
    "free": World(step_s=0.03, noise=0.04),
    "cores": World(cores=2, cpu_s=0.09, step_s=0.0, step_cpu_s=0.03, noise=0.04),
    "io": World(wait_s=0.1, step_s=0.01, source=30),
    "cold": World(wait_s=0.16, step_s=0.04, cold=3, warm_after=500),
}
START = Plan(1)


@cache
def settle(world: World, start: Plan = START, seed: int = 1, bounds: Bounds | None = None) -> tuple[Run, Search]:
    search = Search(start, bounds or bounds_of(world, most=8))
    return drive(Host(world, start, seed=seed), search, seconds=3000), search


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_it_finds_a_plan_within_five_per_cent_of_the_best(name: str) -> None:
    world = WORLDS[name]
    run, search = settle(world)
    ((_, settled),) = run.settled
    best = max(rate(world, plan) for plan in grid(Plan(1), bounds_of(world, most=8)))
    assert rate(world, settled.plan) >= 0.95 * best
    assert search.plan == settled.plan
    assert settled.limited_by == {"free": "step", "cold": "step"}.get(name, name)


def test_it_takes_the_fewest_workers_that_do() -> None:
    assert settle(WORLDS["free"])[0].settled[0][1].plan == Plan(1)
    assert settle(WORLDS["step"])[0].settled[0][1].plan.num_workers == 4


def test_every_plan_of_the_grid_is_measured_to_and_fro_and_the_winner_is_logged_last() -> None:
    run, search = settle(WORLDS["step"])
    plans = set(grid(Plan(1), bounds_of(WORLDS["step"], most=8)))
    measured = [move.plan for move in search.log]
    assert set(measured) == plans
    assert min(measured.count(plan) for plan in plans) >= 2
    assert len(measured) <= MOST_LAPS * len(plans)
    assert search.log[-1].kept
    assert search.log[-1].plan == run.settled[0][1].plan
    assert search.judged == len(search.log)


def test_every_reason_is_a_sentence() -> None:
    run, search = settle(WORLDS["step"])
    for reason in [decision.reason for decision in run.decisions] + [move.reason for move in search.log]:
        assert not text.say(reason.key, **reason.facts).startswith("tune.")


def test_the_grid_stays_in_the_bounds_and_holds_the_programs_own_plan() -> None:
    bounds = Bounds(1, 5, 2.0, 1e12, max_prefetch=4, max_outstanding=12)
    plans = grid(Plan(5, 3), bounds)
    assert plans[0] == Plan(5, 3)
    assert all(plan == Plan(5, 3) or bounds.clamp(plan) == plan for plan in plans)
    assert Plan(0, 2) not in plans
    assert Plan(0, 2) in grid(Plan(0), replace(bounds, min_workers=0))


def test_a_loader_whose_count_is_the_programs_settles_where_it_is() -> None:
    world = WORLDS["step"]
    held = replace(bounds_of(world), min_workers=3, max_workers=3, max_prefetch=2)
    run, search = settle(world, Plan(3), bounds=held)
    assert run.settled[0][1].plan == Plan(3)
    assert search.moves == 0


def test_plans_that_do_not_fit_into_the_memory_are_left_out() -> None:
    world = replace(WORLDS["step"], memory_bytes=5.5e8)
    run, _ = settle(world)
    assert max(plan.num_workers for _, plan in run.plans) == 4
    assert max(window.plan.num_workers for window in run.windows) == 4


def test_a_plan_whose_processes_cannot_be_had_is_left_out() -> None:
    search = Search(Plan(1), Bounds(1, 3, 2.0, 1e12, max_prefetch=2))
    seen, in_force = [], Plan(1)
    for at in range(200):
        rate_of = {1: 10, 2: 20}[in_force.num_workers]
        window = Observation(in_force, float(at), batches=rate_of * 2, elapsed_s=2.0, wait_s=0.5, worker_bytes=1e6)
        decision = search.observe(window)
        if isinstance(decision, Move):
            seen.append(decision.plan)
            in_force = decision.plan if decision.plan.num_workers < 3 else in_force
        if isinstance(decision, Settled):
            break
    assert isinstance(decision, Settled)
    assert Plan(3) in seen
    assert decision.plan == Plan(2) == in_force


def test_once_settled_it_follows_changes_of_load() -> None:
    world = WORLDS["step"]
    host, search = Host(world, Plan(1), seed=1), Search(Plan(1), bounds_of(world, most=8))
    drive(host, search, seconds=3000)
    assert search.plan.num_workers == 4
    host.become(replace(world, step_s=0.02))
    run = drive(host, search, seconds=200)
    assert run.settled
    assert search.plan.num_workers > 5


def test_what_the_model_expected_of_each_plan_is_kept_beside_what_was_measured() -> None:
    _, search = settle(WORLDS["step"])
    told = {move.plan: move for move in search.log}
    assert search.predicted(START) == 0.0
    for plan, move in told.items():
        if plan != START:
            assert move.predicted_batches_per_s == pytest.approx(rate(WORLDS["step"], plan), rel=0.2)


def test_an_epochs_end_changes_nothing_while_the_grid_is_measured() -> None:
    search = Search(START, bounds_of(WORLDS["free"]))
    assert isinstance(search.epoch_ended(), Hold)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + DRAWN))
def test_in_worlds_that_nobody_chose_it_stays_in_bounds_settles_and_is_near_the_best(seed: int) -> None:
    case = draw(random.Random(seed))
    search = Search(case.start, case.bounds)
    run = drive(Host(case.world, case.start, seed=seed), search, seconds=6000)
    for _, plan in run.plans:
        assert case.bounds.clamp(plan) == plan
        assert memory_of(plan, case.world.batch_bytes, case.world.worker_bytes)[0] <= case.bounds.memory_bytes
    ((_, settled),) = run.settled
    assert settled.plan == search.plan
    assert not ANEW or share_of_best(case.world, settled.plan, case.plans()) >= 0.9


@pytest.mark.parametrize("start", [Plan(1), Plan(4)])
def test_where_memory_leaves_no_plan_of_the_grid_the_nearest_that_there_can_be_is_settled_on(start: Plan) -> None:
    search, plan = Search(start, Bounds(1, 8, 8.0, memory_bytes=5e8)), start
    for second in range(20):
        window = Observation(plan, float(second), 100, 1.0, 0.3, fetched=100, batch_bytes=1e6, worker_bytes=1e9)
        decision = search.observe(window)
        plan = decision.plan if isinstance(decision, Move) else plan
        if isinstance(decision, Settled):
            break
    assert isinstance(decision, Settled)
    assert decision.plan == plan == Plan(1, 1)
