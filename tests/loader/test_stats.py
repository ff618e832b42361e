"""`loader.stats()` counts what happened, over all epochs."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch.utils.data import TensorDataset

import keepfed.loader.api as keepfed
from keepfed.loader.stats import LoaderStats, Tally
from keepfed.plan import Plan


def loader_of(samples: int = 40, **options: object) -> keepfed.DataLoader:
    return keepfed.DataLoader(TensorDataset(torch.ones(samples, 30_000)), **{"batch_size": 4, **options})


def test_before_the_first_epoch_everything_is_zero() -> None:
    stats = loader_of(num_workers=2).stats()
    assert stats.plan is None
    numbers = [value for value in dataclasses.astuple(stats) if isinstance(value, int | float)]
    assert set(numbers) == {0}


def test_batches_samples_and_bytes_of_two_epochs_are_counted() -> None:
    loader = loader_of(42, num_workers=2)
    for _ in range(2):
        for _batch in loader:
            time.sleep(0.002)
    stats = loader.stats()
    assert (stats.batches, stats.samples, stats.epochs) == (22, 84, 2)
    assert stats.bytes == 84 * 30_000 * 4
    assert stats.plan == Plan(2, 2)
    assert stats.prefetch_factor == 2
    assert stats.step_s >= 0.002
    assert stats.batch_s > 0
    assert 0 < stats.wait_s <= stats.elapsed_s
    assert 11 * 0.002 <= stats.epoch_s <= stats.elapsed_s
    assert (stats.restarts, stats.redone_batches, stats.fallback) == (0, 0, "")


def test_a_snapshot_cannot_be_changed() -> None:
    stats = loader_of().stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.batches = 3  # type: ignore[misc]  # what is tested


def test_the_fields_are_the_documented_ones() -> None:
    assert [field.name for field in dataclasses.fields(LoaderStats)] == [
        "batches", "samples", "elapsed_s", "wait_s", "step_s", "batch_s", "epochs", "epoch_s", "workers",
        "prefetch_factor", "restarts", "redone_batches", "bytes", "skipped", "skipped_indices", "memory_bytes",
        "limited_by_memory", "fallback", "held", "plan",
    ]  # fmt: skip


def test_times_are_those_of_the_clock_that_was_given() -> None:
    tally = Tally()
    tally.begin_epoch(100.0)
    tally.delivered(100.0, 101.0, 8)  # one second of waiting
    tally.delivered(104.0, 104.5, 8)  # three of the program, half a one of waiting
    stats = tally.snapshot()
    assert (stats.elapsed_s, stats.wait_s, stats.step_s) == (4.5, 1.5, 1.5)
    assert (stats.batches, stats.samples) == (2, 16)
