"""What a loader that has settled could still gain: real steps on batches that are ready, each batch once and in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from keepfed.events import Ended, Settled, Surveyed
from keepfed.loader import survey
from keepfed.loader.crew import Crew
from keepfed.loader.survey import FEWEST_BATCHES, Steps
from keepfed.plan import Plan
from keepfed.policy.controller import Reason
from keepfed.policy.controller import Settled as Verdict
from keepfed.policy.window import Observation
from tests.loader.steered import Plain, Steered, indices, steered

LENGTH = 96
BATCH = 2


class Slow(Plain):
    """Samples that take their time."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)
        return super().__getitem__(index)


@contextmanager
def training(folder: Path, dataset: Plain, **config: Any) -> Iterator[tuple[Steered, DataLoader[Any]]]:
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=2)
    with steered(folder, **config) as run:
        yield run, loader


def settle(run: Steered, loader: DataLoader[Any], iterator: Any) -> None:
    """What the pilot does when the controller says that it has found the best."""
    pilot = run.pilot(loader)
    window = Observation(
        pilot.plan, time.monotonic(), batches=40, elapsed_s=0.4, wait_s=0.3, batch_bytes=100, all_warm=True
    )
    verdict = Verdict(pilot.plan, "workers", Reason("policy.settled_workers", {}))
    pilot._report_settled(verdict, window, iterator)


