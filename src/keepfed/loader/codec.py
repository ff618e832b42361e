"""How a batch leaves the worker: what goes into slots, what goes into the message.

    worker: encode(batch) ─▶ Encoded(slots, kind, tree) ─▶ message ─▶ trainer: decode.py ─▶ the batch

Tensors and arrays above 8 KiB lie in slots; smaller ones, and everything else, travel in the message. Two ways lead to the
message: flat lists, tuples and dicts of plain tensors are described directly; anything else goes through one Pickler that
sees every tensor and array wherever it hides (nested containers, dataclasses, third-party batch types), so that no
container is ever walked by hand. A pickle of more than 32 KiB lies in a slot as well.

What torch's own transport keeps is kept: strides (channels_last), expanded tensors (4 bytes stay 4 bytes), views that
share memory within one batch, requires_grad, Parameters, the refusal of tensors that are part of a graph. What differs:
only the bytes that the views of a storage cover are sent, not the whole storage, so `storage_offset()` may be smaller.

The records on the wire are plain tuples, since a named tuple would cost an import lookup per tensor at the other end:

    Place        (slot number in the batch or -1, first byte, bytes, the bytes themselves when slot is -1)
    PlainTensor  (Place, dtype code, shape, stride)
    SlotUse      (offset in the region, generation, bytes written, checksum or None, bytes of the whole slot)
"""

from __future__ import annotations

import ctypes
import functools
import io
import math
import zlib
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch

from keepfed.loader.arena import ALIGNMENT, Owner, Slot, SlotWriter

INLINE_BYTES = 8 << 10
"""Up to this size a tensor travels in the message: cheaper than a slot."""
PICKLE_INLINE_BYTES = 32 << 10
_BASE_ALIGNMENT = 16  # the largest item size (complex128): a view of any dtype then starts at a whole element

Place = tuple[int, int, int, bytes]
PlainTensor = tuple[Place, int, tuple[int, ...], tuple[int, ...]]
SlotUse = tuple[int, int, int, int | None, int]

DTYPES: tuple[torch.dtype, ...] = tuple(
    sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
)
CODE_OF: dict[torch.dtype, int] = {dtype: code for code, dtype in enumerate(DTYPES)}
_PLAIN_KEYS = frozenset({str, int, bool})  # others may not be picklable, which is for the Pickler to find out
NOTHING: Place = (-1, 0, 0, b"")
_LAYOUTS = {
    layout: str(layout).removeprefix("torch.")
    for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
}
_has_names: Any = getattr(torch.Tensor, "has_names", lambda _: False)  # named tensors left torch in 2.13


class Encoded(NamedTuple):
    """One batch, ready for the message."""

    slots: tuple[SlotUse, ...]
    """Slots that carry its bytes."""
    kind: str
    """What `tree` describes: "list", "tuple", "dict", "tensor", "pickle" or "nothing"."""
    tree: Any
    """Descriptions of the tensors, or where the pickle lies with the storages that it refers to."""


EMPTY = Encoded((), "nothing", None)
"""A batch of which no sample is left: it is passed over."""


def is_plain(value: object) -> bool:
    """Whether this is exactly a strided CPU tensor without gradient or lazy bits: shape and strides say it all."""
    return (
        type(value) is torch.Tensor
        and value.is_cpu
        and value.layout is torch.strided
        and not value.requires_grad
        and not value.is_conj()
        and not value.is_neg()
        and not value.is_quantized
        and not value.is_nested
        and not _has_names(value)
        and value.dtype in CODE_OF
    )


@functools.lru_cache(maxsize=1024)
def dense_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a freshly made tensor of this shape."""
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def covered_bytes(tensor: torch.Tensor) -> tuple[int, int]:
    """First byte and end of what a strided tensor covers of its storage."""
    itemsize = tensor.itemsize
    start = int(tensor.storage_offset()) * itemsize
    if tensor.is_contiguous():
        return start, start + tensor.numel() * itemsize
    if tensor.numel() == 0:
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * itemsize


def storage_bytes(tensor: torch.Tensor, start: int, end: int) -> Owner:
    """Bytes [start, end) of a CPU tensor's storage, as an array over them."""
    none = torch.empty(0, dtype=torch.uint8, device="cpu")  # the program may have another default device
    array: Owner = none.set_(tensor.untyped_storage(), start, (end - start,), (1,)).numpy()
    return array


