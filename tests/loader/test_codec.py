"""What a batch is when it arrives: the same values in the same containers, with torch's strides, aliases and flags."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import operator
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keepfed.loader.api as keepfed
from keepfed.loader.codec import DTYPES, INLINE_BYTES, PICKLE_INLINE_BYTES
from tests.loader.carrier import Carrier, elements

STRIDED = [dtype for dtype in DTYPES if not str(dtype).startswith(("torch.qu", "torch.qi"))]
FEW = 100
SOME = INLINE_BYTES + 100
MANY = (256 << 10) + 100
"""Bytes that travel in the message, that are copied out of a slot, and that are leased."""

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def carry() -> Iterator[Carrier]:
    carrier = Carrier()
    yield carrier
    vars(carrier).clear()  # pytest keeps the object itself longer than the leak fixture waits


def tensor_of(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, max(count, 1), np.uint8))
    stride = torch.empty(shape, device="meta").stride()
    return torch.empty(0, dtype=dtype).set_(raw.untyped_storage(), 0, shape, stride)


def same_tensor(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (type(ours), ours.dtype, ours.shape, ours.stride()) == (
        type(theirs),
        theirs.dtype,
        theirs.shape,
        theirs.stride(),
    )
    assert ours.requires_grad == theirs.requires_grad
    assert elements(ours) == elements(theirs)


# ----------------------------------------------------------------------------------------------------------------- tensors


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("nbytes", [FEW, SOME, MANY])
def test_every_dtype_arrives_at_every_size(carry: Carrier, nbytes: int) -> None:
    for dtype in STRIDED:
        tensor = tensor_of(dtype, (nbytes // dtype.itemsize,))
        same_tensor(carry(tensor), tensor)
        same_tensor(carry({"x": [tensor], "y": "not plain"})["x"][0], tensor)


_LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1) if x.dim() else x,
    "every second": lambda x: x[::2] if x.dim() else x,
    "without the first": lambda x: x[1:] if x.dim() else x,
    "last column": lambda x: x[..., -1:] if x.dim() else x,
    "expanded": lambda x: x.expand(3, *x.shape),
    "expanded from one": lambda x: x.reshape(-1)[:1].expand(5_000, -1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "overlapping windows": lambda x: x.reshape(-1).unfold(0, 2, 1) if x.numel() > 1 else x,
    "another dtype": lambda x: x.reshape(-1).view(torch.uint8),
    "flattened": lambda x: x.reshape(-1),
    "zero-dimensional": lambda x: x.reshape(-1)[-1] if x.numel() else x,
}


@quick
@given(
    dtype=st.sampled_from([torch.float32, torch.uint8, torch.int64, torch.bfloat16, torch.bool, torch.complex128]),
    shape=st.one_of(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        st.sampled_from([(3_000,), (2, 3, 40, 50), (70_000,), (400, 300), (5, 0, 9_000), (1, 1, 20_000)]),
    ),
    layouts=st.lists(st.sampled_from(sorted(_LAYOUTS)), min_size=1, max_size=4),
    container=st.sampled_from(["alone", "list", "tuple", "dict", "nested"]),
)
def test_every_layout_arrives_as_it_was(
    dtype: torch.dtype, shape: tuple[int, ...], layouts: list[str], container: str
) -> None:
    base = tensor_of(dtype, shape, seed=len(shape))
    tensors = [_LAYOUTS[name](base) for name in layouts]
    wraps: dict[str, Callable[[Any], Any]] = {
        "alone": operator.itemgetter(0),
        "list": list,
        "tuple": tuple,
        "dict": lambda some: dict(enumerate(some)),
        "nested": lambda some: {"a": [some[0], ("b", tuple(some))], "c": None},
    }
    unwraps: dict[str, Callable[[Any], Any]] = {
        "alone": lambda one: [one],
        "dict": lambda some: list(some.values()),
        "nested": lambda some: [*some["a"][1][1]],
    }
    wrap, unwrap = wraps[container], unwraps.get(container, list)
    sent = wrap(tensors)
    arrived = Carrier()(sent)
    assert type(arrived) is type(sent)
    for ours, theirs in zip(unwrap(arrived), unwrap(sent), strict=True):
        same_tensor(ours, theirs)


def test_an_expanded_tensor_stays_as_small_as_it_was(carry: Carrier) -> None:
    for batch in (torch.zeros(1).expand(1_000, 1_000), [torch.zeros(1).expand(1_000, 1_000), "x"]):
        arrived = carry(batch)
        tensor = arrived if isinstance(arrived, torch.Tensor) else arrived[0]
        assert tensor.untyped_storage().nbytes() <= 16
        assert tensor.stride() == (0, 0)


@pytest.mark.parametrize("nbytes", [FEW, SOME, MANY])
def test_a_small_view_carries_itself_and_not_its_storage(carry: Carrier, nbytes: int) -> None:
    big = torch.arange(4_000_000, dtype=torch.uint8)
    for offset in (0, 64, 33):
        view = big[offset : offset + nbytes]
        plain, pickled = carry(view), carry([view, "x"])[0]
        assert plain.untyped_storage().nbytes() == nbytes
        assert pickled.untyped_storage().nbytes() <= nbytes + 15
        same_tensor(plain, view)
        same_tensor(pickled, view)


@pytest.mark.parametrize("numel", [20, 4_000, 100_000])
def test_views_of_one_storage_stay_views_of_one_storage(carry: Carrier, numel: int) -> None:
    x = torch.arange(float(numel)).view(2, -1)
    sent = {"x": x, "row": x[1], "last": x[:, -1:], "bytes": x.view(torch.uint8), "apart": x.clone(), "same": x}
    arrived = carry(sent)
    for name, tensor in sent.items():
        same_tensor(arrived[name], tensor)
    assert arrived["same"] is arrived["x"]
    arrived["x"].fill_(7)
    assert (arrived["row"] == 7).all()
    assert (arrived["last"] == 7).all()
    assert (arrived["bytes"].view(torch.float32) == 7).all()
    assert torch.equal(arrived["apart"], x)
    assert (x != 7).any()


def test_views_of_one_storage_without_a_common_start_stay_connected(carry: Carrier) -> None:
    x = torch.arange(200_000.0)
    late, early = carry((x[70_001:], x[3:150_000]))
    early[70_001 - 3] = -1
    assert late[0] == -1
    assert late.storage_offset() >= 0


def test_one_tensor_twice_in_a_list_is_one_tensor(carry: Carrier) -> None:
    x = torch.zeros(100_000)
    a, b, c = carry([x, x, x.detach()])
    assert a is b
    assert c.untyped_storage()._cdata == a.untyped_storage()._cdata


def test_leaves_and_parameters_keep_their_gradient_flag(carry: Carrier) -> None:
    for size in (3, 5_000, 90_000):
        leaf = torch.rand(size, requires_grad=True)
        frozen = torch.nn.Parameter(torch.rand(size), requires_grad=False)
        arrived = carry({"leaf": leaf, "parameter": torch.nn.Parameter(torch.rand(size)), "frozen": frozen})
        assert arrived["leaf"].is_leaf
        assert arrived["leaf"].requires_grad
        assert arrived["leaf"].grad is None
        assert type(arrived["parameter"]) is torch.nn.Parameter
        assert arrived["parameter"].requires_grad
        assert type(arrived["frozen"]) is torch.nn.Parameter
        assert not arrived["frozen"].requires_grad
        (arrived["leaf"] * arrived["parameter"]).sum().backward()
        assert arrived["leaf"].grad is not None


def test_a_tensor_of_a_graph_is_refused_in_torchs_words_and_the_next_batch_is_fine(carry: Carrier) -> None:
    graph = torch.zeros(90_000, requires_grad=True) * 2
    for batch in (graph, [torch.zeros(90_000), graph], {"a": (graph,)}):
        with pytest.raises(RuntimeError, match="Cowardly refusing to serialize non-leaf tensor which requires_grad"):
            carry.send(batch)
        carry.out.discard()
    assert torch.equal(carry(torch.ones(90_000)), torch.ones(90_000))


class _Tagged(torch.Tensor):
    """A tensor with a note on it, as MONAI's MetaTensor and torchvision's TVTensors have."""

    tag: Any


@pytest.mark.parametrize("size", [3, 5_000, 90_000])
def test_subclasses_of_tensor_keep_their_type_and_attributes(carry: Carrier, size: int) -> None:
    tagged = torch.rand(size).as_subclass(_Tagged)
    tagged.tag = {"affine": torch.eye(4), "name": "ct.nii"}
    arrived = carry({"image": tagged, "base": tagged.as_subclass(torch.Tensor)})
    assert type(arrived["image"]) is _Tagged
    assert arrived["image"].tag["name"] == "ct.nii"
    assert torch.equal(arrived["image"].tag["affine"], torch.eye(4))
    assert torch.equal(arrived["base"], tagged.as_subclass(torch.Tensor))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:The PyTorch API of nested tensors")
def test_sparse_nested_and_lazy_tensors_arrive(carry: Carrier) -> None:
    dense = (torch.rand(120, 90) > 0.5).float() * torch.rand(120, 90)
    sent = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(), dense.to_sparse_bsr((2, 3))]
    for ours, theirs in zip(carry(sent), sent, strict=True):
        assert ours.layout is theirs.layout
        assert torch.equal(ours.to_dense(), dense)
        assert ours.layout is not torch.sparse_coo or ours.is_coalesced()
    del ours, theirs
    jagged = torch.nested.nested_tensor([torch.rand(3, 900), torch.rand(5, 900)], layout=torch.jagged)
    for ours, theirs in zip(carry([jagged])[0].unbind(), jagged.unbind(), strict=True):
        assert torch.equal(ours, theirs)
    lazy = torch.randn(3_000, dtype=torch.complex64)
    conj, neg = carry((lazy.conj(), lazy.conj().imag))
    assert conj.is_conj()
    assert torch.equal(conj, lazy.conj())
    assert torch.equal(neg, lazy.conj().imag)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_tensors_arrive(carry: Carrier) -> None:
    quantized = torch.quantize_per_tensor(torch.rand(20_000), 0.1, 3, torch.quint8)
    assert torch.equal(carry(quantized).int_repr(), quantized.int_repr())


def test_storages_arrive_whole(carry: Carrier) -> None:
    x = torch.arange(50_000.0)
    arrived = carry({"storage": x.untyped_storage(), "x": x[5:]})
    assert arrived["storage"].nbytes() == 200_000
    assert arrived["storage"]._cdata == arrived["x"].untyped_storage()._cdata
    assert torch.equal(arrived["x"], x[5:])


@pytest.mark.parametrize("device", ["meta"])
def test_a_default_device_of_the_program_changes_nothing(carry: Carrier, device: str) -> None:
    batches = [torch.rand(10), torch.rand(5_000), torch.zeros(3, 0), torch.rand(90_000)]
    with torch.device(device):
        arrived = [*carry(batches), *carry([*batches, "x"])[:-1]]
    for ours, theirs in zip(arrived, batches * 2, strict=True):
        same_tensor(ours, theirs)


# ------------------------------------------------------------------------------------------------------------------ arrays


@quick
@given(
    array=hnp.arrays(
        st.one_of(hnp.scalar_dtypes().filter(lambda dtype: dtype.isnative), hnp.array_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=6),
    ),
    repeat=st.sampled_from([1, 1, 4_000]),
    order=st.sampled_from(["C", "F"]),
    read_only=st.booleans(),
    step=st.sampled_from([1, 2, -1]),
)
def test_every_array_arrives(array: np.ndarray[Any, Any], repeat: int, order: Any, read_only: bool, step: int) -> None:
    array = np.asarray(np.repeat(array, repeat, axis=0) if array.ndim else array, order=order)
    array = array[::step] if array.ndim else array
    array.flags.writeable = not read_only
    ours = Carrier()(["x", array])[1]
    assert (type(ours), ours.dtype, ours.shape) == (np.ndarray, array.dtype, array.shape)
    assert ours.tobytes() == array.tobytes()
    assert ours.flags.writeable  # as after torch's transport
    if array.flags.forc:
        assert (ours.flags.c_contiguous, ours.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )


@pytest.mark.parametrize("length", [4, 3_000])
def test_object_arrays_and_kinds_of_arrays_arrive(carry: Carrier, length: int) -> None:
    objects = np.array([{"n": number} for number in range(length)], dtype=object)
    masked = np.ma.masked_array(np.arange(length), mask=np.arange(length) % 2 == 1)
    ours = carry({"objects": objects, "masked": masked, "scalar": np.float32(3), "bytes": np.array([b"ab"] * length)})
    assert ours["objects"].tolist() == objects.tolist()
    assert type(ours["masked"]) is np.ma.MaskedArray
    assert ours["masked"].sum() == masked.sum()
    assert type(ours["scalar"]) is np.float32
    assert ours["bytes"].tolist() == [b"ab"] * length


def test_one_array_twice_is_one_array(carry: Carrier) -> None:
    for size in (10, 10_000, 300_000):
        array = np.arange(size)
        a, b = carry([array, array])
        assert a is b


# ------------------------------------------------------------------------------------------------------- everything else


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    meta: dict[str, Any]


class Colour(enum.Enum):
    RED = 1


leaves = st.one_of(
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from([b"x" * 40_000, "y" * 70_000, Colour.RED, dt.date(2024, 2, 29), bytearray(b"z" * 9_000)]),
    st.sampled_from([(4,), (40, 30), (300, 300), (0, 2)]).map(lambda shape: tensor_of(torch.float32, shape)),
    st.sampled_from([(4,), (40, 30), (300, 300)]).map(np.ones),
)
batches = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(collections.OrderedDict, st.lists(st.tuples(st.text(max_size=2), inner), max_size=3)),
        st.builds(Sample, st.just(torch.ones(3_000)), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    ),
    max_leaves=12,
)


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, torch.Tensor):
        same_tensor(ours, theirs)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.strides == theirs.strides
        assert np.array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        same(list(ours.values()), list(theirs.values()))
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            same(our, their)
    elif dataclasses.is_dataclass(theirs):
        same(vars(ours), vars(theirs))
    else:
        assert ours == theirs


@quick
@given(batch=batches)
def test_nested_batches_arrive_as_they_were(batch: Any) -> None:
    same(Carrier()(batch), batch)


@pytest.mark.parametrize("nbytes", [100, PICKLE_INLINE_BYTES + 1, 61 << 10, 3 << 20])
def test_bytes_and_text_of_every_size_arrive(carry: Carrier, nbytes: int) -> None:
    batch = [bytes(range(256)) * (nbytes // 256), bytearray(nbytes), "é" * nbytes, {"deep": [b"x" * nbytes]}]
    assert carry(batch) == batch


def test_a_batch_that_contains_itself_arrives(carry: Carrier) -> None:
    batch: dict[str, Any] = {"x": torch.zeros(90_000)}
    batch["self"] = batch
    arrived = carry(batch)
    assert arrived["self"] is arrived
    del arrived["self"]
    del batch["self"]


def test_a_batch_that_cannot_be_pickled_says_so_and_the_next_one_is_fine(carry: Carrier) -> None:
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        carry.send([torch.zeros(90_000), lambda: 0])
    carry.out.discard()
    assert carry(torch.ones(3)).tolist() == [1, 1, 1]


# -------------------------------------------------------------------------------------------------------- in real workers


def _aliases(samples: list[torch.Tensor]) -> dict[str, Any]:
    x = torch.utils.data.default_collate(samples)
    sent = {"x": x, "column": x[:, 1], "same": x, "later": x[2:], "array": x.numpy(), "label": x[:, 0].long()}
    assert torch.utils.data.get_worker_info() is not None
    return sent


@pytest.mark.parametrize("width", [4, 1_000, 40_000])
def test_aliases_in_a_collated_batch_survive_the_worker_as_in_torch(width: int) -> None:
    for loader_class in (torch.utils.data.DataLoader, keepfed.DataLoader):
        data = torch.arange(8.0 * width).view(8, width)
        batches = list(loader_class(data, batch_size=4, num_workers=1, collate_fn=_aliases))  # type: ignore[arg-type]  # a list serves as a data set
        for number, batch in enumerate(batches):
            assert torch.equal(batch["x"], data[4 * number : 4 * number + 4])
            batch["x"].mul_(-1)
            assert torch.equal(batch["column"], batch["x"][:, 1])
            assert torch.equal(batch["later"], batch["x"][2:])
            assert batch["same"] is batch["x"] or batch["same"].data_ptr() == batch["x"].data_ptr()
            assert torch.equal(batch["label"], data[4 * number : 4 * number + 4, 0].long())


def test_a_dict_whose_keys_cannot_be_pickled_is_an_error_in_next() -> None:
    class Local(enum.Enum):
        X = 1

    loader = keepfed.DataLoader(
        torch.utils.data.TensorDataset(torch.arange(4)), num_workers=1, collate_fn=lambda batch: {Local.X: batch[0][0]}
    )
    with pytest.raises((AttributeError, pickle.PicklingError)):
        next(iter(loader))
