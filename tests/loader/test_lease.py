"""While the program can reach any byte of a batch, in whatever way, its slot is not given back; afterwards it is."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from keepfed.loader.arena import Region
from keepfed.loader.lease import LeaseBook
from tests.loader.carrier import Carrier

NBYTES = 400_000


@pytest.fixture
def carry() -> Iterator[Carrier]:
    carrier = Carrier()
    yield carrier
    vars(carrier).clear()  # pytest keeps the object itself longer than the leak fixture waits


def _under_inference_mode(x: torch.Tensor) -> Any:
    with torch.inference_mode():
        return x[5:9]


WAYS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the tensor": lambda x: x,
    "a view": lambda x: x[10:20].view(-1),
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "view of another dtype": lambda x: x.view(torch.uint8)[3:],
    "untyped storage": lambda x: x.untyped_storage(),
    "set_": lambda x: torch.empty(0).set_(x.untyped_storage(), 4, (3,), (1,)),
    "numpy": lambda x: x.numpy(),
    "a slice of numpy": lambda x: x.numpy()[7:9],
    "a slice of a slice of numpy": lambda x: x.numpy()[7:900].reshape(-1)[3:][::2],
    "numpy as another dtype": lambda x: x.numpy().view(np.uint8)[5:],
    "asarray": np.asarray,
    "memoryview": lambda x: x.numpy().data,
    "a slice of a memoryview": lambda x: x.numpy().data[1:2],
    "frombuffer of a memoryview": lambda x: np.frombuffer(x.numpy().data[8:16], np.float32),
    "DLPack into torch": torch.utils.dlpack.from_dlpack,
    "DLPack into numpy": np.from_dlpack,
    "a DLPack capsule": lambda x: x.__dlpack__(),
    "inference mode": _under_inference_mode,
    "a tensor that requires a gradient": lambda x: x.requires_grad_(),
    "a parameter": torch.nn.Parameter,
    "a graph that saved it": lambda x: (torch.ones(1, requires_grad=True) * x).sum(),
    "a subclass": lambda x: x.as_subclass(torch.nn.Buffer),
    "split": lambda x: x.chunk(9)[-1],
    "a closure": lambda x: lambda: x,
}


@pytest.mark.parametrize("pickled", [False, True], ids=["plain", "pickled"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_keep_data_keeps_the_slot_and_dropping_it_frees_it(
    carry: Carrier, way: str, pickled: bool
) -> None:
    data = torch.arange(NBYTES // 4, dtype=torch.float32)
    batch = carry([data, "pickled"] if pickled else [data])
    kept = WAYS[way](batch[0])
    del batch
    gc.collect()
    assert carry.leased() == 1
    assert carry.book.idle() == ()
    slot = next(iter(carry.slots.slots.values()))
    for number in range(5):  # were the slot given back too early, these would write into it
        carry(torch.full((NBYTES // 4,), -1.0 - number))
    assert (carry.slots.region.owner(slot.offset, NBYTES).view(np.float32) == data.numpy()).all()
    assert slot.out
    del kept
    gc.collect()
    assert carry.leased() == 0
    carry(data)
    assert slot.generation == 2 or len(carry.slots.slots) <= 2


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x[3:5], np.asarray], ids=["array", "slice", "asarray"])
def test_arrays_of_a_batch_hold_their_slot_too(carry: Carrier, keep: Callable[[Any], Any]) -> None:
    kept = keep(carry({"array": np.arange(NBYTES)})["array"])
    gc.collect()
    assert carry.leased() == 1
    del kept
    assert carry.leased() == 0


def test_a_storage_in_the_batch_holds_its_slot(carry: Carrier) -> None:
    storage = carry([torch.zeros(NBYTES).untyped_storage()])[0]
    assert carry.leased() == 1
    del storage
    assert carry.leased() == 0


def test_a_cycle_holds_its_batch_until_it_is_collected(carry: Carrier) -> None:
    seen: list[Any] = []

    class Node:
        def __init__(self, batch: torch.Tensor) -> None:
            self.batch = batch
            self.me = self

        def __del__(self) -> None:
            seen.append((len(carry.book.leases), float(self.batch.sum())))
            saved.append(self.batch)

    saved: list[torch.Tensor] = []
    gc.disable()
    try:
        Node(carry(torch.ones(NBYTES)))
        assert carry.leased() == 1
        gc.collect()
        assert seen == [(1, NBYTES)]  # the finalizer of the batch had not run before __del__ read it
        assert carry.leased() == 1  # and the batch has risen from the dead
        saved.clear()
        assert carry.leased() == 0
    finally:
        gc.enable()


def test_a_batch_that_dies_in_another_thread_is_noticed(carry: Carrier) -> None:
    held = [carry(torch.ones(NBYTES))]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert carry.leased() == 0


def test_two_large_tensors_of_a_batch_hold_its_slot_until_both_are_gone(carry: Carrier) -> None:
    x, y = carry((torch.ones(NBYTES), torch.zeros(NBYTES)))
    del x
    assert carry.leased() == 1
    del y
    assert carry.leased() == 0


# ------------------------------------------------------------------------------------------------------------- bookkeeping


def book_with_lease() -> tuple[LeaseBook, Any]:
    book = LeaseBook(Region.create(1 << 30))
    return book, book.lease((4096, 3), 1000, 17)


def test_a_dead_lease_is_reported_until_the_worker_was_told() -> None:
    book, owner = book_with_lease()
    assert book.leased_bytes == 1000
    assert not book.returned()
    del owner
    book.collect()
    assert book.leased_bytes == 0
    assert book.idle() == ((4096, 3),)
    book.collect()
    assert book.idle() == ((4096, 3),)
    book.told(((4096, 3), (1, 1)))
    assert book.idle() == ()
    assert book.returned()


def test_a_revoked_lease_is_not_reported_and_can_be_made_again() -> None:
    book, owner = book_with_lease()
    book.revoke((4096, 3))
    assert book.leased_bytes == 0
    again = book.lease((4096, 3), 1000)
    del owner
    book.collect()
    assert book.idle() == ()
    assert book.leased_bytes == 1000
    del again
    book.collect()
    assert book.idle() == ((4096, 3),)


def test_an_interrupt_while_collecting_loses_no_lease() -> None:
    book, owner = book_with_lease()
    del owner
    calls = []

    def interrupted(lease: Any) -> None:
        calls.append(lease.checksum)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        book.collect(interrupted)
    assert book.idle() == ()
    book.collect(interrupted)
    assert calls == [17, 17]
    assert book.idle() == ((4096, 3),)
    assert book.leased_bytes == 0
