"""Where a worker's time goes: each second is counted once, in the part that spent it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from keepfed.loader import phases
from keepfed.loader.phases import PhaseSums, Stopwatch
from keepfed.plan import LoaderId, Plan
from keepfed.policy.window import Observation
from tests.loader.steered import steered


class Clock:
    """The clock of the module, as the test sets it."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.cpu_s

    def passes(self, seconds: float, *, computing: bool = True) -> None:
        self.now_s += seconds
        self.cpu_s += seconds if computing else 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(phases, "time", found)
    return found


def test_each_part_has_its_seconds_and_the_rest_is_the_datasets(clock: Clock) -> None:
    watch = Stopwatch()
    watch.begin()
    clock.passes(4.0, computing=False)
    watch.fetched()
    clock.passes(2.0)
    watch.made()
    clock.passes(1.0)
    assert watch.read() == (7.0, 3.0, (2.0, 1.0, 0.0))


def test_waiting_for_the_program_counts_for_no_part(clock: Clock) -> None:
    watch = Stopwatch()
    watch.begin()
    watch.fetched()
    clock.passes(2.0)
    watch.waited(0.5)
    watch.made()
    clock.passes(3.0)
    watch.waited(1.0)
    assert watch.read() == (5.0, 5.0, (1.5, 2.0, 1.5))


def test_a_dataset_of_whole_batches_has_no_collation_and_takes_over_nothing_from_the_batch_before(clock: Clock) -> None:
    watch = Stopwatch()
    watch.begin()
    watch.fetched()
    clock.passes(1.0)
    watch.made()
    watch.waited(1.0)
    watch.begin()
    clock.passes(5.0)
    watch.made()
    clock.passes(1.0)
    assert watch.read() == (6.0, 6.0, (0.0, 1.0, 0.0))


def test_a_breakdown_is_of_one_window(clock: Clock) -> None:
    sums, loader = PhaseSums(), LoaderId("train.py:1", "data.Photos")
    for expected in (1, 2):
        for _ in range(expected):
            sums.add(3.0, 2.0, (0.5, 0.25, 0.125))
        clock.passes(8.0)  # a fully busy training process
        window = Observation(Plan(2), clock.now_s, batches=4, elapsed_s=6.0, wait_s=0.0)
        found = sums.breakdown(loader, window, [])
        assert (found.batches, found.wall_s, found.cpu_s) == (expected, 3.0 * expected, 2.0 * expected)
        assert (found.collate_s, found.copy_s, found.room_s) == (0.5 * expected, 0.25 * expected, 0.125 * expected)
        assert found.trainer_cpu_s == pytest.approx(1.5), "6 s of one core for 4 batches"


class Slow(Dataset[Any]):
    """Takes its time in the dataset."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.02)
        return torch.full((4096,), float(index))


def slow_collate(samples: Any) -> Any:
    """Takes its time in collation, and leaves the tensor outside of shared memory."""
    time.sleep(0.01)
    return default_collate(samples).clone()


def test_workers_say_where_their_time_went(tmp_path: Path) -> None:
    loader = DataLoader(Slow(), batch_size=2, num_workers=1, collate_fn=slow_collate)
    with steered(tmp_path, mode="tune") as run:
        assert len(run.epoch(loader)) == 4
        sums = run.pilot(loader)._phases
    assert sums._batches == 4
    assert sums._wall_s - sums._collate_s - sums._copy_s >= 4 * 2 * 0.02
    assert sums._collate_s >= 4 * 0.01
    assert 0 < sums._copy_s < sums._wall_s
    assert sums._cpu_s < sums._wall_s, "it slept most of the time"


def test_the_queue_for_a_core_is_known_from_the_second_window_on(monkeypatch: pytest.MonkeyPatch) -> None:
    queued = {7: 1.0, 8: 5.0}
    monkeypatch.setattr(phases, "queued_s", queued.get)
    sums, loader = PhaseSums(), LoaderId("train.py:1", "data.Photos")
    window = Observation(Plan(2), 0.0, batches=4, elapsed_s=6.0, wait_s=0.0)
    assert sums.breakdown(loader, window, [7, 8]).queued_s is None
    queued |= {7: 1.5, 8: 5.25, 9: 3.0}
    assert sums.breakdown(loader, window, [7, 8, 9]).queued_s == pytest.approx(0.75 * 3 / 2), "9 is new"
    sums.start_over()
    assert sums.breakdown(loader, window, [7, 8, 9]).queued_s is None, "under another plan"
