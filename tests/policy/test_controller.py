"""The controller in worlds whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepfed import text
from keepfed.plan import Plan
from keepfed.policy.controller import Controller, Decision, Hold, Move, Reason, Settled
from keepfed.policy.cost import Bounds
from keepfed.policy.window import Observation
from tests.policy.driven import Run, bounds_of, drive
from tests.policy.simulated import Host, World, rate

TWENTY_MS = World(wait_s=0.16, step_s=0.04, noise=0.04)
"""The dataset waits 20 ms per sample, 8 samples a batch, and the step takes 40 ms."""

FREE = World(step_s=0.01, noise=0.04)
DECODING = World(cores=2, cpu_s=0.09, step_s=0.0, step_cpu_s=0.03, noise=0.04)
SEEDS = [1, 2, 3, 4, 5]


def settle(world: World, start: Plan, seed: int = 1, bounds: Bounds | None = None) -> tuple[Run, Controller]:
    controller = Controller(start, bounds or bounds_of(world))
    return drive(Host(world, start, seed=seed), controller, seconds=300), controller


@pytest.mark.parametrize("seed", SEEDS)
def test_a_starving_script_gets_four_to_six_workers_within_a_minute_and_six_moves(seed: int) -> None:
    run, controller = settle(TWENTY_MS, Plan(1), seed)
    ((settled_s, settled),) = run.settled
    assert 4 <= settled.plan.num_workers <= 6
    assert rate(TWENTY_MS, settled.plan) >= 0.95 * rate(TWENTY_MS, Plan(12))
    assert settled_s < 50
    assert controller.moves <= 6
    assert settled.limited_by == "step"


@pytest.mark.parametrize("seed", SEEDS)
def test_free_samples_need_one_worker_and_the_step_is_the_limit(seed: int) -> None:
    run, _ = settle(FREE, Plan(4), seed)
    assert run.settled[0][1].plan.num_workers == 1
    assert run.settled[0][1].limited_by == "step"
    assert len(run.plans) == 1


def test_free_samples_are_loaded_without_workers_where_that_is_allowed() -> None:
    """At an epoch's end, and not before."""
    short = replace(FREE, epoch=2000)
    controller = Controller(Plan(4), bounds_of(short, zero=True))
    run = drive(Host(short, Plan(4)), controller, seconds=60, until_settled=False)
    assert [plan.num_workers for _, plan in run.plans] == [1, 0]
    assert [settled.plan.num_workers for _, settled in run.settled] == [1, 0]
    assert controller.log[-1].reason.key == "tune.reason_zero_kept"
    assert controller.log[-1].batches_per_s == pytest.approx(controller.predicted(Plan(0)), rel=0.05)


def test_no_workers_are_not_asked_for_where_that_is_not_allowed() -> None:
    short = replace(FREE, epoch=500)
    controller = Controller(Plan(4), bounds_of(short))
    drive(Host(short, Plan(4)), controller, seconds=60, until_settled=False)
    assert controller.plan.num_workers == 1


def test_a_loader_without_workers_gets_them_back_when_samples_become_dear() -> None:
    short = replace(FREE, epoch=500)
    controller = Controller(Plan(0), bounds_of(short, zero=True))
    host = Host(short, Plan(0))

    def dearer(host: Host) -> None:
        if host.now > 20 and not host.world.wait_s:
            host.become(replace(short, wait_s=0.03))

    drive(host, controller, seconds=90, until_settled=False, at=dearer)
    assert 3 <= controller.plan.num_workers <= 6


def test_a_program_without_workers_moves_off_zero_only_when_it_pays() -> None:
    bounds = bounds_of(FREE, fewest=0)
    stays, _ = settle(FREE, Plan(0), bounds=bounds)
    moves, _ = settle(TWENTY_MS, Plan(0), bounds=bounds)
    assert stays.settled[0][1].plan == Plan(0)
    assert not stays.plans
    assert 4 <= moves.settled[0][1].plan.num_workers <= 6


@pytest.mark.parametrize("start", [1, 4, 8])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_decoding_that_competes_with_the_step_stays_with_few_workers(start: int, seed: int) -> None:
    run, _ = settle(DECODING, Plan(start), seed)
    settled = run.settled[0][1]
    assert settled.plan.num_workers <= 3
    assert settled.limited_by == "cores"
    assert rate(DECODING, settled.plan) >= 0.95 * rate(DECODING, Plan(2))


