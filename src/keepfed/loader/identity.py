"""Which loader is this? The same one as in the last epoch, and as in the last run.

A program may build a new DataLoader every epoch: by object it would be tuned for ever. So a loader is known by where it
is constructed and what class its dataset has; an ordinal tells apart only those that are alive at the same time.
"""

from __future__ import annotations

import weakref
from typing import Any

from keepfed.plan import LoaderId

_alive: dict[tuple[str, str], weakref.WeakKeyDictionary[Any, int]] = {}
_known: weakref.WeakKeyDictionary[Any, LoaderId] = weakref.WeakKeyDictionary()


def identify(loader: Any) -> LoaderId:
    """The identity of this loader; the same each time for the same object."""
    known = _known.get(loader)
    if known is None:
        site = getattr(loader, "_keepfed_site", "") or "?"
        dataset = type(loader.dataset)
        name = f"{dataset.__module__}.{dataset.__qualname__}"
        ordinals = _alive.setdefault((site, name), weakref.WeakKeyDictionary())
        taken = set(ordinals.values())
        ordinals[loader] = next(number for number in range(len(taken) + 1) if number not in taken)
        known = _known[loader] = LoaderId(site, name, ordinals[loader])
    return known