@dataclass(slots=True)
class BatchWriter:
    """Collects the slots of the batch that the worker is making."""

    writer: SlotWriter
    """The worker's region."""
    checksums: bool = False
    """Whether a checksum goes with every slot (verify mode)."""
    expected_bytes: int = 0
    """What the smaller of the last two batches took, so that an outlier is not reserved twice: the first slot's size."""
    last_bytes: int = 0
    """What the last batch took."""
    slots: list[Slot] = field(default_factory=list)
    """Slots taken for this batch."""
    owners: list[Owner] = field(default_factory=list)
    """Their owner arrays, alive until the batch is sent."""
    used: list[int] = field(default_factory=list)
    """Bytes used in each."""

    def reserve(self, nbytes: int) -> tuple[int, int]:
        """Room for `nbytes`: number of the slot and first byte in it."""
        if self.slots:
            start = -(-self.used[-1] // ALIGNMENT) * ALIGNMENT
            if start + nbytes <= self.slots[-1].capacity:
                self.used[-1] = start + nbytes
                return len(self.slots) - 1, start
        slot, owner = self.writer.take(max(nbytes, self.expected_bytes - sum(self.used)))
        self.slots.append(slot)
        self.owners.append(owner)
        self.used.append(nbytes)
        return len(self.slots) - 1, 0

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """An uninitialised contiguous tensor in a slot; it has at least one element."""
        count = math.prod(shape)
        number, start = self.reserve(count * dtype.itemsize)
        flat = torch.frombuffer(self.owners[number], dtype=dtype, count=count, offset=start)
        return flat.as_strided_(shape, dense_stride(shape))

    def find(self, address: int, nbytes: int) -> Place | None:
        """Where these bytes already lie in this batch's slots, if they do."""
        at = address - self.writer.region.address
        if 0 <= at < self.writer.region.size_bytes:
            for number, slot in enumerate(self.slots):
                if slot.offset <= at and at + nbytes <= slot.offset + self.used[number]:
                    return number, at - slot.offset, nbytes, b""
        return None

    def put(self, data: Owner) -> Place:
        """Copy these bytes into a slot, or into the message when they are few."""
        if data.nbytes <= INLINE_BYTES:
            return -1, 0, data.nbytes, data.tobytes()
        number, start = self.reserve(data.nbytes)
        self.owners[number][start : start + data.nbytes] = data
        return number, start, data.nbytes, b""

    def finish(self) -> tuple[SlotUse, ...]:
        """Hand the slots over; the next batch starts with none."""
        uses = tuple(
            (
                slot.offset,
                slot.generation,
                used,
                zlib.crc32(owner[:used].data) if self.checksums else None,
                slot.capacity,
            )
            for slot, owner, used in zip(self.slots, self.owners, self.used, strict=True)
        )
        self.writer.sent(self.slots)
        total = sum(self.used)
        self.expected_bytes, self.last_bytes = min(total, self.last_bytes or total), total
        self._clear()
        return uses

    def discard(self) -> None:
        """The batch failed half-way: its slots are free again once nothing refers to them."""
        for slot in self.slots:
            self.writer.unused(slot)
        self._clear()

    def _clear(self) -> None:
        self.slots, self.owners, self.used = [], [], []


def encode(batch: Any, out: BatchWriter) -> Encoded:
    """Place a batch's bytes and describe it.

    Raises whatever pickling it raises, and RuntimeError for a tensor that is part of an autograd graph, as torch does.
    """
    kind = type(batch)
    if kind is list or kind is tuple:
        if (tree := _plain_tensors(batch, out)) is not None:
            return Encoded(out.finish(), kind.__name__, tree)
    elif kind is dict and all(type(key) in _PLAIN_KEYS for key in batch):
        if (tree := _plain_tensors(list(batch.values()), out)) is not None:
            return Encoded(out.finish(), "dict", (list(batch), tree))
    elif kind is torch.Tensor and (tree := _plain_tensors([batch], out)) is not None:
        return Encoded(out.finish(), "tensor", tree)
    return _pickled(batch, out)


def _plain_tensors(values: Any, out: BatchWriter) -> list[PlainTensor] | None:
    """Descriptions of plain tensors with a storage each; None when there is anything else."""
    if not all(map(is_plain, values)):
        return None
    if len(values) > 1 and len({value.untyped_storage()._cdata for value in values}) != len(values):
        return None
    return [
        (
            _inline(value) or _place(value, *covered_bytes(value), out),
            CODE_OF[value.dtype],
            tuple(value.shape),
            value.stride(),
        )
        for value in values
    ]


def _inline(tensor: torch.Tensor) -> Place | None:
    """A small contiguous tensor with its bytes; None for any other.

    One read at its address: by way of an array over its storage the same takes eight times as long (5.5 µs).
    """
    nbytes = tensor.nbytes
    if 0 < nbytes <= INLINE_BYTES and tensor.is_contiguous() and (address := tensor.data_ptr()):
        return -1, 0, nbytes, ctypes.string_at(address, nbytes)
    return None


def _place(tensor: torch.Tensor, start: int, end: int, out: BatchWriter) -> Place:
    if start == end:
        return NOTHING
    found = out.find(tensor.untyped_storage().data_ptr() + start, end - start)
    return found or out.put(storage_bytes(tensor, start, end))


@dataclass(slots=True)
class _Storage:
    """A storage that occurs in the batch, with the part of it that its views cover."""

    number: int
    any_view: torch.Tensor
    start: int
    end: int


class BatchPickler(ForkingPickler):
    """Pickles a batch; tensors, storages and arrays leave only a number or a place behind."""

    def __init__(self, file: io.BytesIO, out: BatchWriter) -> None:
        super().__init__(file, 5)
        self._out = out
        self._storages: dict[int, _Storage] = {}

    def reducer_override(self, value: Any) -> Any:
        """How to pickle `value`: tensors and arrays by place, the rest as multiprocessing does."""
        if isinstance(value, torch.Tensor):
            return self._reduce_tensor(value)
        if isinstance(value, torch.UntypedStorage) and value.device.type == "cpu":
            whole = torch.empty(0, dtype=torch.uint8, device="cpu").set_(value, 0, (value.nbytes(),), (1,))
            return restore_storage, (self._view(whole)[0],)
        if isinstance(value, torch.storage.TypedStorage) and value._untyped_storage.device.type == "cpu":
            return restore_typed_storage, (value._untyped_storage, value.dtype)
        # NumPy's own way with protocol 5 would make read-only arrays read-only again; in torch's transport they thaw.
        by_place = type(value) is np.ndarray and (
            value.nbytes > INLINE_BYTES or not value.flags.writeable or not value.dtype.isnative
        )
        return self._reduce_array(value) if by_place and not value.dtype.hasobject else NotImplemented

    def _reduce_tensor(self, tensor: torch.Tensor) -> Any:
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(
                "Cowardly refusing to serialize non-leaf tensor which requires_grad, "
                "since autograd does not support crossing process boundaries.  "
                "If you just want to transfer the data, call detach() on the tensor "
                "before serializing (e.g., putting it on the queue)."
            )
        if is_plain(tensor):
            return restore_tensor, (*self._view(tensor), tuple(tensor.shape), tensor.stride())
        if tensor.device.type != "cpu":
            return NotImplemented  # torch's own reducers, registered with ForkingPickler
        if type(tensor) is torch.Tensor and tensor.requires_grad and is_plain(tensor.detach()):
            return restore_leaf, (tensor.detach(),)
        if type(tensor) is torch.Tensor and tensor.layout in _LAYOUTS:
            return _reduce_sparse(tensor.detach())
        reduce: Any = tensor.__reduce_ex__
        return reduce(5)

    def _view(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        """Number of the storage, first byte of the view in it, and dtype."""
        start, end = covered_bytes(tensor)
        key = tensor.untyped_storage()._cdata
        storage = self._storages.get(key)
        if storage is None:
            storage = self._storages[key] = _Storage(len(self._storages), tensor, start, end)
        if storage.start == storage.end:
            storage.start, storage.end = start, end
        elif start < end:  # an empty view covers nothing, wherever it starts
            storage.start, storage.end = min(storage.start, start), max(storage.end, end)
        return storage.number, start, CODE_OF[tensor.dtype]

    def _reduce_array(self, array: np.ndarray[Any, Any]) -> Any:
        if (
            not array.dtype.isnative and array.dtype.names is None
        ):  # as NumPy does where it reads a pickle of protocol 4
            array = array.astype(array.dtype.newbyteorder("="))
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        flat = np.ascontiguousarray(array.T if order == "F" else array).reshape(-1).view(np.uint8)
        return restore_array, (self._out.put(flat), array.dtype, array.shape, order)

    def place_storages(self) -> list[tuple[Place, int]]:
        """Place every storage that the batch refers to: where it lies now, and which byte of the original comes first."""
        placed = []
        for storage in self._storages.values():
            first = storage.start // _BASE_ALIGNMENT * _BASE_ALIGNMENT if storage.end > storage.start else storage.end
            placed.append((_place(storage.any_view, first, storage.end, self._out), first))
        return placed


def _pickled(batch: Any, out: BatchWriter) -> Encoded:
    file = io.BytesIO()
    pickler = BatchPickler(file, out)
    pickler.dump(batch)
    storages = pickler.place_storages()
    data = np.frombuffer(file.getbuffer(), np.uint8)
    place = out.put(data) if data.nbytes > PICKLE_INLINE_BYTES else (-1, 0, data.nbytes, data.tobytes())
    return Encoded(out.finish(), "pickle", (place, storages))


def _only_by_name(*_: Any) -> Any:
    raise TypeError("this name stands for a piece of a batch inside a message; BatchUnpickler gives it its meaning")


def restore_tensor(storage: int, start: int, dtype: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """Stands in a pickle for a view of a storage of the batch."""
    return _only_by_name(storage, start, dtype, shape, stride)


def restore_storage(storage: int) -> Any:
    """Stands in a pickle for a whole storage of the batch."""
    return _only_by_name(storage)


def restore_array(place: Place, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    """Stands in a pickle for a NumPy array of the batch."""
    return _only_by_name(place, dtype, shape, order)


def restore_typed_storage(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.storage.TypedStorage:
    """A typed storage over an untyped one."""
    make: Any = torch.storage.TypedStorage
    typed: torch.storage.TypedStorage = make(wrap_storage=storage, dtype=dtype, _internal=True)
    return typed


def _reduce_sparse(tensor: torch.Tensor) -> Any:
    """By its parts. Tensor.__reduce_ex__ is for torch.load, which keeps each one to validate it: that would be a leak."""
    layout, shape = tensor.layout, tuple(tensor.shape)
    if layout is torch.sparse_coo:
        return restore_coo, (tensor._indices(), tensor._values(), shape, tensor.is_coalesced())
    if layout in {torch.sparse_csr, torch.sparse_bsr}:
        compressed, plain = tensor.crow_indices(), tensor.col_indices()
    else:
        compressed, plain = tensor.ccol_indices(), tensor.row_indices()
    return restore_compressed, (compressed, plain, tensor.values(), shape, _LAYOUTS[layout])


def restore_coo(indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...], coalesced: bool) -> torch.Tensor:
    """A sparse tensor of coordinates."""
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=coalesced, check_invariants=False)


def restore_compressed(
    compressed: torch.Tensor, plain: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...], layout: str
) -> torch.Tensor:
    """A sparse tensor of compressed rows, columns or blocks."""
    named = getattr(torch, layout)
    return torch.sparse_compressed_tensor(compressed, plain, values, shape, layout=named, check_invariants=False)


def restore_leaf(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that requires a gradient and belongs to no graph."""
    return tensor.requires_grad_()
