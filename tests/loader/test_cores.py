"""Steered loaders of one process share its cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import keepfed.loader.api as keepfed
from keepfed.host.facts import read_host
from keepfed.loader import cores, seam
from keepfed.loader.budget import WORKER_BYTES
from keepfed.loader.cores import Cores, most_workers
from keepfed.loader.identity import identify
from keepfed.plan import Plan
from keepfed.policy.cost import Bounds
from keepfed.policy.window import Observation
from tests.loader.steered import Plain, indices

ALONE = Bounds(1, most_workers(4, 16.0), 16.0, 1e9, max_outstanding=256)


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    keepfed.uninstall()


def test_what_the_others_use_is_not_there_for_a_loader() -> None:
    shared = Cores()
    mine, other = shared.join(), shared.join()
    assert shared.bounds(ALONE, Plan(4), mine) == ALONE
    other.working(12)
    other.measured(9.5)
    left = shared.bounds(ALONE, Plan(4), mine)
    assert (left.cores, left.max_workers) == (6.5, 26)
    assert shared.bounds(ALONE, Plan(4), other) == ALONE


def test_before_anything_was_measured_a_worker_is_a_core() -> None:
    shared = Cores()
    mine, other = shared.join(), shared.join()
    other.working(3)
    assert shared.beside(mine) == 3.0
    other.measured(20.0)
    assert shared.beside(mine) == 3.0


def test_one_core_and_the_count_that_was_asked_for_always_stay() -> None:
    shared = Cores()
    mine, other = shared.join(), shared.join()
    other.working(64)
    left = shared.bounds(ALONE, Plan(12), mine)
    assert (left.cores, left.max_workers, left.min_workers) == (1.0, 12, 1)


def test_a_loader_whose_epoch_is_over_or_that_was_left_uses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Cores()
    other = shared.join()
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    other.working(4)
    assert shared.beside(None) == 4.0
    now_s += cores.FORGOTTEN_S + 1
    assert shared.beside(None) == 0.0
    other.working(4)
    other.stopped()
    assert shared.beside(None) == 0.0


def test_two_auto_loaders_at_once_do_not_each_start_a_worker_per_core() -> None:
    count = read_host().cores.whole or 1
    first, second, third = (keepfed.DataLoader(Plain(32), batch_size=4, num_workers="auto") for _ in range(3))
    batches: list[Any] = []
    one: Any = iter(first)
    other: Any = iter(second)
    assert (len(one._workers), len(other._workers)) == (count, 1)
    for _ in range(8):
        batches += [next(one), next(other)]
    assert indices(batches[::2]) == indices(batches[1::2]) == list(range(32))
    for iterator in (one, other):
        with pytest.raises(StopIteration):
            next(iterator)
    alone: Any = iter(third)
    assert len(alone._workers) == count


def test_a_loader_is_judged_by_the_cores_that_the_others_leave() -> None:
    loader = keepfed.DataLoader(Plain(400), batch_size=4, num_workers="auto")
    iterator: Any = iter(loader)
    fleet = seam._fleet[0]
    pilot = fleet._pilots[identify(loader)]
    other = fleet._session.cores.join()
    pilot._bounds = replace(pilot._bounds, cores=8.0)
    other.working(64)
    other.measured(4.5)
    pilot._judge(Observation(pilot.plan, now_s=1.0, batches=20, elapsed_s=2.0, wait_s=1.0, fetch_cpu_s=1.5), iterator)
    assert pilot._controller.bounds.cores == 3.5
    assert fleet._session.cores.beside(other) == 0.75


def test_workers_that_memory_has_no_room_for_are_not_started() -> None:
    assert Cores().first_guess(Plan(64), 4 * WORKER_BYTES) == Plan(2)
    assert Cores().first_guess(Plan(64), 1.0) == Plan(1)
    assert Cores().first_guess(Plan(8), 64 << 30) == Plan(8)
