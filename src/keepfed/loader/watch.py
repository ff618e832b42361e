"""Would this dataset mean the same in a worker? What can be seen of it from outside, cheaply, between batches.

A program that loads in its own process may rely on it: a loop that sets `dataset.difficulty`, a cache in memory that fills
up, a counter, a random generator of the dataset's own, a file that is opened at the first access (and would be shared,
offset and all, by workers forked later). All of these change an object that can be reached from the dataset: through its
attributes, through the closures of its functions, or as a global variable that its methods name. `state_of` takes a picture
that changes with them, a few levels deep and bounded in number: values of plain things, lengths and identities of
containers, versions of tensors, checksums of small arrays.

Nothing here may disturb the program, so an object that cannot be looked at is passed over.
"""

from __future__ import annotations

import collections
import datetime as dt
import enum
import fractions
import functools
import io
import itertools
import logging
import pathlib
import random
import re
import sys
import types
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

MOST_PARTS = 5_000
"""Things looked at: some 5 ms of time, and enough for any dataset that keeps its samples in few containers."""
DEEPEST = 6
BOTH_ENDS = 32
"""Of a long container the first and last so many parts are looked at; its length is in any case."""
WHOLE_BYTES = 1 << 16
"""Arrays up to this size are summed up whole, longer ones at both ends (they may be a file of any size, mapped)."""

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type)
_CONTAINERS = (list, dict, set, frozenset, tuple, bytearray, collections.deque)
_CLOSED_BOOKS = (types.ModuleType, logging.Logger)
_VALUES = (pathlib.PurePath, dt.date, dt.time, dt.timedelta, uuid.UUID, fractions.Fraction, enum.Enum)
"""Immutable, but some keep what they have computed once (a Path its text): looked at from outside only."""
_SHARED_HANDLES = frozenset({"sqlite3.Connection", "h5py._hl.files.File", "lmdb.Environment", "zipfile.ZipFile"})
"""Open files in disguise: two processes that inherit one get in each other's way."""

State = dict[str, object]


def state_of(*roots: object) -> State:
    """What the roots (a dataset, its collate function) look like now, path by path."""
    state: State = {}
    for path, value in _walk(roots):
        try:
            state[path] = _mark(value)
        except Exception:  # a proxy, a property that fails: nothing to be seen there
            state[path] = type(value).__qualname__
    return state


def first_change(before: State, after: State) -> str | None:
    """The path of something that differs between two states; None when all is the same."""
    for path, value in after.items():
        if path not in before or before[path] != value:
            return path
    return next((path for path in before if path not in after), None)


def open_handle(*roots: object) -> str | None:
    """The path of an open file, or of what holds one: workers would share its position with this process."""
    for path, value in _walk(roots):
        kind = type(value)
        if isinstance(value, io.IOBase) and not isinstance(value, (io.BytesIO, io.StringIO)):
            if not value.closed:
                return path
        elif f"{kind.__module__}.{kind.__qualname__}" in _SHARED_HANDLES:
            return path
    return None


def _walk(roots: tuple[object, ...]) -> Iterator[tuple[str, Any]]:
    """Everything reachable, nearest first, each object once."""
    home = {_package(kind) for kind in map(type, roots) if _own(kind)} | {"__main__"}
    home |= {_package(root) for root in roots if isinstance(root, types.FunctionType) and _own(root)}
    found = collections.deque((_name(root), root, 0) for root in roots)
    seen: set[int] = set()
    count = 0
    while found and count < MOST_PARTS:
        path, value, depth = found.popleft()
        count += 1
        yield path, value
        if isinstance(value, (*_PLAIN, *_VALUES)) or id(value) in seen or depth >= DEEPEST:
            continue
        seen.add(id(value))
        try:
            parts = _parts(value, home)
            if depth == 0:
                parts += _methods(value, home)
        except Exception:  # as above
            parts = []
        found.extend((path + name, part, depth + 1) for name, part in parts)


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", "") or "").partition(".")[0]


def _own(thing: Any) -> bool:
    """Whether a class or function is the program's: the globals of libraries are not looked at, they are many and fill up."""
    file = getattr(sys.modules.get(thing.__module__), "__file__", None) or ""
    return bool(file) and not {"site-packages", "dist-packages"} & set(re.split(r"[/\\]", file))


