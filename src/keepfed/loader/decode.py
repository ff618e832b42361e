"""How a batch arrives: the message and the worker's slots become the program's tensors.

Tensors of up to 64 KiB are copied out at once and only larger ones are leased: a program that keeps every label
then holds labels, not slots. When the program already holds as much as the budget allows, large ones are copied too, so a
consumer that keeps its batches gets ordinary memory and never stops the workers. Copies are made in the memory that the
loader's `pin_memory` asks for: torch's allocator of pinned memory knows which stream reads what, so they need no gate.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from pickle import Unpickler
from typing import Any

import numpy as np
import torch

from keepfed.errors import BatchCorrupted
from keepfed.loader import codec
from keepfed.loader.arena import Owner
from keepfed.loader.broken import NOTHING
from keepfed.loader.codec import DTYPES, EMPTY, Encoded, Place, PlainTensor, SlotUse
from keepfed.loader.lease import Lease, LeaseBook
from keepfed.text import say

COPY_OUT_BYTES = 64 << 10
"""Up to this size a tensor is copied at delivery instead of leased.

Half of glibc's M_MMAP_THRESHOLD (128 KiB, mallopt(3)): a larger copy may be mapped, faulted in and unmapped each time, which
took 470 µs of the training process per 256 KiB batch on a busy machine, where a lease took 60 µs."""


def ordinary(nbytes: int) -> torch.Tensor:
    """Room for a copy that stays in the program's memory."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu")


