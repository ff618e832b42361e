"""The doors: `keepfed.DataLoader`, and `install()` for programs that keep torch's."""

from __future__ import annotations

import os
import weakref
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

from keepfed.loader import torch_seam
from keepfed.loader.epoch import EpochIter, Terms
from keepfed.loader.fallback import tell_once, why_torch
from keepfed.loader.stats import LoaderStats, Tally
from keepfed.plan import Plan

_tallies: weakref.WeakKeyDictionary[Any, Tally] = weakref.WeakKeyDictionary()


def tally_of(loader: Any) -> Tally:
    """The running counts of this loader."""
    tally = _tallies.get(loader)
    if tally is None:
        tally = _tallies[loader] = Tally()
    return tally


def disabled() -> bool:
    """Whether the user switched keepfed off (KEEPFED_DISABLE=1)."""
    return os.environ.get("KEEPFED_DISABLE", "") not in ("", "0")


def terms_with_switches(terms: Terms) -> Terms:
    """These terms, as KEEPFED_VERIFY and KEEPFED_TRANSPORT modify them."""
    import dataclasses

    return dataclasses.replace(
        terms,
        verify=os.environ.get("KEEPFED_VERIFY", "") not in ("", "0"),
        copy_all=os.environ.get("KEEPFED_TRANSPORT", "") == "copy",
    )


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
    return EpochIter(loader, terms_with_switches(Terms.fixed_count(Plan(loader.num_workers, loader.prefetch_factor))), tally)


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
