"""What can be seen of a dataset between batches, and that looking never disturbs."""

from __future__ import annotations

import collections
import functools
import io
import itertools
import logging
import random
import sqlite3
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keepfed.loader.compare import first_difference
from keepfed.loader.watch import MOST_PARTS, first_change, open_handle, state_of

SETTINGS = {"level": 0}


class _Thing:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __getitem__(self, index: int) -> Any:
        return SETTINGS["level"], _remembered(index)


@functools.lru_cache
def _remembered(index: int) -> int:
    return index


@functools.lru_cache
def _memo(index: int) -> int:
    return index


def _add(thing: Any, part: Any) -> None:
    thing.value.append(part)


_CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "an attribute": (lambda: 1, lambda t: setattr(t, "value", 2)),
    "a new attribute": (lambda: 1, lambda t: setattr(t, "other", 2)),
    "an attribute that is gone": (lambda: 1, lambda t: delattr(t, "value")),
    "1 and True": (lambda: 1, lambda t: setattr(t, "value", True)),
    "nested": (lambda: {"a": [_Thing(1)]}, lambda t: setattr(t.value["a"][0], "value", 2)),
    "a list": (lambda: [1], lambda t: t.value.append(2)),
    "the middle's length": (lambda: list(range(1000)), lambda t: t.value.insert(500, 1)),
    "a set": (lambda: {1}, lambda t: t.value.add(2)),
    "a deque": (collections.deque, lambda t: t.value.append(2)),
    "a dict subclass": (lambda: collections.OrderedDict(a=1), lambda t: t.value.update(a=2)),
    "bytes": (lambda: bytearray(b"a"), lambda t: t.value.extend(b"b")),
    "a tensor in place": (lambda: torch.zeros(3), lambda t: t.value.add_(1)),
    "an array in place": (lambda: np.zeros(3), lambda t: t.value.__setitem__(1, 1.0)),
    "an array that is not contiguous": (lambda: np.zeros((3, 4)).T, lambda t: t.value.__setitem__((1, 1), 1.0)),
    "random.Random": (lambda: random.Random(0), lambda t: t.value.random()),
    "a numpy generator": (lambda: np.random.default_rng(0), lambda t: t.value.random()),
    "a torch generator": (torch.Generator, lambda t: torch.rand(1, generator=t.value)),
    "a partial": (lambda: functools.partial(print, {"p": 1}), lambda t: t.value.args[0].update(p=2)),
    "a bound method": (lambda: _Thing(_Thing(1).__getitem__), lambda t: setattr(t.value.value.__self__, "value", 2)),
    "a global of its methods": (lambda: 1, lambda t: SETTINGS.update(level=SETTINGS["level"] + 1)),
    "lru_cache": (lambda: _memo, lambda t: _memo(time.monotonic_ns())),
    "an attribute of the class": (lambda: 1, lambda t: setattr(_Thing, "shared", time.monotonic_ns())),
}


@pytest.mark.parametrize("what", _CHANGES)
def test_a_change_is_seen(what: str) -> None:
    make, change = _CHANGES[what]
    thing = _Thing(make())
    before = state_of(thing)
    assert first_change(before, state_of(thing)) is None
    change(thing)
    assert first_change(before, state_of(thing)) is not None


def test_a_variable_of_an_enclosing_function_is_seen() -> None:
    count = 0

    def collate(samples: list[Any]) -> list[Any]:
        nonlocal count
        count += 1
        return samples

    before = state_of(collate)
    collate([])
    assert "collate.count" in str(first_change(before, state_of(collate)))


def test_the_path_says_where() -> None:
    thing = _Thing({"names": ["a"]})
    before = state_of(thing)
    thing.value["names"].append("b")
    assert first_change(before, state_of(thing)) == "_Thing.value['names']"