def _name(root: object) -> str:
    return getattr(root, "__qualname__", "") or type(root).__qualname__


def _mark(value: Any) -> object:
    """Something that differs when the value itself, without its parts, has changed."""
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value if value == value else "nan")  # noqa: PLR0124  # NaN differs from itself
    if isinstance(value, torch.Tensor):
        return (id(value), tuple(value.shape), 0 if value.is_inference() else value._version)
    if isinstance(value, np.ndarray):
        return (id(value), value.shape, _sum(value))
    if (drawn := _generator_state(value)) is not None:
        return drawn
    if isinstance(value, functools._lru_cache_wrapper):
        return (id(value), value.cache_info().currsize)
    length = len(value) if isinstance(value, _CONTAINERS) else -1
    position = value.tell() if isinstance(value, io.IOBase) and not value.closed and value.seekable() else None
    return (type(value).__qualname__, id(value), length, position)


def _sum(array: np.ndarray[Any, Any]) -> int:
    if array.dtype.hasobject or array.size == 0:
        return 0
    flat: Any = array.reshape(-1) if array.flags.c_contiguous else array.flat
    whole = array.nbytes <= WHOLE_BYTES
    ends = flat[:] if whole else np.concatenate([flat[:BOTH_ENDS], flat[-BOTH_ENDS:]])
    return zlib.crc32(np.ascontiguousarray(ends).tobytes())


def _generator_state(value: Any) -> object:
    """A random generator's state: with workers, each would draw the same numbers from a copy of it."""
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, torch.Generator):
        return zlib.crc32(value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        drawn: Any = value.get_state()
        return zlib.crc32(drawn[1].tobytes()), drawn[2]
    return None


def _parts(value: Any, home: set[str]) -> list[tuple[str, Any]]:
    if isinstance(value, _CLOSED_BOOKS):
        return []
    if isinstance(value, types.FunctionType):
        return _named_by(value, home)
    if isinstance(value, types.MethodType):
        return [("", value.__self__), ("", value.__func__)]
    parts: list[tuple[str, Any]] = []
    if isinstance(value, functools.partial):
        parts += [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, (list, tuple, collections.deque)):
        parts += [(f"[{number}]", value[number]) for number in _ends(range(len(value)))]
    elif isinstance(value, dict):
        parts += [(f"[{_key(key)}]", part) for key, part in _ends(dict.items(value))]
    parts += [(f".{name}", getattr(value, name)) for name in _slots(type(value)) if hasattr(value, name)]
    return parts + [(f".{name}", part) for name, part in _ends(getattr(value, "__dict__", {}).items())]


def _slots(kind: type) -> list[str]:
    found: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found += [slots] if isinstance(slots, str) else slots
    return [name for name in found if name not in {"__dict__", "__weakref__"}]


def _methods(value: Any, home: set[str]) -> list[tuple[str, Any]]:
    """What the methods of the program's own classes name, and what they remember."""
    found: list[tuple[str, Any]] = []
    for kind in type(value).__mro__:
        if _package(kind) in home:
            for name, method in list(vars(kind).items()):
                if isinstance(method, types.FunctionType):
                    found += _named_by(method, home)
                elif not name.startswith("__"):
                    found.append((f" (class attribute {name})", method))
    return found


def _named_by(function: types.FunctionType, home: set[str]) -> list[tuple[str, Any]]:
    """The variables of enclosing functions and of its module that a function uses. Libraries' functions: nothing."""
    if _package(function) not in home:
        return []
    found = [
        (f".{name}", cell.cell_contents)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        if name != "__class__"
    ]
    names = _names(function.__code__)
    found += [(f" (global {name})", function.__globals__[name]) for name in names if name in function.__globals__]
    return [(name, part) for name, part in found if not isinstance(part, (type, *_CLOSED_BOOKS))]


def _names(code: types.CodeType) -> list[str]:
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names(part)]
    return [*code.co_names, *inner]


def _key(key: object) -> str:
    return f"{key!r:.40}" if isinstance(key, (str, int, float, bytes)) else f"{type(key).__name__} {id(key)}"


def _ends(parts: Any) -> list[Any]:
    """All parts of a short container; both ends of a long one."""
    if len(parts) <= 2 * BOTH_ENDS:
        return list(parts)
    return [*itertools.islice(parts, BOTH_ENDS), *itertools.islice(reversed(parts), BOTH_ENDS)]
