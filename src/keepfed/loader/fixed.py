"""Loaders with a worker count that stays: torch's contract, our transport.

Also keeps the running counts of every loader, and hands to torch what ours cannot run.
"""

from __future__ import annotations

import weakref
from numbers import Integral
from typing import Any

from keepfed.loader import torch_seam
from keepfed.loader.epoch import iterator_kind
from keepfed.loader.fallback import tell_once, why_torch
from keepfed.loader.single import SingleIter
from keepfed.loader.stats import Tally
from keepfed.loader.switches import disabled, with_switches
from keepfed.loader.terms import Terms
from keepfed.text import say

_tallies: weakref.WeakKeyDictionary[Any, Tally] = weakref.WeakKeyDictionary()


def tally_of(loader: Any) -> Tally:
    """The running counts of this loader."""
    tally = _tallies.get(loader)
    if tally is None:
        tally = _tallies[loader] = Tally()
    return tally


def adopt_tally(loader: Any, tally: Tally) -> None:
    """From now on this loader counts into `tally` (it is a known one, built anew)."""
    _tallies[loader] = tally


def left_to_torch(loader: Any, reason: str) -> Any:
    """torch's own iterator; `stats().fallback` says why."""
    tally_of(loader).fallback = reason
    return torch_seam.original_get_iterator(loader)


def fixed_iterator(loader: Any) -> Any:
    """An iterator with as many workers as the loader asks for, and torch's batches bit for bit."""
    if type(loader).__hash__ is None or _refused_by_torch(loader):
        return torch_seam.original_get_iterator(loader)
    if loader.num_workers == 0 and not (disabled() or torch_seam.missing()):
        return SingleIter(loader, tally_of(loader))
    if loader.num_workers == 0:
        return torch_seam.original_get_iterator(loader)
    if disabled():
        return left_to_torch(loader, say("loader.disabled"))
    if reason := why_torch(loader):
        tell_once(loader, reason)
        return left_to_torch(loader, reason)
    loader.check_worker_number_rationality()
    terms = Terms.fixed_count(int(loader.num_workers), int(loader.prefetch_factor))
    tally = tally_of(loader)
    tally.fallback = ""
    return iterator_kind(loader)(loader, with_switches(terms), tally)


def _refused_by_torch(loader: Any) -> bool:
    """Whether torch takes these numbers in its `__init__` and refuses them when it iterates: in its own words, then."""
    workers, prefetch = loader.num_workers, loader.prefetch_factor
    whole = isinstance(workers, Integral) and (workers == 0 or isinstance(prefetch, Integral))
    return not whole or (workers != 0 and prefetch == 0)
