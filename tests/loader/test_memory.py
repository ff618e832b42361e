"""A loader keeps within its memory, and what the program sees stays the same. Real workers; the host's limit is a stand-in."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from keepfed.host.headroom import Headroom, MemoryGauge
from keepfed.loader import memory, weight
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.memory import MemoryWatch
from keepfed.loader.shelf import shelf_of
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.policy import governor
from keepfed.policy.governor import Rung
from keepfed.policy.order import Order
from tests.loader.processes import wait_until
from tests.loader.side_by_side import Diary, Noisy, assert_same
from tests.loader.steered import Plain, indices

MIB = 1 << 20
FULL = Headroom(MIB, MIB, None, "/full")
EMPTY = Headroom(0, 1 << 50, None, "/empty")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is looked at before every task, and workers weigh themselves after every batch."""
    monkeypatch.setattr(memory, "LOOK_S", 0.0)
    monkeypatch.setattr(memory, "NEAR_S", 0.0)
    monkeypatch.setattr(memory, "COST_SHARE", 0)
    monkeypatch.setattr(weight, "SOONEST_S", 0.0)
    monkeypatch.setattr(weight, "COST_SHARE", 0)


@pytest.fixture
def host(often: None, monkeypatch: pytest.MonkeyPatch) -> list[Headroom]:
    """What the host has left: the last element."""
    found = [FULL]
    monkeypatch.setattr(MemoryGauge, "read", lambda _: found[-1])
    monkeypatch.setattr(governor, "CALM_S", 0.0)
    return found