def test_workers_that_only_queue_at_the_disk_are_given_back() -> None:
    """It gives 25 batches a second; three workers get all of them."""
    disk = World(wait_s=0.1, source=25, step_s=0.01)
    run, _ = settle(disk, Plan(1))
    settled = run.settled[0][1]
    assert settled.plan.num_workers <= 5
    assert settled.limited_by == "io"


def test_a_ceiling_of_workers_is_named() -> None:
    run, controller = settle(TWENTY_MS, Plan(1), bounds=bounds_of(TWENTY_MS, most=2))
    assert run.settled[0][1].limited_by == "workers"
    assert controller.plan == Plan(2)


def test_a_ceiling_of_workers_that_is_one_of_memory_is_called_so() -> None:
    bounds = replace(bounds_of(TWENTY_MS, most=2), short_of_memory=True)
    run, _ = settle(TWENTY_MS, Plan(1), bounds=bounds)
    assert run.settled[0][1].limited_by == "memory"


def test_memory_that_has_no_room_for_more_workers_is_named() -> None:
    world = replace(TWENTY_MS, memory_bytes=3.5e8)
    run, controller = settle(world, Plan(1))
    assert run.settled[0][1].limited_by == "memory"
    assert controller.plan.num_workers == 3


def test_a_gpu_that_is_fed_is_left_alone_though_the_host_waits_all_the_time() -> None:
    fed = World(cores=16, wait_s=0.05, step_s=0.0, step_cpu_s=0.002, gpu_s=0.03)
    run, controller = settle(fed, Plan(2))
    assert controller.plan == Plan(2)
    assert run.settled[0][1].limited_by == "step"
    estimate = controller.estimate()
    assert estimate is not None
    assert estimate.wait_share > 0.9
    assert estimate.stall_share is not None
    assert estimate.stall_share < 0.02


def test_a_page_cache_that_becomes_warm_does_not_leave_workers_behind() -> None:
    """Cold, six are needed; after 150 batches one is enough."""
    world = World(wait_s=0.03, cold=6, warm_after=150, step_s=0.04)
    _, controller = settle(world, Plan(1))
    assert controller.plan.num_workers <= 2


def test_bursts_are_met_with_prefetch() -> None:
    """One batch in twenty takes twelve times as long; on average three workers are enough."""
    world = World(wait_s=0.06, tail=(0.05, 12), step_s=0.04)
    run, controller = settle(world, Plan(3, 2))
    assert any(plan.prefetch_factor > 2 for _, plan in run.plans)
    assert rate(world, controller.plan) >= 0.93 * rate(world, Plan(12, 4))


def test_every_move_is_logged_with_what_was_predicted_and_what_was_measured() -> None:
    _, controller = settle(TWENTY_MS, Plan(1))
    first = controller.log[0]
    assert first.plan.num_workers in (4, 5)
    assert first.kept
    assert first.predicted_batches_per_s == pytest.approx(first.batches_per_s, rel=0.1)


def test_fewer_workers_than_are_at_work_are_not_tried_for_idle_ones() -> None:
    crowded, _ = settle(replace(DECODING, others=2), Plan(8))
    queueing, _ = settle(World(wait_s=0.1, source=25, step_s=0.01), Plan(2))
    first, _ = settle(TWENTY_MS, Plan(0), bounds=bounds_of(TWENTY_MS, fewest=0))
    said = [decision.reason for run in (crowded, queueing, first) for decision in run.decisions]
    keys = {reason.key.removeprefix("tune.reason_") for reason in said}
    assert {"fewer_crowded", "fewer_queueing", "first"} <= keys
    for reason in said:
        if reason.key == "tune.reason_fewer":
            assert float(str(reason.facts["busy"])) <= float(str(reason.facts["workers"])) + 0.05


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_workers_that_nobody_waits_for_are_given_back_though_neighbours_come_and_go(seed: int) -> None:
    """Throughput differs by half from window to window, the share of waiting does not."""
    heavy = World(wait_s=0.03, cpu_s=0.0005, step_s=0.0, step_cpu_s=0.1, step_threads=2, others=0.5)
    run, controller = settle(replace(heavy, visits=(13, 6, 2)), Plan(4), seed)
    assert controller.plan == Plan(2)
    assert len(run.plans) == 1
    assert len(run.windows) <= 8


