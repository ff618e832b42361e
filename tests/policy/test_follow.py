"""After settling: still while nothing changes, quick when the step starves, slow to take workers away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from keepfed.plan import Plan
from keepfed.policy.controller import Controller
from tests.policy.driven import Run, bounds_of, drive
from tests.policy.simulated import Host, World, rate

WAITING = World(wait_s=0.16, step_s=0.04)
CROWDED = World(cores=4, cpu_s=0.12, step_s=0.03)
CHANGE_S = 60.0


def follow(
    world: World,
    start: Plan,
    after: World | None = None,
    *,
    seconds: float = 160.0,
    seed: int = 1,
    trusted: bool = False,
) -> tuple[Run, Controller]:
    """Train on for a while; the world becomes another one after a minute."""
    controller = Controller(start, bounds_of(world), mode="follow" if trusted else "explore")
    run = drive(Host(world, start, seed=seed), controller, seconds=seconds, until_settled=False, at=becoming(after))
    return run, controller


def becoming(after: World | None) -> Callable[[Host], None]:
    def at(host: Host) -> None:
        if after is not None and host.now >= CHANGE_S and host.world is not after:
            host.become(after)

    return at


@pytest.mark.parametrize("seed", [1, 2])
def test_a_steady_load_is_left_alone_for_a_quarter_of_an_hour(seed: int) -> None:
    noisy = replace(WAITING, noise=0.08)
    run, _ = follow(noisy, Plan(1), seconds=900, seed=seed)
    assert all(at_s < CHANGE_S for at_s, _ in run.plans)
    assert len(run.settled) == 1


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WAITING, replace(WAITING, step_s=0.02)),
        (WAITING, replace(WAITING, wait_s=0.32)),
        (WAITING, replace(WAITING, step_s=0.08)),
        (CROWDED, replace(CROWDED, step_s=0.06)),
        (replace(CROWDED, others=2), CROWDED),
    ],
    ids=["step halves", "samples double", "step doubles", "step doubles on busy cores", "another process leaves"],
)
def test_a_change_of_load_is_followed(before: World, after: World, seed: int) -> None:
    run, controller = follow(before, Plan(1), after, seed=seed)
    moved = [at_s for at_s, _ in run.plans if at_s > CHANGE_S]
    best = max(rate(after, Plan(workers)) for workers in range(1, 13))
    assert rate(after, controller.plan) >= 0.93 * best
    assert len(moved) <= 6
    assert all(at_s < CHANGE_S + 45 for at_s in moved)


def test_workers_that_are_no_longer_needed_are_given_back_slowly() -> None:
    run, controller = follow(WAITING, Plan(1), replace(WAITING, step_s=0.2))
    later = [at_s for at_s, _ in run.plans if at_s > CHANGE_S]
    assert controller.plan.num_workers <= 2
    assert later[0] > CHANGE_S + 8 * 2.0


def test_a_trusted_plan_is_not_explored() -> None:
    run, controller = follow(WAITING, Plan(6), trusted=True)
    assert not run.plans
    assert controller.plan == Plan(6)


def test_a_trusted_plan_that_starves_the_step_is_corrected() -> None:
    _, controller = follow(WAITING, Plan(2), trusted=True)
    assert 4 <= controller.plan.num_workers <= 6


def test_waiting_that_the_plan_is_known_for_is_no_change_of_load() -> None:
    """A disk that is the limit starves the step every day anew."""
    disk = World(wait_s=0.1, source=25, step_s=0.01)
    controller = Controller(Plan(3), bounds_of(disk), mode="follow", wait_share=0.75)
    run = drive(Host(disk, Plan(3), seed=1), controller, seconds=200, until_settled=False)
    assert not run.plans
