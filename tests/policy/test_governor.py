"""When a loader holds back for want of memory: simulated worlds, no processes, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.policy.governor import CALM_S, KEPT_CHANGES, Change, Governor, Reading, Rung, ladder

MIB = 1 << 20
GIB = 1 << 30


@dataclass
class World:
    """A loader whose batches and workers take memory beside something else, under one limit."""

    limit_bytes: int
    full: Rung
    batch_bytes: int
    worker_bytes: int
    other_bytes: Callable[[float], float] = lambda _: 0.0
    fixed: bool = False
    lag: float = 0.5
    """Share of the difference that is still there at the next look: batches must be read first."""
    pressure: Callable[[float], float | None] = lambda _: None
    changes: list[Change] = field(default_factory=list)
    most_bytes: float = 0.0

    def __post_init__(self) -> None:
        self.governor = Governor(self.full, fixed=self.fixed)
        self.now_s = 0.0
        self.own = 0.0

    def wanted(self) -> float:
        allowed = self.governor.allowed
        workers = self.full.workers if self.fixed else allowed.workers
        return workers * self.worker_bytes + allowed.batches * self.batch_bytes

    def run(self, seconds: float, every_s: float = 1.0) -> list[Change]:
        """The changes in this time."""
        before = len(self.changes)
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += every_s
            self.own += (self.wanted() - self.own) * (1 - self.lag)
            used = self.own + self.other_bytes(self.now_s)
            self.most_bytes = max(self.most_bytes, used)
            pressure = self.pressure(self.now_s)
            reading = Reading(self.now_s, int(used), self.limit_bytes, int(self.own), pressure=pressure)
            change = self.governor.observe(reading)
            if change is not None:
                self.changes.append(change)
        return self.changes[before:]


rungs = st.builds(lambda workers, prefetch: Rung(workers, workers * prefetch), st.integers(1, 64), st.integers(1, 32))


@given(rungs, st.booleans())
def test_the_ladder_ends_with_one_batch_and_never_goes_up(full: Rung, fixed: bool) -> None:
    found = ladder(full, fixed=fixed)
    assert found[0] == full
    assert found[-1] == Rung(full.workers if fixed else 1, 1)
    assert len(set(found)) == len(found) < 40
    for above, below in itertools.pairwise(found):
        assert below.batches <= above.batches
        assert below.workers <= above.workers
        assert below.batches >= (1 if fixed else below.workers)


@given(
    full=rungs,
    batch_mib=st.integers(0, 400),
    worker_mib=st.integers(0, 2_000),
    other_mib=st.integers(0, 20_000),
    fixed=st.booleans(),
    lag=st.floats(0.0, 0.8),
)
@settings(max_examples=40, deadline=None)
def test_a_load_that_stays_the_same_comes_to_rest(
    full: Rung, batch_mib: int, worker_mib: int, other_mib: int, fixed: bool, lag: float
) -> None:
    world = World(16 * GIB, full, batch_mib * MIB, worker_mib * MIB, lambda _: other_mib * MIB, fixed, lag)
    world.run(600)
    assert sum(change.kind == "restore" for change in world.changes) <= 2 * len(ladder(full, fixed=fixed))
    assert world.run(2_000) == []
    reading = Reading(0.0, int(world.own + other_mib * MIB), 16 * GIB, int(world.own))
    least = world.governor.allowed.batches == 1
    assert reading.used_bytes <= reading.high_bytes or least or not reading.matters


@given(full=rungs, fixed=st.booleans(), noise=st.lists(st.floats(0.0, 1.0), min_size=50, max_size=50))
def test_whatever_happens_one_batch_of_one_worker_is_left(full: Rung, fixed: bool, noise: list[float]) -> None:
    governor = Governor(full, fixed=fixed)
    for second, share in enumerate(noise):
        governor.observe(Reading(float(second), int(1.3 * share * GIB), GIB, int(share * GIB), pressure=100 * share))
        assert governor.allowed.batches >= 1
        assert governor.allowed.workers >= 1
        assert governor.allowed.workers == full.workers or not fixed


@given(
    rate_mib=st.integers(10, 300),
    full=rungs.filter(lambda full: 1 < full.batches <= 512),
    fixed=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_growth_is_met_before_the_limit(rate_mib: int, full: Rung, fixed: bool) -> None:
    limit = 16 * GIB
    world = World(
        limit, full, batch_bytes=8 * GIB // full.batches, worker_bytes=0, other_bytes=lambda now_s: now_s * rate_mib * MIB,
        fixed=fixed,
    )  # fmt: skip
    while not world.changes:
        world.run(1)
        assert world.now_s * rate_mib * MIB < limit
    assert world.changes[0].kind in {"shorten", "retire"}
    assert world.most_bytes < limit


@pytest.mark.parametrize("every_s", [0.25, 1.0])
def test_workers_that_were_added_because_there_is_room_are_not_given_up_while_they_fill(every_s: float) -> None:
    world = World(640 * MIB, Rung(2, 4), batch_bytes=10 * MIB, worker_bytes=100 * MIB)
    world.run(10, every_s)
    world.full = Rung(4, 8)
    world.governor.resize(world.full)
    assert world.run(30, every_s) == []
    assert world.most_bytes < 0.9 * world.limit_bytes


def test_what_grows_on_after_workers_were_added_is_met_before_the_limit() -> None:
    leak = 30 * MIB
    world = World(640 * MIB, Rung(2, 4), 10 * MIB, 100 * MIB, other_bytes=lambda now_s: max(0.0, now_s - 10) * leak)
    world.run(10)
    world.full = Rung(4, 8)
    world.governor.resize(world.full)
    while not world.changes:
        world.run(1)
    assert world.most_bytes < world.limit_bytes


def test_a_loader_that_gives_up_half_the_memory_in_time_is_not_killed() -> None:
    def growing(now_s: float) -> float:
        return min(2.5, 0.1 * now_s) * GIB

    world = World(4 * GIB, Rung(4, 32), batch_bytes=64 * MIB, worker_bytes=256 * MIB, other_bytes=growing)
    world.run(300)
    assert world.most_bytes < 4 * GIB
    assert {change.kind for change in world.changes} >= {"shorten", "retire"}
    assert world.governor.allowed.workers < 4


def test_batches_go_first_and_workers_after_them() -> None:
    world = World(GIB, Rung(4, 16), batch_bytes=0, worker_bytes=256 * MIB, other_bytes=lambda _: 0.8 * GIB)
    kinds = [change.kind for change in world.run(60)]
    assert kinds == sorted(kinds, key=("shorten", "retire", "restore").index)
    assert world.governor.allowed == Rung(1, 1)


def test_a_fixed_loader_keeps_its_workers() -> None:
    world = World(GIB, Rung(4, 8), 32 * MIB, 128 * MIB, lambda _: 0.5 * GIB, fixed=True)
    world.run(60)
    assert world.changes
    assert {change.kind for change in world.changes} <= {"shorten", "restore"}
    assert {change.rung.workers for change in world.changes} == {4}


def test_all_comes_back_step_by_step_when_memory_is_free_again() -> None:
    def passing(now_s: float) -> float:
        return 3.5 * GIB if now_s < 60 else 0.0

    world = World(4 * GIB, Rung(8, 32), 16 * MIB, 32 * MIB, other_bytes=passing)
    world.run(60)
    assert world.governor.limited
    changes = world.run(300)
    assert not world.governor.limited
    assert {change.kind for change in changes} == {"restore"}
    times = [change.reading.now_s for change in changes]
    assert all(later - sooner >= CALM_S for sooner, later in itertools.pairwise(times))


def test_a_step_up_that_failed_is_tried_again_when_memory_has_become_freer() -> None:
    def relief(now_s: float) -> float:
        return (2.4 if now_s < 500 else 1.0) * GIB

    world = World(4 * GIB, Rung(1, 8), batch_bytes=GIB // 4, worker_bytes=0, other_bytes=relief)
    world.run(400)
    limited = world.governor.allowed
    assert limited.batches < 8
    world.run(90)
    assert world.governor.allowed == limited
    world.run(200)
    assert world.governor.allowed == Rung(1, 8)


def test_a_prefetch_that_fills_is_no_growth_to_be_afraid_of() -> None:
    governor = Governor(Rung(2, 8), fixed=True)
    for second, used in enumerate([0.0, 0.4, 0.8, 0.8]):
        filling = int(used * GIB)
        assert governor.observe(Reading(float(second), filling, GIB, filling, transport_bytes=filling)) is None


@pytest.mark.parametrize(("used", "batches"), [([0.2, 0.5, 0.5], 8), ([0.2, 0.7, 0.7], 4), ([0.5, 0.62, 0.74], 2)])
def test_other_growth_counts_as_far_as_it_reaches(used: list[float], batches: int) -> None:
    """Once: to the next look; twice in a row: for three seconds, and half of the ladder goes where that is past the limit."""
    governor = Governor(Rung(2, 8), fixed=True)
    for second, share in enumerate(used):
        governor.observe(Reading(float(second), int(share * GIB), GIB, GIB // 5))
    assert governor.allowed.batches == batches


def test_memory_that_will_be_short_is_looked_at_more_often() -> None:
    governor = Governor(Rung(2, 8), fixed=True)
    near = []
    for second, used in enumerate([0.2, 0.2, 0.55, 0.55]):
        governor.observe(Reading(float(second), int(used * GIB), GIB, GIB // 5))
        near.append(governor.near)
    assert near == [False, False, True, False]


def test_one_batch_is_left_of_the_longest_ladder_within_seconds() -> None:
    governor = Governor(Rung(64, 512), fixed=False)
    for second in range(6):
        governor.observe(Reading(float(second), 2 * GIB, GIB, GIB))
    assert governor.allowed == Rung(1, 1)


@pytest.mark.parametrize(("used", "acts"), [(0.7, False), (0.85, True)])
def test_pressure_counts_where_memory_is_in_use(used: float, acts: bool) -> None:
    governor = Governor(Rung(2, 8), fixed=True)
    change = governor.observe(Reading(1.0, int(used * GIB), GIB, int(0.3 * GIB), pressure=40.0))
    assert (change is not None) == acts


def test_pressure_alone_keeps_the_way_up_closed() -> None:
    pressed = 30.0
    world = World(GIB, Rung(1, 4), 32 * MIB, 0, lambda s: GIB if s < 20 else 0.0, pressure=lambda _: pressed)
    world.run(30)
    assert world.governor.limited
    assert world.run(100) == []
    pressed = 0.0
    world.run(100)
    assert not world.governor.limited


def test_a_loader_of_no_weight_is_left_alone() -> None:
    world = World(100 * GIB, Rung(4, 8), 16 * MIB, 64 * MIB, lambda _: 99.5 * GIB)
    assert world.run(100) == []


def test_a_large_machine_in_use_is_not_short_of_memory() -> None:
    world = World(1_000 * GIB, Rung(16, 64), GIB, 4 * GIB, lambda _: 800 * GIB)
    assert world.run(100) == []


def test_batches_may_take_what_is_left_below_the_high_mark() -> None:
    reading = Reading(0.0, 800 * MIB, 1_000 * MIB, own_bytes=300 * MIB, transport_bytes=200 * MIB)
    assert reading.slots_bytes == 300 * MIB
    over = Reading(0.0, 1_200 * MIB, 1_000 * MIB, own_bytes=300 * MIB, transport_bytes=200 * MIB)
    assert over.slots_bytes == 0


def test_another_plan_does_not_lift_the_limit() -> None:
    governor = Governor(Rung(4, 16), fixed=False)
    for second in range(3):
        governor.observe(Reading(float(second), int(0.95 * GIB), GIB, GIB))
    assert governor.allowed == Rung(3, 3)
    governor.resize(Rung(8, 64))
    assert governor.limited
    assert governor.allowed.workers <= 3
    governor.resize(Rung(1, 1))
    assert governor.limited, "a plan that fits is no proof that memory is there again"
    assert governor.full == Rung(8, 64)


def test_a_new_plan_of_an_unlimited_loader_is_allowed_whole() -> None:
    governor = Governor(Rung(1, 2), fixed=False)
    governor.resize(Rung(8, 64))
    assert (governor.allowed, governor.limited) == (Rung(8, 64), False)


def test_the_log_is_bounded_and_says_what_was_seen() -> None:
    governor = Governor(Rung(16, 256), fixed=False)
    for second in range(5_000):
        used = 0 if second // 100 % 2 else GIB
        governor.observe(Reading(float(second), used, GIB, GIB))
    assert len(governor.log) == KEPT_CHANGES
    assert governor.log[-1].reading.limit_bytes == GIB