# ------------------------------------------------------------------------------------------------ by hand, window by window


def window(
    plan: Plan, *, starve: float = 0.0, warm: bool = True, fetch_s: float = 0.02, size: float = 1e6
) -> Observation:
    batches = round(50 * (1 - starve))
    return Observation(
        plan,
        now_s=0.0,
        batches=batches,
        elapsed_s=2.0,
        wait_s=2.0 * starve,
        fetched=batches,
        fetch_s=batches * fetch_s,
        batch_bytes=size,
        worker_bytes=1e8,
        host_busy=0.2,
        all_warm=warm,
    )


BOUNDS = Bounds(1, 8, 4, 2e9, max_prefetch=8, max_outstanding=32)


def test_cold_workers_are_not_judged() -> None:
    controller = Controller(Plan(1), BOUNDS)
    decisions = [controller.observe(window(Plan(1), starve=0.75, warm=False, fetch_s=0.16)) for _ in range(9)]
    assert all(isinstance(decision, Hold) for decision in decisions)
    assert controller.estimate() is None


def test_windows_of_an_old_plan_are_passed_over() -> None:
    controller = Controller(Plan(1), BOUNDS)
    for _ in range(2):
        decision: Decision = controller.observe(window(Plan(1), starve=0.75, fetch_s=0.16))
    assert isinstance(decision, Move)
    late = controller.observe(window(Plan(1), starve=0.75, fetch_s=0.16))
    assert late.reason == Reason("tune.reason_not_applied", {"wanted": decision.plan.num_workers, "present": 1})


def test_a_plan_that_never_comes_into_force_is_given_up() -> None:
    """The hands may be unable to add workers; the search ends where it stands."""
    controller = Controller(Plan(1), BOUNDS)
    decisions = [controller.observe(window(Plan(1), starve=0.75, fetch_s=0.16)) for _ in range(12)]
    settled = [decision for decision in decisions if isinstance(decision, Settled)]
    assert [decision.plan for decision in settled] == [Plan(1)]
    assert controller.plan == Plan(1)


def test_a_start_outside_of_the_bounds_is_brought_inside() -> None:
    controller = Controller(Plan(64, 4), BOUNDS)
    decision = controller.observe(window(Plan(64, 4)))
    assert isinstance(decision, Move)
    assert decision.plan == Plan(8, 4)
    assert decision.reason.key == "tune.reason_bounds"


def test_memory_that_becomes_tight_is_answered_at_once() -> None:
    controller = Controller(Plan(4, 4), BOUNDS, mode="follow")
    assert isinstance(controller.observe(window(Plan(4, 4))), Hold)
    controller.bounds = replace(BOUNDS, memory_bytes=5e8)
    decision = controller.observe(window(Plan(4, 4), size=2e7))
    assert isinstance(decision, Move)
    assert decision.reason.key == "tune.reason_memory"
    assert decision.plan == Plan(3, 2) or decision.plan.num_workers * 1e8 < 4.5e8


def test_settling_is_said_once() -> None:
    controller = Controller(Plan(1), BOUNDS)
    decisions = [controller.observe(window(Plan(1))) for _ in range(30)]
    assert sum(isinstance(decision, Settled) for decision in decisions) == 1
    assert decisions[-1].reason.key == "tune.reason_following"


@pytest.mark.parametrize("language", text.LANGUAGES)
def test_every_reason_is_a_sentence(language: str) -> None:
    """Facts and placeholders fit: nothing falls back to the bare key."""
    text.choose_language(language)
    try:
        for world, start in [
            (TWENTY_MS, Plan(1)),
            (FREE, Plan(8)),
            (DECODING, Plan(8)),
            (World(wait_s=0.1, source=25), Plan(1)),
        ]:
            run, controller = settle(world, start)
            for reason in [*(decision.reason for decision in run.decisions), *(move.reason for move in controller.log)]:
                sentence = text.words(language)[reason.key].format(**reason.facts)
                assert text.say(reason.key, **reason.facts) == sentence
                assert "{" not in sentence
    finally:
        text.choose_language(None)