def test_the_steps_on_ready_batches_are_timed_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SHORTEST_GAP_S", 60.0)  # this machine may be busy with other things
    with training(tmp_path, Slow(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        batches = [next(iterator) for _ in range(5)]
        settle(run, loader, iterator)
        assert not run.events(Settled), "the launcher stops the program when it hears that"
        began_s = time.perf_counter()
        batches.append(next(iterator))
        assert time.perf_counter() - began_s < 2.0
        for batch in iterator:
            batches.append(batch)
            time.sleep(0.001)
        (found,), (settled,) = run.events(Surveyed), run.events(Settled)
        assert run.events().index(found) < run.events().index(settled)
    assert indices(batches) == list(range(LENGTH))
    assert FEWEST_BATCHES <= found.ready_batches <= LENGTH // BATCH
    assert 0.001 * (found.ready_batches - 2) < found.ready_s
    assert found.ready_wait_s < found.ready_s
    assert found.probe is not None
    assert found.probe["sample_s"] >= 0.005
    assert found.cores > 0


def test_workers_rest_while_the_stock_lasts_and_work_again_afterwards(tmp_path: Path) -> None:
    with training(tmp_path, Slow(LENGTH)) as (run, loader):
        iterator = run.iterator(loader)
        batches = [next(iterator)]
        crew: Crew = iterator.working_crew
        assert crew.stock_up(10, time.monotonic() + 20) == 10
        made = crew.tally.made
        batches += [next(iterator) for _ in range(9)]
        assert crew.tally.made == made
        assert crew._order.in_hand() == 0
        crew.go_on()
        assert crew._order.in_hand() > 1
        batches += list(iterator)
    assert indices(batches) == list(range(LENGTH))


def test_a_stock_that_is_used_up_does_not_stop_the_program(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH)) as (run, loader):
        iterator = run.iterator(loader)
        assert iterator.working_crew.stock_up(4, time.monotonic() + 20) == 4
        assert indices(list(iterator)) == list(range(LENGTH))


def test_near_the_end_of_an_epoch_the_stock_is_what_is_left(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH)) as (run, loader):
        iterator = run.iterator(loader)
        batches = [next(iterator) for _ in range(LENGTH // BATCH - 3)]
        assert iterator.working_crew.stock_up(10, time.monotonic() + 20) == 3
        assert indices([*batches, *iterator]) == list(range(LENGTH))


def test_a_program_that_leaves_the_epoch_is_told_what_is_known(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        next(iterator)
        settle(run, loader, iterator)
        next(iterator)
        assert not run.events(Settled)
        assert indices(list(run.iterator(loader))) == list(range(LENGTH)), "the next epoch is a whole one"
        (found,) = run.events(Surveyed)
        assert (found.ready_batches, found.ready_s) == (0, 0.0)
        assert len(run.events(Settled)) == 1


def test_ctrl_c_while_samples_are_timed_costs_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_crew: Crew) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(survey, "ask_probe", interrupted)
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        batches = [next(iterator)]
        with pytest.raises(KeyboardInterrupt):
            settle(run, loader, iterator)
        assert len(run.events(Settled)) == 1
        assert iterator.working_crew._order.at_most == 0, "nothing is held back"
        assert indices([*batches, *iterator]) == list(range(LENGTH))


def test_a_program_that_ends_meanwhile_has_still_settled(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        next(iterator)
        settle(run, loader, iterator)
        run.pilot(loader).ended()
        assert [type(event) for event in run.events()][-3:] == [Surveyed, Settled, Ended]


def test_an_evaluation_in_between_is_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SHORTEST_GAP_S", 0.0)
    monkeypatch.setattr(survey, "GAP", 20.0)
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        next(iterator)
        settle(run, loader, iterator)
        for number, _ in enumerate(iterator):
            time.sleep(0.3 if number == 4 else 0.001)
        (found,) = run.events(Surveyed)
        assert (found.ready_batches, found.ready_s) == (0, 0.0)


def test_with_keepfed_run_nothing_is_held_up(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH), mode="run") as (run, loader):
        iterator = run.iterator(loader)
        next(iterator)
        settle(run, loader, iterator)
        assert len(run.events(Settled)) == 1
        assert not run.events(Surveyed)


def test_a_loader_is_surveyed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "ask_probe", lambda _crew: None)
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        for _ in range(2):
            iterator = run.iterator(loader)
            next(iterator)
            settle(run, loader, iterator)
            list(iterator)
        assert len(run.events(Surveyed)) == 1
        assert len(run.events(Settled)) == 2


def test_with_other_ranks_nobody_is_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training(tmp_path, Plain(LENGTH), mode="tune") as (run, loader):
        iterator = run.iterator(loader)
        next(iterator)
        monkeypatch.setattr(run.fleet._session.agreement, "others", 1)
        settle(run, loader, iterator)
        (found,) = run.events(Surveyed)
        assert (found.ready_batches, found.probe) == (0, None)
        assert len(run.events(Settled)) == 1


class LateGpu:
    """A meter of a GPU that is behind: marks are numbers, and passed when the test says so."""

    def __init__(self) -> None:
        self.marks, self.passed = 0, False

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def between(self, first: int, last: int) -> float | None:
        return float(last - first) if self.passed else None


def test_on_a_gpu_the_steps_are_over_when_the_gpu_says_so() -> None:
    steps, gpu = Steps(), LateGpu()
    steps._meter = gpu  # type: ignore[assignment]  # stands for the meter of a GPU
    steps.begin()
    assert steps.seconds() is None
    steps.end()
    assert steps.seconds() is None
    gpu.passed = True
    assert steps.seconds() == 1.0


def test_steps_that_could_not_be_marked_are_not_timed() -> None:
    steps = Steps()
    steps._marks = [None, 1.0]
    assert steps.seconds() is None


def test_a_fixed_count_makes_the_batches_of_torch_whatever_is_in_stock(tmp_path: Path) -> None:
    with training(tmp_path, Plain(LENGTH), mode="run", exact=True) as (run, loader):
        torch.manual_seed(0)
        iterator = run.iterator(loader)
        batches = [next(iterator)]
        assert 1 <= iterator.working_crew.stock_up(10, time.monotonic() + 20) <= 4
        iterator.working_crew.go_on()
        assert indices([*batches, *iterator]) == list(range(LENGTH))
    assert Plan(2) == iterator.working_crew.plan
