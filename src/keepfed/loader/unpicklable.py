"""Which part of a dataset cannot be pickled: `dataset.transform.fn`, and not just "<lambda>".

Workers that are spawned get the dataset as a pickle, and one lambda deep inside a transform ends the training before it
began, with an error that names the lambda and not where it is. So what failed is pickled once more, by the pickler that is
written in Python (same protocol, same reducers; CPython keeps both in step): it saves an object by saving its parts, so
that when it fails, the calls that are open are the path from the dataset to the culprit.

    save(dataset) ─▶ save(its __dict__) ─▶ save(transform) ─▶ save(its __dict__) ─▶ save(fn) ✗
    dataset                               .transform                               .fn
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from keepfed.text import say

ROOTS = {"dataset": "dataset", "collate_fn": "collate_fn", "init_fn": "worker_init_fn"}
"""What a program gives to its workers, and the argument of DataLoader that it came by."""
_DEEPEST = 24
"""Steps of a path that are shown: what is nested deeper (a linked list) is cut."""


def named(error: Exception, job: Mapping[str, Any], table: Any) -> Exception:
    """This error with the path to what cannot be pickled in its text; its type stays, as far as the type allows it.

    `table` is the pickler's dispatch table.
    """
    found = next(filter(None, (culprit(job[key], name, table) for key, name in ROOTS.items() if key in job)), None)
    if found is None:
        return error
    path, what = found
    text = "\n".join([str(error), say("loader.unpicklable", path=path, what=what), say("loader.unpicklable_next")])
    try:
        told = type(error)(text)
    except Exception:  # an exception that is made of something else than a text
        told = error
    if str(told) != text:
        error.add_note(text)
        return error
    return told


def culprit(root: Any, name: str, table: Any) -> tuple[str, str] | None:
    """Path and description of the first part that cannot be pickled; None when all can be."""
    pickler = _Tracing(table)
    try:
        pickler.dump(root)
    except Exception:
        return _path(pickler.open, name), _described(pickler.open[-1] if pickler.open else root)
    return None


_PythonPickler: Any = pickle._Pickler
"""pickle.Pickler as it is without its C twin."""


class _Tracing(_PythonPickler):  # type: ignore[misc]  # typeshed does not say what it is
    """Knows what it is in the middle of. Writes nothing."""

    def __init__(self, table: Any) -> None:
        super().__init__(self)
        self.open: list[Any] = []
        # Their bytes are no trouble, and may be gigabytes.
        self.dispatch_table = {**table, torch.UntypedStorage: _nothing, np.ndarray: _elements}

    def write(self, _: bytes) -> None:
        """Be the file that it writes to."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Save one object, which saves its parts."""
        self.open.append(obj)
        super().save(obj, save_persistent_id)
        self.open.pop()  # not in case of an error: then this is the path


def _nothing(_: Any) -> Any:
    return int, ()


def _elements(array: np.ndarray[Any, Any]) -> Any:
    return list, (array.tolist(),) if array.dtype.hasobject else ()


def _path(chain: list[Any], name: str) -> str:
    steps: list[str] = []
    of_object = (
        False  # whether the container at hand is an object in another form: its state, or arguments to rebuild it
    )
    for before, value, part in zip([None, *chain], chain, chain[1:], strict=False):
        of_object = isinstance(value, dict | tuple) and (of_object or not isinstance(before, dict | list | tuple))
        of_object = of_object and before is not None
        steps += _step(value, part, of_object)
        of_object = of_object and isinstance(value, tuple)  # (None, {"slot": value}) is a state of two levels
    return name + "".join(steps[:_DEEPEST]) + ("…" if len(steps) > _DEEPEST else "")


def _step(value: Any, part: Any, of_object: bool) -> list[str]:
    """How `part` is reached from this value; nothing where it is the value in another form."""
    if isinstance(value, dict):
        key = next((key for key, item in value.items() if item is part), None)
        return [] if key is None else [f".{key}"] if of_object else [f"[{key!r}]"]
    if isinstance(value, list) or (isinstance(value, tuple) and not of_object):
        return [f"[{place}]" for place, item in enumerate(value) if item is part][:1]
    return []


def _described(value: Any) -> str:
    shown = repr(value) if isinstance(value, type) or callable(value) else f"{type(value).__qualname__} object"
    return shown if len(shown) <= 200 else shown[:200] + "…"
