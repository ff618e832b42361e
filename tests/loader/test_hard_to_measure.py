"""Loops that are hard to measure: too short, without a step, with pauses, several by turns. A pilot and a clock of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepfed.events import Moved, Settled, Window
from keepfed.loader import pilot as pilots
from keepfed.loader.pilot import Pilot
from keepfed.plan import LoaderId, Plan
from tests.loader.steered import Steered, steered
from tests.loader.test_pilot import Iterated


class Clock:
    """The seconds of one program."""

    def __init__(self) -> None:
        self.now_s = 100.0


class Loop(Iterated):
    """Epochs of one loader: workers prepare ahead, the step takes `step_s`, a batch `fetch_s` in one worker."""

    def __init__(self, pilot: Pilot, clock: Clock, *, step_s: float, fetch_s: float) -> None:
        super().__init__(pilot.plan, fetch_s)
        self.pilot, self.clock, self.step_s = pilot, clock, step_s

    def epoch(self, batches: int, *, pauses: dict[int, float] | None = None) -> None:
        """One epoch; before the n-th batch is asked for the program does something else for `pauses[n]` seconds."""
        self.pilot.epoch_started()
        for number in range(batches):
            self.clock.now_s += (pauses or {}).get(number, 0.0)
            self._one()
        self.pilot.epoch_ended()

    def _one(self) -> None:
        workers = self.active_workers()
        supply_s = self.fetch_s / max(1, len(workers))
        asked_s = self.clock.now_s + self.step_s
        self.clock.now_s = asked_s + max(0.001, supply_s - self.step_s)
        for worker in workers:
            if len(self.pilot._made) < len(workers) or worker == int(self.clock.now_s * 1e4) % len(workers):
                self.pilot.made(worker, self.fetch_s, 0.5 * self.fetch_s, 1000)
        if min(map(self.pilot._made.__getitem__, workers)) < pilots.WARM_BATCHES:
            for worker in workers:
                self.pilot.made(worker, self.fetch_s, 0.5 * self.fetch_s, 1000)
        self.pilot.delivered(self, asked_s, self.clock.now_s)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steered]:
    monkeypatch.setattr("keepfed.host.busy.CoreClock.__call__", lambda _: [10.0] * 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with steered(tmp_path) as found:
        yield found


def loop(
    host: Steered, clock: Clock, *, step_s: float, fetch_s: float, name: str = "train.py:41", workers: int = 2
) -> Loop:
    loader = LoaderId(name, "data.Photos")
    pilot = Pilot(loader, 8, Plan(workers), host.fleet._session)
    host.fleet._pilots[loader] = pilot
    return Loop(pilot, clock, step_s=step_s, fetch_s=fetch_s)


def settled(loop: Loop, *, batches: int, epochs: int = 400) -> int:
    """Epochs until the search is over."""
    for number in range(1, epochs + 1):
        loop.epoch(batches)
        if loop.pilot._reports.has_settled:
            return number
    raise AssertionError(f"not settled after {epochs} epochs: {loop.changes}")


def test_a_program_that_is_over_before_a_window_keeps_its_plan_and_is_told_so(host: Steered) -> None:
    short = loop(host, Clock(), step_s=0.02, fetch_s=0.2)
    short.epoch(7)
    assert short.changes == []
    assert host.events(Window) == []
    journal = short.pilot.tally.journal
    assert journal is not None
    assert "not measured yet" in str(journal.read(short.pilot.plan))
    short.pilot.ended()
    assert host.events(Settled) == []


@pytest.mark.parametrize("fetch_s", [0.05, 0.0])
def test_a_loop_without_a_step_is_searched_and_ends(host: Steered, fetch_s: float) -> None:
    bare = loop(host, Clock(), step_s=0.0, fetch_s=fetch_s)
    settled(bare, batches=1000)
    assert not bare.pilot._lost
    assert len(bare.changes) <= 6
    assert host.events(Settled)[0].limited_by != "step"
    assert bare.plan.num_workers >= (3 if fetch_s == 0.05 else 1)


def test_epochs_of_one_batch_are_measured_together_and_settle(host: Steered) -> None:
    single = loop(host, Clock(), step_s=0.5, fetch_s=0.1)
    assert settled(single, batches=1) < 100
    assert host.events(Window)[0].batches >= 8
    assert single.plan == Plan(1)


def test_short_epochs_add_up_without_their_first_batches(host: Steered) -> None:
    short = loop(host, Clock(), step_s=0.1, fetch_s=0.02)
    for _ in range(12):
        short.epoch(5)
    first = host.events(Window)[0]
    assert first.batches % 4 == 0
    assert first.elapsed_s == pytest.approx(first.batches * 0.1, rel=0.01)


@pytest.mark.parametrize("pause_s", [3.0, 60.0, 3600.0])
@pytest.mark.parametrize("step_s", [0.05, 0.5])
def test_a_pause_is_not_read_as_a_slow_step(host: Steered, pause_s: float, step_s: float) -> None:
    """An evaluation in the middle of every epoch, a checkpoint before its end, from the first epoch on."""
    paused = loop(host, Clock(), step_s=step_s, fetch_s=0.15)
    pauses = {40: pause_s, 90: pause_s}
    while not paused.pilot._reports.has_settled:
        paused.epoch(100, pauses=pauses)
    chosen, moves = paused.plan, len(paused.changes)
    for _ in range(20):
        paused.epoch(100, pauses=pauses)
    assert (paused.plan, len(paused.changes)) == (chosen, moves)
    assert len(host.events(Settled)) == 1
    rates = [window.batches / window.elapsed_s for window in host.events(Window) if window.plan == chosen]
    assert min(rates) > 0.9 * max(rates)


def test_an_epoch_that_is_begun_anew_in_its_middle_is_measured_on(host: Steered) -> None:
    """The program breaks out of its loop after thirty batches, a second iter() takes over."""
    broken = loop(host, Clock(), step_s=0.05, fetch_s=0.15)
    for _ in range(60):
        broken.pilot.epoch_started()
        for _ in range(30):
            broken._one()
    (end,) = host.events(Settled)
    assert end.plan.num_workers in (3, 4)
    assert not broken.pilot._lost


def test_training_and_validation_by_turns_keep_plans_of_their_own(host: Steered) -> None:
    """Validation has cheap samples and no step to speak of, training dear ones; each is at rest while the other runs."""
    clock = Clock()
    training = loop(host, clock, step_s=0.05, fetch_s=0.15)
    validation = loop(host, clock, step_s=0.02, fetch_s=0.01, name="train.py:60")
    for _ in range(40):
        training.epoch(60)
        validation.epoch(120)
    plans = training.plan, validation.plan
    assert training.plan.num_workers in (3, 4)
    assert validation.plan.num_workers == 1
    assert len(host.events(Settled)) == 2
    for _ in range(20):
        training.epoch(60)
        validation.epoch(120)
    assert (training.plan, validation.plan) == plans
    assert len(host.events(Settled)) == 2


def test_a_loader_that_validates_within_the_others_epoch_leaves_it_its_cores(
    host: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("keepfed.loader.cores.time.monotonic", lambda: clock.now_s)
    training = loop(host, clock, step_s=0.05, fetch_s=0.4)
    settled(training, batches=400)
    training.pilot.epoch_started()
    for _ in range(200):
        training._one()
    validation = loop(host, clock, step_s=0.0, fetch_s=0.4, name="train.py:60")
    shared = host.fleet._session.cores
    free = validation.pilot._bounds.cores - shared.beside(validation.pilot._use)
    bounds = shared.bounds(validation.pilot._bounds, validation.pilot.asked, validation.pilot._use)
    assert bounds.cores == pytest.approx(max(1.0, free))
    assert bounds.cores < validation.pilot._bounds.cores
    training.pilot.epoch_ended()
    assert shared.bounds(validation.pilot._bounds, validation.pilot.asked, validation.pilot._use).cores > bounds.cores
    assert bool(host.events(Moved))
