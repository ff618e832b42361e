"""Registered memory: once, never twice, never unmapped or handed on before the driver has taken the registration back."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import namedtuple
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, default_collate

from keepfed.loader import budget, delivery, pinned, releases
from keepfed.loader.api import DataLoader
from keepfed.loader.arena import Region
from keepfed.loader.budget import Budget
from keepfed.loader.cuda import DriverError
from keepfed.loader.lease import LeaseBook
from keepfed.loader.pinned import Pinning, Pins
from keepfed.loader.shelf import Shelf
from tests.loader.fake_gpu import FakeGpu, leave, plug_in
from tests.loader.processes import program

WIDTH = 30_000
"""As float32 large enough to be leased."""
SIZE_BYTES = 1 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    fake = FakeGpu()
    plug_in(fake, monkeypatch)
    monkeypatch.setattr(releases, "GPU_PATIENCE_S", 0.002)  # it comes no nearer while it is waited for
    yield fake
    gc.collect()
    fake.refuses = False
    leave(fake)


class Planes(Dataset[Any]):
    """A large tensor and a small one, full of their index."""

    def __init__(self, length: int = 24) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.full((WIDTH,), float(index)), index


def loader_of(dataset: Dataset[Any], **options: Any) -> DataLoader:
    return DataLoader(dataset, **{"batch_size": 2, "num_workers": 2, "pin_memory": True, **options})


# ------------------------------------------------------------------------------------------------------------- whole loader


@pytest.mark.parametrize("persistent", [False, True], ids=["new workers", "persistent"])
def test_batches_are_torchs_and_pinned_where_they_lie(gpu: FakeGpu, persistent: bool) -> None:
    loader = loader_of(Planes(), shuffle=True, persistent_workers=persistent)
    theirs = TorchDataLoader(Planes(), batch_size=2, num_workers=1, shuffle=True, persistent_workers=persistent)
    for epoch in range(3):
        torch.manual_seed(epoch)
        expected = list(theirs)
        torch.manual_seed(epoch)
        for (x, y), (their_x, their_y) in zip(loader, expected, strict=True):
            assert torch.equal(x, their_x)
            assert torch.equal(y, their_y)
            assert x.is_pinned()
            assert y.is_pinned()
            assert gpu.registered(x), "no second copy"
        del x, y
    assert max(own.nbytes for own in gpu.torchs) <= 16, "only labels are in torch's pinned memory"
    registered = [address for what, address in gpu.log if what == "register"]
    assert len(registered) == len(set(registered)), "each slot once, for all epochs"
    assert loader.stats().fallback == ""


@pytest.mark.parametrize("persistent", [False, True], ids=["new workers", "persistent"])
def test_every_byte_is_right_on_a_gpu_that_is_far_behind(gpu: FakeGpu, persistent: bool) -> None:
    loader = loader_of(Planes(48), persistent_workers=persistent)
    side, copies = gpu.new_stream(), []
    for _ in range(2):
        for number, (x, _) in enumerate(loader):
            with gpu.stream(side):
                gpu.sleep(3)
                copies.append((number, gpu.copy(x)))
            gpu.tick()
            del x
    gpu.finish()
    for number, there in copies:
        assert there[:, 0].tolist() == [2.0 * number, 2.0 * number + 1]
        assert torch.equal(there.amin(1), there.amax(1))


def test_the_memory_of_a_loader_that_is_gone_is_unregistered_first_and_unmapped_then(gpu: FakeGpu) -> None:
    """That it is still mapped when it is unregistered, the fake driver asserts."""
    loader = loader_of(Planes())
    held = [batch[0] for batch in loader][-1]
    gpu.sleep(9)
    copy = gpu.copy(held)
    del loader
    gc.collect()
    pinned.settle()
    assert gpu.registered(held), "the program has it"
    del held
    pinned.settle()
    assert gpu.ranges, "the GPU has it"
    gpu.finish()
    pinned.settle()
    assert not gpu.ranges
    assert copy[:, 0].tolist() == [22.0, 23.0]
    assert sorted(address for what, address in gpu.log if what == "register") == sorted(
        address for what, address in gpu.log if what == "unregister"
    )


def test_a_driver_that_refuses_is_named_once_and_torch_copies(gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
    gpu.refuses = True
    loader = loader_of(Planes())
    with caplog.at_level(logging.WARNING, "keepfed"):
        for _ in range(2):
            for number, (x, _) in enumerate(loader):
                assert x.is_pinned()
                assert not gpu.registered(x)
                assert x[0, 0] == 2 * number
    assert len(caplog.records) == 1
    assert "CUDA_ERROR_OUT_OF_MEMORY" in caplog.text


def test_the_copy_transport_registers_nothing(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_TRANSPORT", "copy")
    for number, (x, y) in enumerate(loader_of(Planes())):
        assert x.is_pinned()
        assert y.tolist() == [2 * number, 2 * number + 1]
        assert torch.equal(x, y[:, None].float().expand(-1, WIDTH))
    assert not gpu.log


def test_an_accelerator_that_is_not_nvidias_gets_torchs_pinned_memory(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("xpu"))
    for number, (x, _) in enumerate(loader_of(Planes())):
        assert x.is_pinned()
        assert x[0, 0] == 2 * number
    assert not gpu.log
    assert gpu.torchs


Pair = namedtuple("Pair", "image label")  # noqa: PYI024  # as programs write it


class Boxed:
    """A batch type of the program's own."""

    def __init__(self, samples: list[Any]) -> None:
        self.inner = default_collate(samples)
        self.asked = 0

    def pin_memory(self) -> Boxed:
        self.asked += 1
        return self


