"""What a batch may consist of: each kind arrives as it does through torch's own transport, with the rest of it intact."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, default_collate

import keepfed.loader.api as keepfed
from tests.loader.side_by_side import Diary, assert_same, diary_of

LARGE = 20_000  # elements: enough for a slot, and to be leased where they have four bytes


@dataclasses.dataclass
class Record:
    image: torch.Tensor
    number: int


class Pair(NamedTuple):
    x: torch.Tensor
    y: int


class Special(torch.Tensor):
    """A subclass as frameworks have them: its type and its attributes travel."""


class Pinnable:
    def __init__(self, value: Any) -> None:
        self.value = value

    def pin_memory(self) -> Any:
        return Pinnable("pinned")


def special(i: int) -> torch.Tensor:
    tensor: Any = torch.full((LARGE,), float(i)).as_subclass(Special)
    tensor.source = f"file {i}"
    return tensor  # type: ignore[no-any-return]  # Any for the attribute


def nested(i: int, layout: torch.layout) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.full((5_000 + i,), 1.0), torch.full((7,), 2.0)], layout=layout)


KINDS: dict[str, Any] = {
    "array of objects": lambda i: np.array([i, "a", None, [1]], dtype=object),
    "structured array": lambda i: np.array([(i, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "large structured array": lambda i: np.array([(i, 2.5)] * LARGE, dtype=[("a", "i4"), ("b", "f8")]),
    "record array": lambda i: np.rec.array([(i, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked array": lambda i: np.ma.masked_array([i, 2, 3], mask=[False, True, False]),
    "dates": lambda i: np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    "many dates": lambda i: np.arange(LARGE).astype("datetime64[s]"),
    "durations": lambda i: np.arange(LARGE).astype("timedelta64[ms]"),
    "array of strings": lambda i: np.array([f"name {i}"] * 3_000),
    "0-dim array": lambda i: np.array(float(i)),
    "empty array": lambda i: np.zeros((0, 3), np.int16),
    "complex array": lambda i: np.full(LARGE, 1j),
    "half array": lambda i: np.full(LARGE, i, np.float16),
    "other byte order, small": lambda i: np.full(3, i, ">f4"),
    "other byte order, large": lambda i: np.full(LARGE, i, ">i4"),
    "other byte order, structured": lambda i: np.array([(i,)] * LARGE, dtype=[("a", ">i4")]),
    "Fortran order": lambda i: np.asfortranarray(np.arange(LARGE).reshape(100, -1)),
    "strided array": lambda i: np.arange(4 * LARGE)[:: 3 + i],
    "read-only array": lambda i: np.frombuffer(bytes([i]) * LARGE, np.uint8),
    "numpy scalars": lambda i: [np.float32(i), np.int8(i), np.bool_(True), np.str_("s"), np.datetime64("2020-01-01")],
    "0-dim tensor": lambda i: torch.tensor(i / 2),
    "empty tensor": lambda i: torch.zeros(0, 3, dtype=torch.int16),
    "bool": lambda i: torch.arange(LARGE) % 2 == 0,
    "complex": lambda i: torch.full((LARGE,), 1j * i),
    "bfloat16": lambda i: torch.full((LARGE,), i, dtype=torch.bfloat16),
    "float8": lambda i: torch.full((LARGE,), 1.0 + i).to(torch.float8_e4m3fn),
    "uint64": lambda i: torch.full((LARGE,), i, dtype=torch.uint64),
    "small complex and empty": lambda i: [torch.tensor(1j), torch.zeros(2, 0)],
    "subclass": special,
    "nested, strided": lambda i: nested(i, torch.strided),
    "nested, jagged": lambda i: nested(i, torch.jagged),
    "sparse COO": lambda i: (torch.eye(300) * (i + 1)).to_sparse(),
    "sparse CSR": lambda i: (torch.eye(300) * (i + 1)).to_sparse_csr(),
    "meta": lambda i: torch.empty(LARGE, device="meta"),
    "storage": lambda i: torch.full((LARGE,), float(i)).untyped_storage(),
    "packed sequence": lambda i: pack_sequence([torch.full((6_000,), float(i)), torch.ones(2)]),
    "dataclass": lambda i: Record(torch.full((LARGE,), i), i),
    "named tuple": lambda i: Pair(torch.full((LARGE,), i), i),
    "bytes": lambda i: b"x" * LARGE + bytes([i]),
    "bytearray": lambda i: bytearray(b"x" * LARGE),
    "text": lambda i: "é" * LARGE,
    "containers": lambda i: [{1, 2}, frozenset("a"), collections.deque([torch.ones(LARGE)]), range(i), {(1, 2): None}],
    "ordered dict": lambda i: collections.OrderedDict(b=torch.ones(LARGE), a=i),
    "default dict": lambda i: collections.defaultdict(list, a=[torch.ones(LARGE)]),
    "class and function": lambda i: [Record, default_collate, torch.float32, torch.Size([1]), Exception(i).args],
    "object with pin_memory": Pinnable,
}


def form(value: Any) -> Any:
    """A value as far as two processes can compare it, with every type on the way."""
    if isinstance(value, torch.Tensor):
        about = (value.dtype, value.layout, value.device.type, value.requires_grad, getattr(value, "source", None))
        if value.is_nested:
            inside: Any = [form(part) for part in value.unbind()]
        elif value.layout is not torch.strided:
            inside = form(value.to_dense())
        elif value.device.type == "meta":
            inside = value.shape
        else:
            inside = (value.shape, value.stride(), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return type(value), about, inside
    if isinstance(value, np.ndarray):
        content = value.tolist() if value.dtype.hasobject else value.tobytes()
        return type(value), str(value.dtype), value.shape, value.strides, value.flags.writeable, content
    if isinstance(value, torch.UntypedStorage):
        return type(value), value.nbytes(), form(torch.empty(0).set_(value))
    if isinstance(value, Record | Pinnable):
        return type(value), {name: form(inside) for name, inside in vars(value).items()}
    if isinstance(value, PackedSequence):
        return type(value), [form(inside) for inside in value]
    if isinstance(value, dict):
        return type(value), [(key, form(inside)) for key, inside in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return type(value), [form(inside) for inside in value]
    return type(value), repr(value)


def fingerprint(value: Any) -> tuple[str, str]:
    """Short enough for a failed comparison: the beginning of `form`, and a hash of all of it."""
    text = repr(form(value))
    return text[:120], hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Kinds(Dataset[Any]):
    """Two samples of each kind."""

    def __len__(self) -> int:
        return 2 * len(KINDS)

    def __getitem__(self, index: int) -> Any:
        return list(KINDS.values())[index // 2](index % 2)


def itself(sample: Any) -> Any:
    return sample


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning", "ignore:Sparse:UserWarning")
@pytest.mark.parametrize(
    "batching",
    [{"batch_size": None}, {"batch_size": None, "collate_fn": itself}, {"batch_size": 2, "collate_fn": list}],
    ids=["converted", "samples", "lists"],
)
def test_every_kind_arrives_as_through_torch(batching: dict[str, Any]) -> None:
    def program(cls: type[TorchDataLoader[Any]], diary: Diary) -> None:
        iterator = iter(cls(Kinds(), num_workers=1, **batching))
        for name in KINDS:
            for _ in range(1 if batching["batch_size"] else 2):
                try:
                    diary.note(name, fingerprint(next(iterator)))
                except (TypeError, ValueError) as error:  # kinds that default_convert refuses
                    diary.error(error)

    ours, theirs = (diary_of(program, cls)[0] for cls in (keepfed.DataLoader, TorchDataLoader))
    for our, their in zip(ours, theirs, strict=True):
        assert our == their


class Refused(Dataset[Any]):
    kinds = ("nested, strided", "nested, jagged", "dates", "array of strings", "array of objects", "dataclass")

    def __len__(self) -> int:
        return 2 * len(self.kinds)

    def __getitem__(self, index: int) -> Any:
        return KINDS[self.kinds[index // 2]](0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_default_collate_refuses_is_refused_in_its_words() -> None:
    assert_same(lambda cls, diary: diary.read(cls(Refused(), batch_size=2, num_workers=1), raises=True))


@pytest.mark.parametrize("bit", [torch.Tensor.conj, torch._neg_view])
def test_conjugated_and_negated_views_have_their_values(bit: Any) -> None:
    """torch's transport drops the bit, and the values are other ones."""

    class Lazy(Kinds):
        def __getitem__(self, index: int) -> Any:
            return bit(torch.full((LARGE,), 1 + 1j))

    batch = next(iter(keepfed.DataLoader(Lazy(), batch_size=None, num_workers=1)))
    assert torch.equal(batch, bit(torch.full((LARGE,), 1 + 1j)))


