"""A dataset of many small Python objects that every worker ends up with a copy of: recognised, and named with its remedy.

Reading a Python object writes to it: its reference count lies in it. So pages that a forked worker shares with the trainer
become its own one by one as it reads, until every worker has a copy of the whole list (pytorch issue 13246, since 2018).
It looks like a leak. gc.freeze() does not help, since it is not the collector that writes; arrays do, since an array of a
million numbers has one count.

Said only on evidence: a worker has *measured* that pages of the trainer's have become its own (`weight.py`), and for
less than a lot of them, the dataset has a container that explains it.
"""

from __future__ import annotations

import logging
import types
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keepfed.loader.notes import Weight
from keepfed.loader.stats import Tally
from keepfed.text import say

logger = logging.getLogger("keepfed")
COPIED_BYTES = 64 << 20
"""Copies of one worker that are worth a word, where a container is found that explains them."""
UNEXPLAINED_BYTES = 256 << 20
"""The same where none is found. Imported libraries alone come to some tens of MB."""
MANY = 100_000
"""Elements of a container that are many small objects."""
_CONTAINERS = (list, dict, tuple, set, frozenset, deque)
_MOST_LOOKED_AT = 1_000
_LOOKED_AT = 100
_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType)


def tell(weights: Sequence[Weight], dataset: object, tally: Tally) -> None:
    """Say it, once per loader, when workers have copied much of the trainer's memory."""
    copied = max((weight.copied_bytes for weight in weights), default=0)
    if tally.told_of_copies or copied < COPIED_BYTES:
        return
    place = largest(dataset)
    if not place and copied < UNEXPLAINED_BYTES:
        return
    tally.told_of_copies = True
    logger.warning(
        say(
            "loader.copies" if place else "loader.copies_somewhere",
            megabytes=copied / 1e6,
            workers=len(weights),
            all_megabytes=sum(weight.copied_bytes for weight in weights) / 1e6,
            dataset=type(dataset).__name__,
            place=place,
        )
    )


def largest(dataset: object) -> str:
    """Where the largest container of small objects in this dataset is, and how large; empty when there is none.

    Looks at attributes, also at those of datasets and other objects within, but runs no code of theirs, and looks at no more
    than a thousand things.
    """
    found = max(_containers(dataset), key=lambda pair: _count(pair[1]), default=None)
    if found is None:
        return ""
    path, container = found
    return say("loader.copies_place", path=path, kind=type(container).__name__, count=_count(container))


def _containers(dataset: object) -> Iterator[tuple[str, Any]]:
    waiting: deque[tuple[str, Any]] = deque([(type(dataset).__name__, dataset)])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        path, thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        count = _count(thing)
        if count >= MANY:
            yield path, thing
        elif count >= 0:
            waiting.extend(_parts(path, thing) if count < _LOOKED_AT else ())
        elif not isinstance(thing, _LEAVES):
            waiting.extend((f"{path}.{name}", part) for name, part in _attributes(thing).items())


def _count(thing: Any) -> int:
    """Python objects in this container; -1 when it is none."""
    if isinstance(thing, np.ndarray):
        return thing.size if thing.dtype.hasobject else 0
    kind = next((kind for kind in _CONTAINERS if isinstance(thing, kind)), None)
    return -1 if kind is None else kind.__len__(thing)  # a subclass may have a `__len__` that does who knows what


def _attributes(thing: object) -> dict[str, Any]:
    """The instance's own attributes; past `__getattr__` and properties."""
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except (AttributeError, TypeError):
        return {}


def _parts(path: str, container: Any) -> list[tuple[str, Any]]:
    if isinstance(container, dict):
        items = list(dict.items(container))
        return [(f"{path}[{key!r}]" if isinstance(key, str | int) else f"{path}[…]", part) for key, part in items]
    if isinstance(container, list | tuple):
        return [(f"{path}[{at}]", part) for at, part in enumerate(container)]
    return []
