"""Would this dataset mean the same in a worker? What can be seen of it from outside, cheaply, between batches.

A program that loads in its own process may rely on it: a loop that sets `dataset.difficulty`, a cache in memory that fills
up, a counter, a file that is opened at the first access (and would be shared, offset and all, by workers forked later).
All of these change the object. `state_of` takes a picture of it that changes with them: values of plain attributes,
lengths and identities of containers, versions of tensors, a few levels deep and bounded in number.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch

MOST_PARTS = 20_000
DEEPEST = 5
_PLAIN = (int, float, complex, str, bytes, bool, type(None), type)
_OPEN_MODULES = ("_io",)

State = dict[str, object]


def state_of(dataset: object) -> State:
    """What the dataset looks like now, attribute path by attribute path."""
    state: State = {}
    _look(dataset, type(dataset).__name__, 0, state, set())
    return state


def first_change(before: State, after: State) -> str | None:
    """The path of an attribute that differs between two states; None when all are the same."""
    for path, value in after.items():
        if path not in before or before[path] != value:
            return path
    return next((path for path in before if path not in after), None)


def _look(value: Any, path: str, depth: int, state: State, seen: set[int]) -> None:
    if len(state) >= MOST_PARTS:
        return
    state[path] = _mark(value)
    if isinstance(value, _PLAIN) or id(value) in seen or depth >= DEEPEST:
        return
    seen.add(id(value))
    for name, part in _parts(value):
        _look(part, f"{path}{name}", depth + 1, state, seen)


def _mark(value: Any) -> object:
    """Something that differs when the value itself, without its parts, has changed."""
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value if value == value else "nan")  # noqa: PLR0124  # NaN differs from itself
    if isinstance(value, torch.Tensor):
        return (id(value), tuple(value.shape), value._version)
    if isinstance(value, np.ndarray):
        return (id(value), value.shape)
    length = len(value) if isinstance(value, (list, dict, set, tuple, bytearray)) else -1
    position = _position(value) if type(value).__module__ in _OPEN_MODULES else None
    return (type(value).__qualname__, id(value), length, position)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r:.40}]", part) for key, part in _some(list(value.items()))]
    if isinstance(value, (list, tuple)):
        return [(f"[{number}]", part) for number, part in _some(list(enumerate(value)))]
    return [(f".{name}", part) for name, part in _some(list(getattr(value, "__dict__", {}).items()))]


def _some(parts: list[Any]) -> list[Any]:
    """All parts of a short container; both ends of a long one, whose length is looked at anyhow."""
    return parts if len(parts) <= 64 else parts[:32] + parts[-32:]


def _position(file: Any) -> object:
    try:
        return file.tell()
    except (OSError, ValueError, AttributeError):
        return None


def first_difference(one: Any, other: Any, path: str = "batch") -> str | None:
    """Where two batches differ, in bytes, types or shapes; None when they are the same."""
    if type(one) is not type(other):
        return f"{path}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, torch.Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype and _bytes(one) == _bytes(other)
        return None if same else path
    if isinstance(one, np.ndarray):
        return None if one.dtype == other.dtype and one.shape == other.shape and _same(one, other) else path
    if isinstance(one, dict):
        if list(one) != list(other):
            return f"{path}: keys"
        parts = [(f"{path}[{key!r}]", one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{path}: length"
        parts = [
            (f"{path}[{number}]", left, right) for number, (left, right) in enumerate(zip(one, other, strict=True))
        ]
    else:
        return None if _same(one, other) else path
    return next((found for name, left, right in parts if (found := first_difference(left, right, name))), None)


def _bytes(tensor: torch.Tensor) -> bytes:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return pickle.dumps(tensor)
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _same(one: Any, other: Any) -> bool:
    return pickle.dumps(one) == pickle.dumps(other)