def pinned(nbytes: int) -> torch.Tensor:
    """Room for a copy that a GPU reads by itself, from torch's own allocator."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def decode(
    encoded: Encoded, book: LeaseBook, *, copy_all: bool = False, room: Callable[[int], torch.Tensor] = ordinary
) -> Any:
    """The batch. Its slots are leased where the program now holds a part of them, else given back.

    `room(nbytes)` makes room for what is copied.

    Raises BatchCorrupted in verify mode when the bytes are not the ones that the worker wrote, and whatever unpickling the
    program's own classes raises; then nothing is leased or given back, and it may be called again (after Ctrl-C).
    """
    slots = _Slots(encoded.slots, book, room, copy_all=copy_all)
    try:
        batch = _build(encoded, slots)
        slots.give_back_the_rest()
    except BaseException:
        slots.revoke()
        raise
    return batch


def _build(encoded: Encoded, slots: _Slots) -> Any:
    kind, tree = encoded.kind, encoded.tree
    if kind == EMPTY.kind:
        return NOTHING
    if kind == "pickle":
        place, storages = tree
        return BatchUnpickler(slots.raw(place), _Pieces(slots, storages)).load()
    if kind == "dict":
        keys, tensors = tree
        return dict(zip(keys, [_tensor(tensor, slots) for tensor in tensors], strict=True))
    if kind == "list":
        return [_tensor(tensor, slots) for tensor in tree]
    if kind == "tuple":
        return tuple([_tensor(tensor, slots) for tensor in tree])
    return _tensor(tree[0], slots)


def _tensor(plain: PlainTensor, slots: _Slots) -> torch.Tensor:
    place, code, shape, stride = plain
    if place[2] == 0:
        return torch.empty_strided(shape, stride, dtype=DTYPES[code], device="cpu")
    flat = slots.flat(place, DTYPES[code])
    return flat if len(shape) == 1 and stride == (1,) else flat.as_strided_(shape, stride)


class _Slots:
    """The slots of one message, of which some end up leased."""

    def __init__(
        self, uses: tuple[SlotUse, ...], book: LeaseBook, room: Callable[[int], torch.Tensor], *, copy_all: bool
    ) -> None:
        self._uses = uses
        self._book = book
        self._room = room
        self._copy_all = copy_all
        self._leased: dict[int, Owner] = {}
        for offset, _, nbytes, checksum, _ in uses:
            if checksum is not None and zlib.crc32(book.region.owner(offset, nbytes).data) != checksum:
                raise BatchCorrupted(say("loader.corrupted", offset=offset, nbytes=nbytes))

    def flat(self, place: Place, dtype: torch.dtype) -> torch.Tensor:
        """The elements at this place: a copy when they are few, else a lease."""
        number, start, nbytes, inline = place
        if number < 0:
            return torch.frombuffer(bytearray(inline), dtype=dtype)
        if nbytes <= COPY_OUT_BYTES:
            # Not by torch, which divides more than 32,768 elements among its threads: beside busy workers the wait for the
            # second thread's half took 6 ms of the training process for 64 KiB; alone, one thread takes 7 µs.
            return torch.frombuffer(bytearray(self._borrowed(number).data[start : start + nbytes]), dtype=dtype)
        if self._copy_all:
            # As bytes: there are dtypes (int1 to int7) that torch cannot copy.
            borrowed = torch.frombuffer(self._borrowed(number), dtype=torch.uint8, count=nbytes, offset=start)
            return self._room(nbytes).copy_(borrowed).view(dtype)
        return torch.frombuffer(self._owner(number), dtype=dtype, count=nbytes // dtype.itemsize, offset=start)

    def array(self, place: Place, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
        """The NumPy array at this place: a copy when it is small, else a lease."""
        number, start, nbytes, inline = place
        if number < 0:
            return np.ndarray(shape, dtype, bytearray(inline), order=order)
        if self._copy_all or nbytes <= COPY_OUT_BYTES:
            return np.ndarray(shape, dtype, self._borrowed(number), start, order=order).copy(order="K")
        return np.ndarray(shape, dtype, self._owner(number), start, order=order)

    def raw(self, place: Place) -> memoryview:
        """The bytes at this place, for reading before the slot is given back."""
        number, start, nbytes, inline = place
        return memoryview(inline) if number < 0 else self._borrowed(number).data[start : start + nbytes]

    def give_back_the_rest(self) -> None:
        """Slots of which the program holds nothing are free again."""
        for number, use in enumerate(self._uses):
            if number not in self._leased:
                self._book.give_back(use[:2])

    def revoke(self) -> None:
        """Nothing of this came to be."""
        for number in self._leased:
            self._book.revoke(self._uses[number][:2])

    def _borrowed(self, number: int) -> Owner:
        offset, _, nbytes, _, _ = self._uses[number]
        return self._book.region.owner(offset, nbytes)

    def _owner(self, number: int) -> Owner:
        owner = self._leased.get(number)
        if owner is None:
            offset, generation, nbytes, checksum, capacity = self._uses[number]
            use = offset, generation
            owner = self._leased[number] = self._book.lease(use, nbytes, checksum, capacity=capacity)
        return owner


class _Pieces:
    """What the names of `codec.restore_…` mean in the pickle of one batch.

    Apart from the unpickler, whose memo keeps these methods: were they its own, each batch would be part of a cycle, and
    its slots would come back only with the next garbage collection.
    """

    def __init__(self, slots: _Slots, storages: list[tuple[Place, int]]) -> None:
        self._slots = slots
        self._storages = storages
        self._made: dict[int, torch.UntypedStorage] = {}

    def meaning(self, name: str) -> Any:
        """What stands behind a name of `codec`; None for one that means itself."""
        return {
            codec.restore_tensor.__name__: self._tensor,
            codec.restore_storage.__name__: self._storage,
            codec.restore_array.__name__: self._slots.array,
        }.get(name)

    def _storage(self, number: int) -> torch.UntypedStorage:
        storage = self._made.get(number)
        if storage is None:
            place = self._storages[number][0]
            empty = torch.empty(0, dtype=torch.uint8, device="cpu")  # the program may have another default device
            flat = self._slots.flat(place, torch.uint8) if place[2] else empty
            storage = self._made[number] = flat.untyped_storage()
        return storage

    def _tensor(
        self, number: int, start: int, code: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> torch.Tensor:
        dtype = DTYPES[code]
        offset = max(0, start - self._storages[number][1]) // dtype.itemsize  # an empty view may start anywhere
        return torch.empty(0, dtype=dtype, device="cpu").set_(self._storage(number), offset, shape, stride)


class BatchUnpickler(Unpickler):
    """Reads a pickled batch; tensors, storages and arrays come out of the slots."""

    def __init__(self, data: memoryview, pieces: _Pieces) -> None:
        super().__init__(BytesIO(data))
        self._pieces = pieces

    def find_class(self, module: str, name: str) -> Any:
        """Names of pieces of a batch get their meaning here; all others are imported."""
        meaning = self._pieces.meaning(name) if module == codec.__name__ else None
        return super().find_class(module, name) if meaning is None else meaning


def changed_while_leased(lease: Lease, book: LeaseBook) -> bool:
    """Verify mode, at release: whether the bytes differ from those that were delivered.

    Only two can have written them: the program, which may edit its batches in place, and the worker, which must not.
    """
    if lease.checksum is None:
        return False
    return zlib.crc32(book.region.owner(lease.use[0], lease.nbytes).data) != lease.checksum
