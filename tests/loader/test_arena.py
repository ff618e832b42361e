"""Slots are reused as soon as nobody can read them, never before, and take no more memory than agreed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.loader.arena import IDLE_TAKES, PAGE, Region, Slot, SlotWriter, slot_capacity

MIB = 1 << 20


class Trainer:
    """Gives slots back when the test says so."""

    def __init__(self, writer_args: dict[str, Any]) -> None:
        self.releases: list[tuple[int, int]] = []
        self.asked = 0
        self.on_wait: list[tuple[int, int]] = []
        self.writer = SlotWriter(
            Region.create(1 << 30), wait_for_release=self._wait, released=self._released, **writer_args
        )

    def _released(self) -> list[tuple[int, int]]:
        given, self.releases = self.releases, []
        return given

    def _wait(self) -> bool:
        self.asked += 1
        self.releases += self.on_wait[:1]
        del self.on_wait[:1]
        return bool(self.releases)

    def deliver(self, nbytes: int, fill: int = 1) -> Slot:
        """One batch: take, write, send."""
        slot, owner = self.writer.take(nbytes)
        owner[:nbytes] = fill
        del owner
        self.writer.sent([slot])
        return slot


def trainer(allowance_bytes: int = 256 * MIB, **others: Any) -> Trainer:
    return Trainer({"allowance_bytes": allowance_bytes, **others})


def use(slot: Slot) -> tuple[int, int]:
    return slot.offset, slot.generation


def test_a_region_takes_memory_only_where_it_is_written_and_gives_it_back() -> None:
    region = Region.create(1 << 30)
    assert region.bytes_in_use() == 0
    region.owner(0, MIB)[:] = 1
    assert region.bytes_in_use() == MIB
    region.punch(0, MIB)
    assert region.bytes_in_use() == 0
    assert region.owner(0, MIB).max() == 0


def test_the_file_closes_with_the_region_and_the_memory_lives_as_long_as_an_owner() -> None:
    region = Region.create(1 << 30)
    fd, owner = region.fd, region.owner(PAGE, 100)
    owner[:] = 7
    del region
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert owner.sum() == 700


def test_a_region_that_outlives_the_interpreters_modules_goes_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    region = Region.create(PAGE)
    fd = region.fd
    monkeypatch.setattr("keepfed.loader.arena.os", None)  # what Python does with a module's globals at its end
    region.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_region_is_made_smaller_where_the_system_refuses_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.ftruncate

    def refuse(fd: int, size: int) -> None:
        if size > 1 << 31:
            raise OSError(27, "File too large")
        real(fd, size)

    monkeypatch.setattr(os, "ftruncate", refuse)
    assert Region.create(1 << 36).size_bytes == 1 << 30
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: refuse(fd, 1 << 40))
    with pytest.raises(OSError, match="File too large"):
        Region.create(1 << 36)


@given(st.integers(1, 1 << 40))
def test_a_slot_fits_and_wastes_at_most_an_eighth(nbytes: int) -> None:
    capacity = slot_capacity(nbytes)
    assert capacity >= nbytes
    assert capacity % PAGE == 0
    assert capacity - nbytes < max(PAGE, nbytes / 7)
    assert slot_capacity(capacity) == capacity


def test_a_slot_that_came_back_is_used_again_and_one_that_did_not_is_not() -> None:
    side = trainer()
    first, second = side.deliver(MIB), side.deliver(MIB)
    assert first is not second
    side.releases.append(use(second))
    assert side.deliver(MIB) is second
    assert first.generation == 1
    assert second.generation == 2


@pytest.mark.parametrize("wrong", ["old generation", "twice", "unknown slot"])
def test_a_stale_repeated_or_unknown_release_frees_nothing(wrong: str) -> None:
    side = trainer()
    slot = side.deliver(MIB)
    old = use(slot)
    side.releases.append(old)
    assert side.deliver(MIB) is slot
    side.releases += {"old generation": [old], "twice": [use(slot)] * 2, "unknown slot": [(12_345, 1)]}[wrong]
    again = [side.deliver(MIB) for _ in range(2)]
    assert again[0] is not again[1]
    assert (again[0] is slot) == (wrong == "twice")


def test_a_slot_that_code_in_the_worker_still_reads_is_not_written() -> None:
    side = trainer()
    slot, owner = side.writer.take(MIB)
    owner[:] = 5
    kept = owner[100:200]  # as a collate that keeps its previous result
    del owner
    side.writer.sent([slot])
    side.releases.append(use(slot))
    assert side.deliver(MIB) is not slot
    assert kept.sum() == 500
    del kept
    assert side.deliver(MIB) is slot


def test_a_batch_that_failed_half_way_leaves_its_slot_for_the_next() -> None:
    side = trainer()
    slot, owner = side.writer.take(MIB)
    del owner
    side.writer.unused(slot)
    assert side.deliver(MIB) is slot


def test_small_batches_leave_a_large_slot_alone() -> None:
    side = trainer()
    large = side.deliver(64 * MIB)
    side.releases.append(use(large))
    small = side.deliver(MIB)
    assert small is not large
    assert side.deliver(60 * MIB) is large


def test_one_outlier_is_paid_for_once() -> None:
    side = trainer()
    for number in range(60):
        slot = side.deliver(64 * MIB if number == 20 else MIB + number % 3 * 5_000)
        side.releases.append(use(slot))
    assert side.writer.region.bytes_in_use() < 64 * MIB + 6 * MIB


def test_slots_that_were_needed_once_give_up_their_pages() -> None:
    side = trainer()
    kept = [side.deliver(8 * MIB) for _ in range(12)]
    side.releases += [use(slot) for slot in kept]
    for _ in range(2 * IDLE_TAKES):
        slot = side.deliver(MIB)
        side.releases.append(use(slot))
    assert side.writer.region.bytes_in_use() <= 2 * MIB
    side.deliver(8 * MIB, fill=3)
    assert side.writer.region.bytes_in_use() <= 10 * MIB
    assert len(side.writer.slots) <= 14  # address space is used again


def test_a_slot_that_code_in_the_worker_still_reads_keeps_its_pages() -> None:
    side = trainer()
    read, owner = side.writer.take(8 * MIB)
    owner[:] = 5
    side.writer.sent([read])
    side.releases.append(use(read))
    for _ in range(3 * IDLE_TAKES):
        slot = side.deliver(MIB)
        side.releases.append(use(slot))
    assert owner.min() == 5


def test_batches_that_grow_reuse_and_cool_what_they_outgrew() -> None:
    side = trainer(allowance_bytes=24 * MIB)
    for nbytes in np.linspace(MIB, 16 * MIB, 60).astype(int):
        slot = side.deliver(int(nbytes))
        side.releases.append(use(slot))
    assert side.writer.region.bytes_in_use() <= 24 * MIB
    assert side.asked == 0


def test_past_the_allowance_a_batch_waits_for_a_slot_to_come_back() -> None:
    side = trainer(allowance_bytes=3 * MIB)
    slots = [side.deliver(MIB) for _ in range(3)]
    side.on_wait = [use(slots[1])]
    assert side.deliver(MIB) is slots[1]
    assert side.asked == 1


def test_one_batch_larger_than_the_allowance_is_made_all_the_same() -> None:
    side = trainer(allowance_bytes=3 * MIB)
    assert side.deliver(20 * MIB).capacity >= 20 * MIB


def test_a_worker_that_is_told_to_end_does_not_wait() -> None:
    side = trainer(allowance_bytes=2 * MIB)
    first, second, third = [side.deliver(MIB) for _ in range(3)]
    assert side.asked == 1
    assert len({first.offset, second.offset, third.offset}) == 3


def test_address_space_that_is_used_up_says_what_to_do() -> None:
    side = trainer(allowance_bytes=4 << 30)
    side.writer.take(600 * MIB)
    with pytest.raises(MemoryError, match="smaller batch_size or prefetch_factor"):
        side.writer.take(600 * MIB)


def test_verify_mode_overwrites_what_came_back() -> None:
    side = trainer(poison=True)
    slot = side.deliver(MIB, fill=9)
    kept = side.deliver(MIB, fill=8)
    side.releases.append(use(slot))
    side.writer.release(side.writer.released())
    assert (side.writer.region.owner(slot.offset, MIB) == 0xA5).all()
    assert (side.writer.region.owner(kept.offset, MIB) == 8).all()


@given(st.lists(st.tuples(st.integers(1, 3 * MIB), st.integers(0, 5)), min_size=5, max_size=60))
def test_slots_in_use_never_overlap(steps: list[tuple[int, int]]) -> None:
    side = trainer(allowance_bytes=8 * MIB)
    out: list[tuple[Slot, int]] = []
    for nbytes, back in steps:
        slot = side.deliver(nbytes)
        for other, _ in out:
            assert slot.offset + slot.capacity <= other.offset or other.offset + other.capacity <= slot.offset
        out.append((slot, nbytes))
        if back < len(out):
            side.releases.append(use(out.pop(back)[0]))
