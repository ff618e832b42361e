"""A delivered batch can be saved, copied, resized and shared as torch's can, and small parts of it hold no slot."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from keepfed.loader.codec import INLINE_BYTES
from keepfed.loader.decode import COPY_OUT_BYTES
from tests.loader.carrier import Carrier


@pytest.fixture(params=["plain", "pickled"])
def carry(request: pytest.FixtureRequest) -> Iterator[Any]:
    carrier = Carrier()

    def through(batch: dict[str, torch.Tensor]) -> Any:
        if request.param == "plain":
            return carrier(batch)
        return {key: value for key, value in carrier({**batch, "and": "text"}).items() if key != "and"}

    through.carrier = carrier  # type: ignore[attr-defined]  # for tests that look at the slots
    yield through
    vars(carrier).clear()


SIZES = [100, INLINE_BYTES // 4 + 10, COPY_OUT_BYTES // 4 + 10, 200_000]


def two(size: int) -> dict[str, torch.Tensor]:
    return {"x": torch.arange(float(size)).view(2, -1), "y": torch.arange(size)}


def saved(value: Any) -> int:
    file = io.BytesIO()
    torch.save(value, file)
    return file.tell()


@pytest.mark.parametrize("size", SIZES)
def test_saving_pickling_and_copying_take_as_much_as_for_ordinary_tensors(carry: Any, size: int) -> None:
    plain, batch = two(size), carry(two(size))
    assert saved(batch) == saved(plain)
    assert saved(batch["x"]) == saved(plain["x"])
    assert saved([batch["x"], batch["x"][1]]) == saved([plain["x"], plain["x"][1]])
    assert len(pickle.dumps(batch["y"])) == len(pickle.dumps(plain["y"]))
    assert copy.deepcopy(batch["x"]).untyped_storage().nbytes() == plain["x"].nbytes


@pytest.mark.parametrize("size", SIZES)
def test_each_tensor_has_a_storage_of_its_own_and_of_its_size(carry: Any, size: int) -> None:
    batch = carry(two(size))
    for tensor in batch.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert tensor.storage_offset() == 0
        assert tensor.untyped_storage().data_ptr() == tensor.data_ptr()
        assert tensor.data_ptr() % (64 if tensor.nbytes > COPY_OUT_BYTES else 16) == 0
    assert batch["x"].untyped_storage().data_ptr() != batch["y"].untyped_storage().data_ptr()


@pytest.mark.parametrize("size", SIZES[2:])
def test_growing_in_place_is_refused_as_for_torchs_batches(carry: Any, size: int) -> None:
    batch = carry(two(size))
    for tensor in batch.values():
        assert not tensor.untyped_storage().resizable()
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.clone().set_(tensor).resize_(10 * size)
    batch["x"].untyped_storage().fill_(1)
    assert torch.equal(batch["y"], two(size)["y"])


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_can_be_edited_shared_and_trained_on(carry: Any, size: int) -> None:
    batch = carry(two(size))
    batch["x"].mul_(2).numpy()[0, 0] = 5
    assert batch["x"][0, 0] == 5
    weight = torch.ones(1, requires_grad=True)
    (batch["x"] * weight).sum().backward()
    assert weight.grad is not None
    shared = batch["y"].clone().share_memory_()
    assert shared.is_shared()
    batch["y"].share_memory_()
    assert batch["y"].is_shared()
    assert torch.equal(batch["y"], two(size)["y"])


def test_batches_made_in_inference_mode_are_what_torch_makes_there(carry: Any) -> None:
    with torch.inference_mode():
        batch = carry(two(200_000))
    assert batch["x"].sum() == two(200_000)["x"].sum()
    assert batch["x"][0].clone().shape == (100_000,)


def test_small_tensors_are_copied_and_large_ones_leased(carry: Any) -> None:
    carrier = carry.carrier
    elements = COPY_OUT_BYTES // 4
    small = carry({"x": torch.ones(elements), "y": torch.ones(elements - 1)})
    assert carrier.leased() == 0
    large = carry({"x": torch.ones(elements + 1), "label": torch.ones(5)})
    assert carrier.leased() == 1
    label = large["label"]
    del large
    assert carrier.leased() == 0
    assert label.sum() == 5
    assert small["x"].sum() == elements


def test_small_parts_of_a_large_batch_hold_no_slot(carry: Any) -> None:
    kept = []
    for number in range(50):
        batch = carry({"image": torch.full((500_000,), float(number)), "label": torch.full((64,), number)})
        kept.append(batch["label"])
        del batch
    assert [int(label[0]) for label in kept] == list(range(50))
    assert carry.carrier.leased() == 0
    assert carry.carrier.book.region.bytes_in_use() < 3 * 2_100_000


def test_copy_mode_leases_nothing() -> None:
    carry = Carrier(copy_all=True)
    batch = carry([torch.ones(500_000), np.ones(500_000), "text", b"b" * 500_000])
    assert carry.leased() == 0
    carry([torch.zeros(500_000)] * 2)
    assert batch[0].sum() == batch[1].sum() == 500_000


def test_a_pickled_batch_is_in_no_cycle() -> None:
    carry = Carrier()
    gc.disable()
    try:
        for _ in range(20):
            batch = carry({"x": torch.ones(500_000), "array": np.ones(100_000), "text": "x"})
            del batch
            assert carry.leased() == 0
    finally:
        gc.enable()
    assert len(carry.slots.slots) <= 3


class _Explodes:
    fuse = 1

    def __reduce__(self) -> Any:
        return _explode, (torch.ones(100_000),)


def _explode(tensor: torch.Tensor) -> Any:
    _Explodes.fuse -= 1
    if _Explodes.fuse >= 0:
        raise KeyboardInterrupt
    return tensor


def test_a_delivery_that_was_interrupted_holds_nothing_and_can_be_repeated() -> None:
    carry = Carrier()
    _Explodes.fuse = 1
    message = carry.send({"x": torch.arange(100_000), "y": _Explodes()})
    with pytest.raises(KeyboardInterrupt):
        carry.receive(message)
    assert carry.leased() == 0
    assert carry.book.idle() == ()
    batch = carry.receive(message)
    assert torch.equal(batch["x"], torch.arange(100_000))
    assert carry.leased() == len(carry.slots.slots)
    del message
