"""Batches on the GPU: copied ahead, right when they are used, in the containers that the program knows."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

from keepfed.errors import LoaderError, UsageError
from keepfed.loader import delivery, gpu_iter
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.mover import Mover, rebuilt
from tests.loader.fake_gpu import CopyingGpu, FakeGpu, Job, leave, plug_in

WIDTH = 30_000
"""As float32 large enough to be leased."""


class Planes(Dataset[Any]):
    """A large tensor and a small one, full of their index."""

    def __init__(self, length: int = 48) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.full((WIDTH,), float(index)), index


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    fake = FakeGpu()
    plug_in(fake, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for where in (delivery, gpu_iter):
        monkeypatch.setattr(where, "Gpu", lambda device: CopyingGpu(fake))
    yield fake
    leave(fake)


def check(gpu: FakeGpu, batch: Any, number: int, wrong: list[int]) -> None:
    """A kernel on the current stream that reads the batch when its turn comes."""
    x, y = batch

    def kernel() -> None:
        right = y.tolist() == [2 * number, 2 * number + 1] and torch.equal(x, y[:, None].float().expand(-1, WIDTH))
        if not right:
            wrong.append(number)

    gpu.current().submit(Job(kernel, ticks=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_kernels_that_use_a_batch_at_once_read_its_own_bytes(gpu: FakeGpu, workers: int) -> None:
    loader = DataLoader(Planes(), batch_size=2, num_workers=workers, device="cuda")
    wrong: list[int] = []
    for _ in range(2):
        for number, batch in enumerate(loader):
            check(gpu, batch, number, wrong)
            gpu.tick()
    gpu.finish()
    assert number == 23
    assert wrong == []


def test_the_next_batch_is_on_its_way_before_it_is_asked_for(gpu: FakeGpu) -> None:
    iterator: Any = iter(DataLoader(Planes(), batch_size=2, num_workers=2, device="cuda:1"))
    assert isinstance(iterator, EpochIter)
    next(iterator)
    while len(iterator._crew._delivery._ahead) == 0:  # as soon as it has arrived when next() is called
        next(iterator)
    assert gpu.waiting()


def test_slots_come_back_when_their_copies_are_done_whatever_else_the_gpu_does(gpu: FakeGpu) -> None:
    gpu.sleep(1_000_000)  # the program's own stream is stuck
    iterator: Any = iter(DataLoader(Planes(96), batch_size=2, num_workers=1, device="cuda"))
    for _ in iterator:
        iterator._crew._delivery._mover._gpu.side.tick()
    assert len(gpu.ranges) <= 6
    gpu.streams[0].queue[0].ticks = 0


def test_the_parents_random_states_are_those_of_a_loader_without_a_device(gpu: FakeGpu) -> None:
    def states(**options: Any) -> list[Any]:
        torch.manual_seed(3)
        loader = DataLoader(Planes(16), batch_size=2, shuffle=True, num_workers=2, **options)
        return [(torch.get_rng_state().tolist(), y.tolist()) for _, y in loader]

    there = states(device="cuda")
    gpu.finish()
    here = states()
    assert [state for state, _ in there] == [state for state, _ in here]


def test_a_loader_that_a_framework_builds_anew_delivers_there_too(gpu: FakeGpu) -> None:
    asked = DataLoader(Planes(), batch_size=2, num_workers=2, device="cuda")
    again: Any = TorchDataLoader(asked.dataset, batch_size=2, num_workers=asked.num_workers)
    wrong: list[int] = []
    for number, batch in enumerate(again):
        check(gpu, batch, number, wrong)
        assert batch[0].data_ptr() not in gpu.ranges
    gpu.finish()
    assert wrong == []


def test_next_inside_a_capture_is_a_clear_error_and_the_batch_is_not_lost(gpu: FakeGpu) -> None:
    for workers in (0, 1):
        iterator = iter(DataLoader(Planes(), batch_size=2, num_workers=workers, device="cuda"))
        next(iterator)
        gpu.capture = True
        with pytest.raises(LoaderError, match="graph is being captured"):
            next(iterator)
        gpu.capture = False
        assert not gpu.capture_broken
        wrong: list[int] = []
        check(gpu, next(iterator), 1, wrong)
        gpu.finish()
        assert wrong == []


@pytest.mark.parametrize("wrong", ["cpu", "gpu", torch.device("meta"), 1.5, "cuda:7"])
def test_a_device_that_is_no_gpu_of_this_host_is_a_clear_error(gpu: FakeGpu, wrong: Any) -> None:
    with pytest.raises(UsageError, match="device="):
        DataLoader(Planes(), device=wrong)


def test_without_cuda_the_error_says_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=rf"torch {torch.__version__.replace('+', '.')}, built for .*, sees 0 GPUs"):
        DataLoader(Planes(), device="cuda")


# -------------------------------------------------------------------------------------------------------------- containers


class Pair(NamedTuple):
    image: Any
    label: Any


class Notes(dict[str, Any]):
    """A mapping with more to it than its items."""

    origin = ""


class Frozen(Mapping[str, Any]):
    """A mapping that is made from a dict and cannot be changed."""

    def __init__(self, items: dict[str, Any]) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Bag:
    """An object of the program's own that knows how to go to a device."""

    def __init__(self, where: str = "cpu") -> None:
        self.where = where

    def to(self, device: Any) -> Bag:
        return Bag(str(device))


def test_containers_are_rebuilt_and_keep_their_types() -> None:
    notes = Notes(x=torch.ones(1))
    notes.origin = "here"
    batch = [Pair(torch.ones(2), 3), notes, Frozen({"y": torch.ones(3)}), range(2), "text", b"bytes", None]
    seen: list[Any] = []

    def leaf(value: Any) -> Any:
        seen.append(value)
        return -value if isinstance(value, torch.Tensor) else value

    again = rebuilt(batch, leaf)
    assert again is not batch
    assert type(again[0]) is Pair
    assert again[0].image.tolist() == [-1, -1]
    assert type(again[1]) is Notes
    assert again[1].origin == "here"
    assert again[1] is not notes
    assert notes["x"].item() == 1, "the old one is as it was"
    assert type(again[2]) is Frozen
    assert again[2]["y"].tolist() == [-1, -1, -1]
    assert again[3:] == [[0, 1], "text", b"bytes", None]
    assert "text" not in seen


def test_a_type_that_cannot_be_rebuilt_becomes_a_plain_container() -> None:
    counts = collections.UserList([torch.ones(1)])
    assert type(rebuilt(counts, lambda leaf: leaf)) is collections.UserList
    assert rebuilt(memoryview(b"ab"), lambda leaf: leaf) in ([97, 98], memoryview(b"ab"))


def test_what_is_no_plain_tensor_is_copied_at_the_hand_over(gpu: FakeGpu) -> None:
    """Nobody could tell the allocator who uses the buffers of a batch type of the program's own."""
    side = CopyingGpu(gpu)
    mover = Mover(side)  # type: ignore[arg-type]  # the same methods
    moving = mover.start({"x": torch.ones(WIDTH), "bag": Bag(), "text": "t"})
    assert moving.left
    assert moving.batch["bag"].where == "cpu"
    there = mover.hand_over(moving)
    assert there["bag"].where == "cuda"
    assert there["x"] is moving.tensors[0]
    assert there["text"] == "t"
    assert [tensor is moving.tensors[0] for tensor in side.adopted] == [True]