class _Hostile:
    """Fails at everything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __hash__ = None  # type: ignore[assignment]  # as dataclasses with eq have it


class _BadLength(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("len")


def test_what_cannot_be_looked_at_is_passed_over() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with torch.inference_mode():
        inference = torch.zeros(3)
    for value in (
        _Hostile(),
        _BadLength(),
        cycle,
        inference,
        types,
        logging.getLogger("x"),
        itertools.count(),
        np.array([object()], dtype=object),
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
    ):
        thing = _Thing(value)
        assert first_change(state_of(thing), state_of(thing)) is None


def test_a_logger_that_was_used_is_no_change() -> None:
    thing = _Thing(logging.getLogger("keepfed.test"))
    before = state_of(thing)
    thing.value.debug("nothing")
    assert first_change(before, state_of(thing)) is None


def test_a_huge_dataset_is_looked_at_in_little_time() -> None:
    thing = _Thing([[(f"{i}", i)] * 3 for i in range(200_000)])
    thing.other = {i: [i] for i in range(200_000)}  # type: ignore[attr-defined]  # anything may be there
    thing.deep = [[[[[i] * 9 for i in range(9)]] * 9] * 9 for _ in range(90)]  # type: ignore[attr-defined]  # the same
    state_of(thing)
    began_s = time.process_time()
    state = state_of(thing)
    assert time.process_time() - began_s < 0.2
    assert len(state) <= MOST_PARTS


def test_an_open_file_is_found_and_what_only_looks_like_one_is_not(tmp_path: Path) -> None:
    for value in (io.BytesIO(b"x"), io.StringIO("x"), None, [1]):
        assert open_handle(_Thing(value)) is None
    with (tmp_path / "a").open("w+") as file:
        assert open_handle(_Thing({"f": [file]})) == "_Thing.value['f'][0]"
    assert open_handle(_Thing(file)) is None
    connection = sqlite3.connect(tmp_path / "db")
    assert open_handle(_Thing(connection)) == "_Thing.value"
    connection.close()


# ------------------------------------------------------------------------------------------------------------- two batches


class _Box:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.tensor([0.0, -0.0])),
        (torch.zeros(2), torch.zeros(2, requires_grad=True)),
        (torch.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2), np.zeros(2, np.int64)),
        (np.array(["a"], dtype=object), np.array(["b"], dtype=object)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1], [1, 2]),
        ((1,), [1]),
        (1, 1.0),
        (1, True),
        ("a", "b"),
        (None, 0),
        ({1}, {2}),
        (collections.UserDict(a=torch.zeros(1)), collections.UserDict(a=torch.ones(1))),
        (_Box(torch.zeros(1)), _Box(torch.ones(1))),
        (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()),
    ],
)
def test_a_difference_is_found(one: Any, other: Any) -> None:
    assert first_difference(one, other) is not None
    assert first_difference([{"x": one}], [{"x": other}]) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
        (torch.zeros(4, 4)[::2], torch.zeros(2, 4)),
        (torch.zeros(0), torch.zeros(0)),
        (torch.zeros(2, dtype=torch.cfloat).conj(), torch.zeros(2, dtype=torch.cfloat).conj()),
        (np.zeros((2, 3)).T, np.zeros((3, 2))),
        (float("nan"), float("nan")),
        ({"b", "a", "c"}, {"c", "b", "a"}),
        (collections.UserDict(a=torch.zeros(9)[:3]), collections.UserDict(a=torch.zeros(3))),
        (_Box(torch.zeros(9)[:3]), _Box(torch.zeros(3))),
        (torch.eye(3).to_sparse(), torch.eye(3).to_sparse().coalesce()),
        (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)),
    ],
)
def test_equal_batches_are_equal_however_they_are_stored(one: Any, other: Any) -> None:
    assert first_difference(one, other) is None


def test_the_difference_says_where() -> None:
    assert first_difference({"x": [1, 2]}, {"x": [1, 3]}) == "batch['x'][1]"


def test_a_path_that_remembers_its_text_has_not_changed() -> None:
    """pathlib computes the text of a path at first use and keeps it: most photograph folders are lists of paths."""

    class Folder:
        def __init__(self) -> None:
            self.samples = [(Path("a") / f"{number}.jpg", 0) for number in range(3)]

    folder = Folder()
    before = state_of(folder)
    for path, _ in folder.samples:
        str(path)
        hash(path)
    assert first_change(before, state_of(folder)) is None