@pytest.fixture
def unsteady(host: list[Headroom], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has memory and has none, as it comes."""
    pick = random.Random(3)
    monkeypatch.setattr(MemoryGauge, "read", lambda _: pick.choice([FULL, FULL, EMPTY]))
    monkeypatch.setattr(governor, "PROBATION_S", 0.0)


class Blocks(Dataset[Any]):
    """Samples of 2 MiB, each its index all over."""

    def __init__(self, length: int = 200) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.full((MIB // 2,), index, dtype=torch.int32)


class Hoarding(Plain):
    """Keeps 1 MiB for each sample that it makes, up to 48 in one worker."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.kept: list[bytearray] = []

    def __getitem__(self, index: int) -> Any:
        if len(self.kept) < 48:
            self.kept.append(bytearray(b"x") * MIB)
        return super().__getitem__(index)


class Uneven(IterableDataset[Any]):
    """Streams that end one after the other, and draw."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        for number in range(8 + 5 * info.id):
            yield info.id, number, torch.rand(())


def shared(loader: DataLoader, workers: int = 4, prefetch: int = 4, tally: Tally | None = None) -> Any:
    """An iterator whose worker count may change."""
    terms = Terms(Plan(workers, prefetch), fixed=False, max_workers=workers, lookahead=16)
    return EpochIter(loader, terms, tally or Tally())


# ---- the contract ---------------------------------------------------------------------------------------------------


def epochs(loader_class: type[TorchDataLoader[Any]], diary: Diary) -> None:
    loader = loader_class(
        Noisy(), batch_size=2, shuffle=True, num_workers=3, prefetch_factor=3, persistent_workers=True
    )
    for _ in range(2):
        diary.read(loader)


def left_half_way(loader_class: type[TorchDataLoader[Any]], diary: Diary) -> None:
    loader = loader_class(
        Noisy(), batch_size=2, shuffle=True, num_workers=2, prefetch_factor=3, persistent_workers=True
    )
    for read in (3, 1, 1_000):
        diary.read(loader, at_most=read)


def streams(loader_class: type[TorchDataLoader[Any]], diary: Diary) -> None:
    loader = loader_class(Uneven(), batch_size=None, num_workers=3, prefetch_factor=3, persistent_workers=True)
    for read in (6, 1_000):
        diary.read(loader, at_most=read)


@pytest.mark.parametrize("program", [epochs, left_half_way, streams])
def test_a_fixed_loader_without_memory_makes_torchs_batches(
    program: Callable[[type[TorchDataLoader[Any]], Diary], None], host: list[Headroom]
) -> None:
    assert_same(program)


@pytest.mark.parametrize("program", [epochs, left_half_way, streams])
def test_a_fixed_loader_whose_memory_comes_and_goes_makes_torchs_batches(
    program: Callable[[type[TorchDataLoader[Any]], Diary], None], unsteady: None
) -> None:
    assert_same(program)


def test_a_shared_loader_whose_memory_comes_and_goes_makes_every_batch_once_and_in_order(unsteady: None) -> None:
    iterator = shared(DataLoader(Plain(200), batch_size=2, num_workers=1))
    assert indices(list(iterator)) == list(range(200))


# ---- what is given up, and comes back -------------------------------------------------------------------------------


def test_without_memory_a_fixed_loader_prepares_one_batch_and_keeps_its_workers(host: list[Headroom]) -> None:
    loader = DataLoader(Plain(), batch_size=2, num_workers=2, prefetch_factor=4)
    iterator: Any = iter(loader)
    for _ in range(8):
        next(iterator)
    assert iterator.memory_allowed() == Rung(2, 1)
    assert sum(task.sent for task in iterator._crew._order.tasks.values()) == 1
    assert loader.stats().workers == 2
    assert len(list(iterator)) == 24


def test_without_memory_a_shared_loader_is_left_with_one_worker_and_gets_all_back(host: list[Headroom]) -> None:
    tally = Tally()
    iterator = shared(DataLoader(Plain(400), batch_size=2, num_workers=1), tally=tally)
    got = [next(iterator) for _ in range(20)]
    assert iterator.memory_allowed() == Rung(1, 1)
    assert len(iterator.active_workers()) == 1
    assert "1 of 16 batches" in tally.limited_by_memory
    assert "1 of 4 workers" in tally.limited_by_memory
    host.append(EMPTY)
    got += [next(iterator) for _ in range(20)]
    assert iterator.memory_allowed() is None
    assert len(iterator.active_workers()) == 4
    assert not tally.limited_by_memory
    assert indices([*got, *iterator]) == list(range(400))


def test_it_says_once_why_it_has_become_slower(host: list[Headroom], caplog: pytest.LogCaptureFixture) -> None:
    loader = DataLoader(Plain(), batch_size=2, num_workers=2, prefetch_factor=4)
    with caplog.at_level(logging.WARNING, "keepfed"):
        for _ in range(2):
            assert len(list(loader)) == 32
    (said,) = [record.message for record in caplog.records]
    assert "memory is short" in said
    assert "/full" in said
    assert "of 8 batches" in loader.stats().limited_by_memory


def test_a_new_plan_does_not_lift_the_limit(host: list[Headroom]) -> None:
    iterator = shared(DataLoader(Plain(400), batch_size=2, num_workers=1), workers=4)
    for _ in range(20):
        next(iterator)
    iterator.change_plan(Plan(3, 2))
    assert len(iterator.active_workers()) == 1
    assert iterator._crew._order.at_most == 1
    host.append(EMPTY)
    for _ in range(20):
        next(iterator)
    assert len(iterator.active_workers()) == 3
    assert iterator._crew._order.at_most == 0


def test_a_second_epoch_begins_as_the_first_one_ended(host: list[Headroom]) -> None:
    loader = DataLoader(Plain(), batch_size=2, num_workers=2, prefetch_factor=4, persistent_workers=True)
    assert len(list(loader)) == 32
    iterator: Any = iter(loader)
    assert sum(task.sent for task in iterator._crew._order.tasks.values()) == 1
    assert len(list(iterator)) == 32


def test_workers_without_work_give_their_slots_back(host: list[Headroom]) -> None:
    host.append(EMPTY)
    loader = DataLoader(Blocks(), batch_size=1, num_workers=2, prefetch_factor=8)
    iterator = iter(loader)
    next(iterator)
    wait_until(lambda: shelf_of(loader).bytes_in_use() > 24 * MIB, "the prefetch is not made")
    host.append(replace(FULL, used_bytes=1 << 40, limit_bytes=MIB))
    for _ in range(40):
        next(iterator)
    wait_until(lambda: shelf_of(loader).bytes_in_use() <= 3 * 2 * MIB, "free slots are kept")


def test_an_error_of_ours_ends_the_watch_and_not_the_training(
    often: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: MemoryGauge) -> Headroom:
        raise RuntimeError("ours")

    monkeypatch.setattr(MemoryGauge, "read", broken)
    assert len(list(DataLoader(Plain(), batch_size=2, num_workers=2))) == 32
    assert len([record for record in caplog.records if "no longer watched" in record.message]) == 1


# ---- a limit of the program's own -----------------------------------------------------------------------------------


def test_batches_keep_within_a_limit_that_the_prefetch_would_exceed(often: None) -> None:
    """At the first batch the program waits until the workers have filled what they may: unlimited, 400 MiB."""
    limit, most = 192 * MIB, 0
    loader = DataLoader(Blocks(), batch_size=2, num_workers=2, prefetch_factor=50, memory_limit=limit)
    iterator: Any = iter(loader)
    for number, batch in enumerate(iterator):
        assert batch[:, 0].tolist() == [2 * number, 2 * number + 1]
        if number == 0:
            wait_until(lambda: iterator.transport_bytes() > 100 * MIB, "batches are not prepared")
        most = max(most, loader.stats().memory_bytes, iterator.transport_bytes())
    assert most <= limit


def test_workers_that_grow_are_retired_before_the_limit(often: None) -> None:
    limit, tally = 160 * MIB, Tally()
    loader = DataLoader(Hoarding(1200), batch_size=8, num_workers=1, memory_limit=limit)
    iterator = shared(loader, tally=tally)
    most, got = 0, []
    for batch in iterator:
        got.append(batch)
        most = max(most, tally.memory_bytes)
    assert indices(got) == list(range(1200))
    assert len(iterator.active_workers()) < 4
    assert "of 4 workers" in tally.limited_by_memory
    assert "memory_limit" in tally.limited_by_memory
    assert most < limit + 2 * 48 * MIB  # retired workers make what they have in hand


# ---- what it costs --------------------------------------------------------------------------------------------------


def test_looking_takes_no_more_than_a_thousandth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    iterator: Any = iter(DataLoader(Plain(), batch_size=2, num_workers=1))
    watch: MemoryWatch = iterator._crew.memory
    now_s, looks = 1_000.0, 0

    def clock() -> float:
        return now_s

    def slow(*_: object) -> None:
        nonlocal now_s, looks
        now_s += 0.005
        looks += 1

    monkeypatch.setattr("keepfed.loader.memory.time.monotonic", clock)
    monkeypatch.setattr(watch, "_look", slow)
    watch._due_s = now_s
    order = Order(fixed=True)
    while now_s < 1_100.0:
        watch.look(Plan(1), order)
        now_s += 0.1
    assert 15 <= looks <= 21
