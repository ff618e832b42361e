"""Takes over the DataLoaders of a program that was started by `keepfed run` or `keepfed tune` and knows nothing of it.

`arm()` is called by the hook at the program's first `iter(loader)`. From then on every loader that keepfed can handle gets a
pilot of its own; what it cannot handle runs on torch's own iterator, and the run folder says why.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from torch.utils.data import DataLoader

from keepfed.events import LoaderSeen
from keepfed.feed import RunFolder
from keepfed.loader import torch_seam
from keepfed.loader.api import adopt_tally, fixed_iterator, tally_of
from keepfed.loader.fallback import why_torch
from keepfed.loader.identity import identify
from keepfed.loader.pilot import Pilot, iterator_with
from keepfed.loader.session import Session
from keepfed.loader.zero import ZeroIter
from keepfed.plan import LoaderId, Plan

_TORCH_PREFETCH = 2
_armed: list[Armed] = []


def arm() -> None:
    """Take over torch's DataLoader in this process, for the run that the environment names. A second call does nothing."""
    if _armed:
        return
    folder = RunFolder.from_environment()
    if folder is None or torch_seam.original_get_iterator is None:
        return
    _armed.append(Armed(Session(folder)))
    setattr(DataLoader, "_get_iterator", _get_iterator)  # noqa: B010  # a private method of torch, on purpose
    atexit.register(_armed[0].ended)


def _get_iterator(self: Any) -> Any:
    return _armed[0].iterator(self)


class Armed:
    """The loaders of this process, by identity."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pid = os.getpid()
        self._pilots: dict[LoaderId, Pilot] = {}
        self._told: set[LoaderId] = set()

    def iterator(self, loader: Any) -> Any:
        """What `iter(loader)` returns from now on."""
        if os.getpid() != self._pid:
            return torch_seam.original_get_iterator(loader)  # forked off by the program: not the process that trains
        asked = Plan(loader.num_workers, loader.prefetch_factor or _TORCH_PREFETCH)
        name = identify(loader)
        if reason := why_torch(loader):
            self._say_once(name, loader, asked, handled=False, reason=reason)
            tally_of(loader).fallback = reason
            return torch_seam.original_get_iterator(loader)
        if self._session.config.exact:
            self._say_once(name, loader, asked, handled=True, reason="")
            return fixed_iterator(loader)
        pilot = self._pilots.get(name)
        if pilot is None:
            pilot = self._pilots[name] = Pilot(name, loader.batch_size, asked, self._session)
        adopt_tally(loader, pilot.tally)
        pilot.epoch_started()
        return ZeroIter(loader, pilot) if loader.num_workers == 0 else iterator_with(pilot, loader)

    def _say_once(self, name: LoaderId, loader: Any, asked: Plan, *, handled: bool, reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            source = "exact" if handled else "program"
            self._session.emit(LoaderSeen(name, loader.batch_size, asked, asked, source, handled, reason))

    def ended(self) -> None:
        """The process ends: the last words of its loaders."""
        if os.getpid() == self._pid:
            for pilot in self._pilots.values():
                pilot.ended()
