"""No slot is written again while a copy that the program started from it is in flight; every byte is compared.

Each program runs with the right gate and with wrong ones. Those must show corruption: a test that they pass could not fail.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from keepfed.loader import pinned
from keepfed.loader.arena import NOTES_BYTES
from keepfed.loader.pinned import Pinning
from tests.loader.carrier import Carrier
from tests.loader.fake_gpu import CurrentStreamOnly, FakeGpu, NeverQuiet, NoEvent, leave, plug_in

BATCHES = 40
ELEMENTS = 30_000
"""As float32 large enough to be leased."""
BEHIND = 5
"""Ticks that the GPU sleeps for every batch, while one passes: it is further and further behind."""


class Training:
    """One program: takes batches, copies them to the GPU in its own way, and drops them."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.carrier = Carrier(pinning=Pinning(gpu))
        self.copies: dict[int, torch.Tensor] = {}

    def batches(self) -> Iterator[tuple[int, torch.Tensor]]:
        for number in range(BATCHES):
            yield number, self.carrier([torch.full((ELEMENTS,), float(number))])[0]
            self.gpu.tick()

    def copy(self, number: int, batch: torch.Tensor) -> None:
        assert self.gpu.is_pinned(batch)
        self.gpu.sleep(BEHIND)
        self.copies[number] = self.gpu.copy(batch)

    def wrong(self) -> list[int]:
        """Batches whose bytes on the GPU are not their own."""
        self.gpu.finish()
        return [number for number, there in self.copies.items() if not bool((there == number).all())]

    def close(self) -> None:
        self.carrier.book.collect()
        self.gpu.capture = False
        self.gpu.finish()
        self.carrier.book.collect()
        pinned.bequeath(self.carrier.book)
        vars(self.carrier).clear()  # a cycle, which would keep the memory until a collection
        leave(self.gpu)


def on_the_default_stream(training: Training) -> None:
    for number, batch in training.batches():
        training.copy(number, batch)
        del batch


def on_a_side_stream(training: Training) -> None:
    """The stream is dropped after its `with`."""
    for number, batch in training.batches():
        with training.gpu.stream(training.gpu.new_stream()):
            training.copy(number, batch)
        del batch


def one_ahead(training: Training) -> None:
    """A prefetcher: the next batch is copied on its stream while the default stream computes."""
    side = training.gpu.new_stream()
    for number, batch in training.batches():
        with training.gpu.stream(side):
            training.copy(number, batch)
        training.gpu.sleep(1)
        del batch


def in_a_thread(training: Training) -> None:
    """Which has a current stream of its own."""

    def transfer(number: int, batch: torch.Tensor) -> None:
        with training.gpu.stream(training.gpu.new_stream()):
            training.copy(number, batch)

    for number, batch in training.batches():
        thread = threading.Thread(target=transfer, args=(number, batch))
        thread.start()
        thread.join()
        del batch, thread


