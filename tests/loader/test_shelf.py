"""Regions go from epoch to epoch, never while anybody can still read or write them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils.data import Dataset

from keepfed.loader.api import DataLoader
from keepfed.loader.arena import Region
from keepfed.loader.lease import LeaseBook
from keepfed.loader.shelf import Shelf, shelf_of

SIZE_BYTES = 1 << 30


class Planes(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((200_000,), index, dtype=torch.int32)


def test_a_region_that_is_back_is_taken_again() -> None:
    shelf = Shelf()
    region = shelf.take(SIZE_BYTES)
    shelf.put_back(LeaseBook(region))
    assert shelf.take(SIZE_BYTES) is region
    assert shelf.take(SIZE_BYTES) is not region


def test_a_region_waits_until_the_program_dropped_its_last_batch() -> None:
    shelf = Shelf()
    region = shelf.take(SIZE_BYTES)
    book = LeaseBook(region)
    owner = book.lease((0, 1), 4096)
    shelf.put_back(book)
    assert shelf.take(SIZE_BYTES) is not region
    del owner
    assert shelf.take(SIZE_BYTES) is region


def test_the_next_epoch_writes_into_memory_that_exists_already() -> None:
    loader = DataLoader(Planes(), batch_size=1, num_workers=2)
    regions: list[set[int]] = []
    for _ in range(3):
        iterator: Any = iter(loader)
        regions.append({id(worker.book.region) for worker in iterator._workers})
        assert [int(batch[0, 0]) for batch in iterator] == list(range(8))
        del iterator
    assert regions[0] == regions[1] == regions[2]


def test_a_batch_that_is_kept_over_epochs_is_not_overwritten() -> None:
    loader = DataLoader(Planes(), batch_size=1, num_workers=1)
    kept = []
    for _ in range(3):
        for batch in loader:
            last = batch
        kept.append(last)
    assert [batch.unique().tolist() for batch in kept] == [[7]] * 3


def test_the_memory_goes_with_the_loader() -> None:
    loader = DataLoader(Planes(), batch_size=1, num_workers=1)
    list(loader)
    taken = shelf_of(loader).take(SIZE_BYTES)
    shelf_of(loader).put_back(LeaseBook(taken))
    region = weakref.ref(taken)
    del loader, taken
    gc.collect()
    assert region() is None


def test_a_batch_outlives_its_loader() -> None:
    loader = DataLoader(Planes(), batch_size=1, num_workers=1)
    batches = list(loader)
    del loader
    gc.collect()
    assert [batch.unique().tolist() for batch in batches] == [[number] for number in range(8)]


def test_a_region_of_a_worker_that_lives_is_on_no_shelf() -> None:
    shelf = Shelf()
    first, second = shelf.take(SIZE_BYTES), shelf.take(SIZE_BYTES)
    assert isinstance(first, Region)
    assert first is not second
    assert first.address != second.address


def test_a_region_that_is_put_back_twice_is_handed_out_once() -> None:
    """Ctrl-C may come between putting it back and the note of that; two workers in one region would be two writers."""
    shelf = Shelf()
    book = LeaseBook(shelf.take(1 << 30))
    shelf.put_back(book)
    shelf.put_back(book)
    assert shelf.take(1 << 30) is not shelf.take(1 << 30)