def test_containers_are_rebuilt_and_objects_asked_as_torch_does(gpu: FakeGpu) -> None:
    def collate(samples: list[Any]) -> Any:
        x, y = default_collate(samples)
        return {"pair": Pair(x, y), "names": ["a", b"b"], "boxed": Boxed(samples)}

    for number, batch in enumerate(loader_of(Planes(8), collate_fn=collate)):
        assert type(batch["pair"]) is Pair
        assert batch["pair"].image.is_pinned()
        assert batch["pair"].label.tolist() == [2 * number, 2 * number + 1]
        assert batch["names"] == ["a", b"b"]
        assert batch["boxed"].asked == 1


def test_a_gpu_that_is_far_behind_is_waited_for_once_per_slot(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by slots of which nothing is ever registered: here those of long texts."""
    waits: list[int] = []
    monkeypatch.setattr(delivery, "wait_for_gpu", lambda book: waits.append(1))

    def collate(samples: list[Any]) -> Any:
        x, y = default_collate(samples)
        return x if y[0] % 4 else ["x" * 50_000]

    gpu.sleep(1_000_000)
    for batch in loader_of(Planes(160), num_workers=1, collate_fn=collate):
        if isinstance(batch, torch.Tensor):
            gpu.copy(batch)
        del batch
    assert 30 < len(waits) <= 40 + 5
    gpu.streams[0].queue[0].ticks = 0


def test_there_is_no_thread_that_pins_and_who_asks_hears_that_it_is_gone(gpu: FakeGpu) -> None:
    iterator: Any = iter(loader_of(Planes()))
    assert not iterator._pin_memory_thread.is_alive()
    iterator._pin_memory_thread.join()


def test_workers_without_a_slot_left_wait_for_the_gpu_and_training_goes_on(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that runs for ever: what fits the budget waits behind it, what does not is copied by torch."""
    monkeypatch.setattr(budget, "shared", Budget(lambda: 8 << 20))
    gpu.sleep(1_000_000)
    copies = []
    for number, (x, _) in enumerate(loader_of(Planes(96))):
        assert x[0, 0] == 2 * number
        copies.append(gpu.copy(x))
        del x
    assert 2 <= len(gpu.ranges) <= 2 * 18
    gpu.streams[0].queue[0].ticks = 0
    gpu.finish()
    assert [int(there[1, -1]) for there in copies] == list(range(1, 96, 2))


class Growing(Dataset[torch.Tensor]):
    """Samples that are longer and longer, as sentences sorted by length."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((20_000 * (1 + index // 6),), float(index))


def test_workers_ask_before_they_give_pages_of_registered_slots_back(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "shared", Budget(lambda: 5 << 20))
    iterator: Any = iter(loader_of(Growing(), batch_size=1))
    copies = []
    for number, batch in enumerate(iterator):
        assert batch.is_pinned()
        assert bool((batch == number).all())
        copies.append(gpu.copy(batch))
        gpu.tick()
        del batch
    assert "unregister" in {what for what, _ in gpu.log}
    gpu.finish()
    assert all(bool((there == number).all()) for number, there in enumerate(copies))
    assert sum(worker.book.region.bytes_in_use() for worker in iterator._workers) < 2 * 4 << 20


def test_a_capture_survives_batches_that_come_and_go(gpu: FakeGpu) -> None:
    copies = []
    for number, (x, y) in enumerate(loader_of(Planes(80))):
        gpu.capture = 10 <= number < 20
        if not gpu.capture and x.is_pinned():
            gpu.sleep(3)
            copies.append((number, gpu.copy(x)))
        assert y.tolist() == [2 * number, 2 * number + 1]
        assert x[1, -1] == 2 * number + 1
        gpu.tick()
        del x
    assert not gpu.capture_broken
    gpu.finish()
    assert len(copies) > 20
    assert all(int(there[1, 0]) == 2 * number + 1 for number, there in copies)


def test_a_forked_child_leaves_the_registrations_alone(gpu: FakeGpu) -> None:
    loader = loader_of(Planes())
    held = [next(iter(loader))]

    def child(pipe: Connection) -> None:
        before = list(gpu.log)
        held.clear()
        gc.collect()
        pinned.settle()
        pipe.send(gpu.log == before and pinned.registered_bytes() == 0)

    with program(child) as running:
        assert running.hear() is True
        running.wait()
    assert pinned.registered_bytes() > 0


# ---------------------------------------------------------------------------------------------------------------- registry


def pins_of(gpu: FakeGpu) -> tuple[Region, Pins]:
    region = Region.create(SIZE_BYTES)
    region.pins = Pins(Pinning(gpu), region)
    return region, region.pins


def test_a_slot_is_registered_once(gpu: FakeGpu) -> None:
    region, pins = pins_of(gpu)
    for _ in range(3):
        pins.pin(8192, 4096)
    assert gpu.log == [("register", region.address + 8192)]
    assert pinned.registered_bytes() == 4096
    assert pins.unpin_all()


def test_a_range_that_overlaps_anothers_memory_is_refused(gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
    region, pins = pins_of(gpu)
    pinned._ranges[region.address] = pinned._Range(region.address + 16384, memory=None)
    pins.pin(12288, 4096)
    del pinned._ranges[region.address]
    assert "overlaps" in caplog.text
    assert not gpu.ranges


def test_slots_of_an_earlier_worker_make_room_for_those_of_the_next(gpu: FakeGpu) -> None:
    region, pins = pins_of(gpu)
    pins.pin(0, 8192)
    pins.pin(8192, 8192)
    pins.pin(16384, 4096)
    pins.pin(4096, 8192)
    start = region.address
    assert gpu.ranges == {start + 16384: start + 20480, start + 4096: start + 12288}
    pins.pin(4096, 16384)
    assert gpu.ranges == {start + 4096: start + 20480}
    assert pins.unpin_all()


def test_the_next_epochs_workers_may_cut_their_regions_otherwise(gpu: FakeGpu) -> None:
    class Wider(Planes):
        width = 30_000

        def __getitem__(self, index: int) -> Any:
            return torch.full((self.width,), float(index)), index

    dataset = Wider()
    loader = loader_of(dataset)
    for width in (30_000, 40_000, 21_000, 90_000):
        dataset.width = width
        copies = []
        for x, _ in loader:
            assert x.shape == (2, width)
            assert gpu.registered(x), "all of it"
            copies.append(gpu.copy(x))
            gpu.tick()
            del x
        gpu.finish()
        assert [int(there[1, -1]) for there in copies] == list(range(1, 24, 2))


def test_nothing_is_registered_during_a_capture(gpu: FakeGpu) -> None:
    _, pins = pins_of(gpu)
    gpu.capture = True
    pins.pin(0, 4096)
    assert not pins.unpin(0, 4096), "nor anything else"
    gpu.capture = False
    assert not gpu.capture_broken
    assert not gpu.ranges
    pins.pin(0, 4096)
    assert gpu.ranges
    assert pins.unpin_all()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_around_a_registration_leaves_a_slot_that_can_be_registered(
    gpu: FakeGpu, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    region, pins = pins_of(gpu)

    def interrupted(address: int, nbytes: int) -> None:
        if moment == "after":
            FakeGpu.register(gpu, address, nbytes)
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(gpu, "register", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pins.pin(0, 4096)
    pins.pin(0, 4096)
    assert list(gpu.ranges) == [region.address]
    assert pins.unpin_all()
    assert not gpu.ranges


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_around_an_unregistration_ends_unregistered(
    gpu: FakeGpu, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pins = pins_of(gpu)
    pins.pin(0, 4096)

    def interrupted(address: int) -> None:
        if moment == "after":
            FakeGpu.unregister(gpu, address)
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(gpu, "unregister", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pins.unpin_all()
    assert pins.unpin_all()
    assert pinned.registered_bytes() == 0
    assert not gpu.ranges


def test_what_the_driver_will_not_unregister_stays_mapped(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    region, pins = pins_of(gpu)
    pins.pin(0, 4096)
    memory = weakref.ref(region.memory)

    def refuse(address: int) -> None:
        raise DriverError("cuMemHostUnregister", 700, "CUDA_ERROR_ILLEGAL_ADDRESS")

    with monkeypatch.context() as broken:
        broken.setattr(gpu, "unregister", refuse)
        assert not pins.unpin_all()
        book = LeaseBook(region)
        del region
        pinned.bequeath(book)
        del book, pins
        pinned.settle()
        assert memory() is not None
    pinned.settle()
    assert memory() is None


def test_a_shelf_that_dies_leaves_its_regions_to_the_estate(gpu: FakeGpu) -> None:
    shelf = Shelf()
    shelf.pin_for("cuda")
    idle, held = LeaseBook(shelf.take(SIZE_BYTES)), LeaseBook(shelf.take(SIZE_BYTES))
    idle.lease((0, 1), 4096, capacity=4096)
    owner = held.lease((0, 1), 4096, capacity=4096)
    shelf.put_back(idle)
    shelf.put_back(held)
    del shelf, idle, held
    assert len(gpu.ranges) == 2, "a finalizer calls no driver"
    pinned.settle()
    assert len(gpu.ranges) == 1
    del owner
    pinned.settle()
    assert not gpu.ranges


def test_a_region_whose_uses_wait_for_the_gpu_goes_to_no_other_worker(gpu: FakeGpu) -> None:
    shelf = Shelf()
    shelf.pin_for("cuda")
    region = shelf.take(SIZE_BYTES)
    book = LeaseBook(region)
    gpu.sleep(5)
    owner = book.lease((0, 1), 4096, capacity=4096)
    del owner
    shelf.put_back(book)
    assert shelf.take(SIZE_BYTES) is not region
    gpu.finish()
    assert shelf.take(SIZE_BYTES) is region
    del book
    assert region.pins is not None
    assert region.pins.unpin_all()