@pytest.mark.skipif(not hasattr(torch, "quantize_per_tensor"), reason="quantized tensors left torch")
@pytest.mark.filterwarnings("ignore::UserWarning")  # quantized tensors are on their way out of torch
def test_quantized_tensors_keep_their_scale() -> None:
    """torch's transport loses it: what arrives cannot even be printed."""

    class Quantized(Kinds):
        def __getitem__(self, index: int) -> Any:
            return torch.quantize_per_tensor(torch.full((LARGE,), 0.7), 0.1, 3, torch.qint8)

    batch = next(iter(keepfed.DataLoader(Quantized(), batch_size=None, num_workers=1)))
    assert (batch.q_scale(), batch.q_zero_point(), batch.dtype) == (0.1, 3, torch.qint8)
    assert torch.equal(batch.int_repr(), torch.full((LARGE,), 10, dtype=torch.int8))


def test_collating_in_the_program_puts_nothing_into_shared_memory_of_ours() -> None:
    """torch's own default_collate, whatever loaders run beside it."""
    iterator = iter(keepfed.DataLoader(Kinds(), batch_size=None, num_workers=1))
    stacked = default_collate([torch.ones(LARGE), torch.ones(LARGE)])
    assert not stacked.is_shared()
    assert stacked.untyped_storage().resizable()
    del iterator


def test_the_default_dtype_of_the_program_is_the_workers() -> None:
    class Floats(Kinds):
        def __getitem__(self, index: int) -> Any:
            return index / 2, torch.ones(LARGE, device="cpu"), np.float32(index)

    def program(cls: type[TorchDataLoader[Any]], diary: Diary) -> None:
        loader = cls(Floats(), batch_size=2, num_workers=1)
        torch.set_default_dtype(torch.float64)
        try:
            diary.read(loader, at_most=2)
        finally:
            torch.set_default_dtype(torch.float32)

    assert_same(program)
