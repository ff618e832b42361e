"""The doors: `keepfed.DataLoader`, and `install()` for programs that keep torch's."""

from __future__ import annotations

import weakref
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

from keepfed.loader import torch_seam
from keepfed.loader.crew import Terms
from keepfed.loader.epoch import EpochIter
from keepfed.loader.fallback import tell_once, why_torch
from keepfed.loader.stats import LoaderStats, Tally
from keepfed.loader.switches import disabled, with_switches
from keepfed.plan import Plan

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


def fixed_iterator(loader: Any) -> Any:
    """An iterator with torch's contract: as many workers as the loader asks for, torch's batches bit for bit."""
    if loader.num_workers == 0 or disabled():
        return torch_seam.original_get_iterator(loader)
    tally = tally_of(loader)
    tally.fallback = why_torch(loader)
    if tally.fallback:
        tell_once(loader, tally.fallback)
        return torch_seam.original_get_iterator(loader)
    loader.check_worker_number_rationality()
    terms = Terms.fixed_count(Plan(loader.num_workers, loader.prefetch_factor))
    return EpochIter(loader, with_switches(terms), tally)


class DataLoader(TorchDataLoader[Any]):
    """torch's DataLoader, with batches in reused shared memory.

    Every argument and behaviour is torch's. What it cannot handle yet runs on torch's own iterator; one log line and
    `stats().fallback` say why.
    """

    def _get_iterator(self) -> Any:
        return fixed_iterator(self)

    def stats(self) -> LoaderStats:
        """What this loader has done so far."""
        return tally_of(self).snapshot()