PROGRAMS = [on_the_default_stream, on_a_side_stream, one_ahead, in_a_thread]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Training]]:
    made: list[Training] = []

    def begin(kind: type[FakeGpu]) -> Training:
        gpu = kind()
        plug_in(gpu, monkeypatch)
        made.append(Training(gpu))
        return made[-1]

    yield begin
    while made:
        made.pop().close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_byte_on_the_gpu_is_the_batchs_own(program: Any, train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    program(training)
    assert training.wrong() == []
    assert not training.gpu.capture_broken


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_an_event_every_program_gets_wrong_bytes(program: Any, train: Callable[..., Training]) -> None:
    training = train(NoEvent)
    program(training)
    assert len(training.wrong()) > BATCHES / 2


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_an_event_on_the_current_stream_alone_corrupts_side_streams(
    program: Any, train: Callable[..., Training]
) -> None:
    training = train(CurrentStreamOnly)
    program(training)
    assert len(training.wrong()) > BATCHES / 2


def with_a_capture(training: Training) -> None:
    """Batches come and go while a graph is captured; the copies of those before it are still in flight."""
    for number, batch in training.batches():
        if 10 < number <= 20:
            training.gpu.capture = number < 20
        else:
            training.copy(number, batch)
        del batch


def test_a_capture_survives_and_slots_wait_until_it_is_over(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    with_a_capture(training)
    assert training.wrong() == []
    assert not training.gpu.capture_broken


def test_bookkeeping_during_a_capture_breaks_it(train: Callable[..., Training]) -> None:
    training = train(NeverQuiet)
    with_a_capture(training)
    assert training.gpu.capture_broken


def test_an_event_that_a_finalizer_records_breaks_a_capture(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)

    class Eager(deque[Any]):
        def append(self, lease: Any) -> None:
            training.gpu.mark()
            super().append(lease)

    training.carrier.book._dead = Eager()
    with_a_capture(training)
    assert training.gpu.capture_broken


def test_slots_are_used_again_once_the_gpu_is_past_them(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    for _, batch in training.batches():
        training.gpu.copy(batch)
        training.gpu.tick()
        del batch
    assert len(training.carrier.slots.slots) <= 3
    assert len(training.gpu.ranges) <= 3, "each is registered once"


def test_one_mark_stands_for_all_that_was_dropped_since_the_last(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    held = [batch for _, batch in training.batches()]
    before = training.gpu.marks
    held.clear()
    training.carrier.book.collect()
    assert training.gpu.marks == before + 1
    training.carrier.book.collect()
    assert training.gpu.marks == before + 1, "nothing was dropped, nothing is marked"


def test_a_batch_that_was_copied_out_waits_for_no_gpu(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    training.carrier.copy_all = True
    for number, batch in training.batches():
        training.gpu.sleep(BEHIND)
        assert int(batch[0]) == number
        del batch
    assert len(training.carrier.slots.slots) == 1
    assert training.gpu.marks == 0


def test_a_slot_that_was_delivered_once_and_then_given_up_waits_for_the_gpu(train: Callable[..., Training]) -> None:
    """Ctrl-C between the start of a copy and the return of next(); the epoch is left after it."""
    training = train(FakeGpu)
    book = training.carrier.book
    owner = book.lease((0, 1), 1 << 17)
    training.gpu.sleep(BEHIND)
    book.revoke((0, 1))
    del owner
    book.give_back((0, 1))
    book.collect()
    assert book.idle() == ()
    assert not book.returned()
    training.gpu.finish()
    book.collect()
    assert book.idle() == ((0, 1),)
    assert book.returned()


def test_no_page_of_a_registered_slot_is_given_back_to_the_system(train: Callable[..., Training]) -> None:
    """Batches grow past what the slots may take together: small free slots are cooled, after they were unregistered."""
    training = train(FakeGpu)
    training.carrier.slots.allowance_bytes = 1 << 20
    for size in (20_000, 40_000, 80_000, 160_000, 200_000):
        for number in range(3):
            batch = training.carrier([torch.full((size,), float(number))])[0]
            assert bool((batch == number).all())
            del batch
    cold = [slot for slot in training.carrier.slots.slots.values() if slot.cold]
    assert cold
    base = training.carrier.book.region.address
    assert not any(base + slot.offset in training.gpu.ranges for slot in cold)
    assert ("unregister", base + cold[0].offset) in training.gpu.log


def test_a_slot_that_a_gpu_still_reads_is_not_unregistered_for_the_worker(train: Callable[..., Training]) -> None:
    training = train(FakeGpu)
    batch = training.carrier([torch.zeros(ELEMENTS)])[0]
    training.copy(0, batch)
    del batch
    assert not training.carrier.book.unpin(NOTES_BYTES, 4096), "leased, as far as is known"
    training.carrier.book.collect()
    assert not training.carrier.book.unpin(NOTES_BYTES, 4096), "a copy is in flight"
    training.gpu.finish()
    training.carrier.book.collect()
    assert training.carrier.book.unpin(NOTES_BYTES, 4096)
