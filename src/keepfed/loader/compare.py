"""Are two batches the same, byte for byte? One was made in this process, the other in a child.

Containers are walked, whatever class they are of: pickling a whole batch would compare how it happens to be stored (the
part of a larger storage, the order in which a set was filled) and call equal batches different.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def first_difference(one: Any, other: Any, path: str = "batch") -> str | None:
    """Where two batches differ, in bytes, types or shapes; None when they are the same."""
    if type(one) is not type(other):
        return f"{path}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, torch.Tensor):
        return None if _same_tensor(one, other) else path
    if isinstance(one, np.ndarray) and not one.dtype.hasobject:
        same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        return None if same else path
    if isinstance(one, (set, frozenset)):
        return None if one == other else path
    if isinstance(one, Mapping):
        if list(one) != list(other):
            return f"{path}: keys"
        return _first((f"{path}[{key!r}]", one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{path}: length"
        return _first((f"{path}[{number}]", *pair) for number, pair in enumerate(zip(one, other, strict=True)))
    kind: Any = type(one)
    if kind.__reduce_ex__ is object.__reduce_ex__ and getattr(one, "__dict__", None):
        return first_difference(vars(one), vars(other), f"{path}.__dict__")
    return None if pickle.dumps(one) == pickle.dumps(other) else path


def _first(pairs: Any) -> str | None:
    return next((found for name, left, right in pairs if (found := first_difference(left, right, name))), None)


def _same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.requires_grad != other.requires_grad:
        return False
    return _bytes(one) == _bytes(other)


def _bytes(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach().int_repr() if tensor.is_quantized else tensor.detach()
    tensor = tensor if tensor.layout is torch.strided else tensor.to_dense()
    flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def first_in_common(one: Any, other: Any, path: str = "batch") -> str | None:
    """What two batches, both alive, have in common that could be changed; None when each is all its own.

    Batches that were made one after the other from the same samples share memory when the dataset hands out its own.
    """
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return path if _address(one) and _address(one) == _address(other) else None
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return path if np.may_share_memory(one, other) else None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        inner = _first_in_common((f"{path}[{key!r}]", one[key], other[key]) for key in one if key in other)
        return path if one is other else inner
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        inner = _first_in_common(
            (f"{path}[{number}]", *pair) for number, pair in enumerate(zip(one, other, strict=False))
        )
        return path if one is other and isinstance(one, list) else inner
    if isinstance(one, _NEVER_CHANGED):
        return None
    inner = first_in_common(vars(one), vars(other), f"{path}.__dict__") if hasattr(one, "__dict__") else None
    return path if one is other else inner


_NEVER_CHANGED = (int, float, complex, str, bytes, bool, type(None), type, range, frozenset, np.generic, torch.dtype)


def _first_in_common(pairs: Any) -> str | None:
    return next((found for name, left, right in pairs if (found := first_in_common(left, right, name))), None)


def _address(tensor: torch.Tensor) -> int:
    """Where the storage lies; 0 for an empty one, and for layouts without."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0
