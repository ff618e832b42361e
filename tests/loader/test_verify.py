"""KEEPFED_VERIFY=1 notices bytes that are not the worker's, and leaves no given-back slot readable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import keepfed.loader.api as keepfed
from keepfed.errors import BatchCorrupted
from keepfed.loader.decode import changed_while_leased
from tests.loader.carrier import Carrier


class Ones:
    """Samples of which four make a leased batch."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> Any:
        return torch.ones(30_000), {"index": index}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slot_that_somebody_wrote_is_noticed_at_delivery(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("KEEPFED_VERIFY", "1")
    iterator: Any = iter(keepfed.DataLoader(Ones(), batch_size=4, num_workers=workers))
    crew = iterator._crew
    while not all(task.ready for task in crew._order.tasks.values()):
        crew.roster.pool().hear(1.0)
        crew._intake.take_in(crew._order, crew._epoch)
    task = next(iter(crew._order.tasks.values()))
    encoded, book = task.result
    offset, _, nbytes, checksum, _ = encoded.slots[0]
    assert checksum is not None
    book.region.owner(offset, nbytes)[nbytes // 2] ^= 1
    with pytest.raises(BatchCorrupted, match=str(nbytes)):
        next(iterator)
    assert next(iterator)[0].sum() == 120_000  # the next batch is whole


def test_nothing_is_noticed_where_nothing_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_VERIFY", "1")
    loader = keepfed.DataLoader(Ones(), batch_size=4, num_workers=2)
    for _ in range(2):
        for x, _ in loader:
            assert x.sum() == 120_000
            x.add_(1)  # a program may edit its batch


def test_without_the_switch_no_checksums_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEPFED_VERIFY", raising=False)
    iterator: Any = iter(keepfed.DataLoader(Ones(), batch_size=4, num_workers=1))
    crew = iterator._crew
    while not all(task.ready for task in crew._order.tasks.values()):
        crew.roster.pool().hear(1.0)
        crew._intake.take_in(crew._order, crew._epoch)
    assert {use[3] for task in crew._order.tasks.values() for use in task.result[0].slots} == {None}


@pytest.mark.parametrize("edited", [False, True])
def test_an_edit_of_a_leased_batch_is_seen_at_release(edited: bool) -> None:
    carry = Carrier(verify=True)
    batch = carry([torch.ones(200_000), "x"])
    if edited:
        batch[0][3] = 7
    changed: list[bool] = []
    del batch
    carry.book.collect(lambda lease: changed.append(changed_while_leased(lease, carry.book)))
    assert changed == [edited]


def test_a_slot_that_came_back_holds_nothing_of_its_batch() -> None:
    carry = Carrier(verify=True)
    kept = carry(torch.full((200_000,), 3.0))
    batch = carry(torch.ones(200_000))
    del batch
    carry(torch.ones(10))
    carry.slots.release(carry.slots.released())
    free = [slot for slot in carry.slots.slots.values() if not slot.out]
    assert len(free) == 1
    assert (carry.slots.region.owner(free[0].offset, free[0].capacity) == 0xA5).all()
    assert (kept == 3).all()
    assert np.isfinite(kept.numpy()).all()
