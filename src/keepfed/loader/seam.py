"""Where torch's DataLoader is cut open: one method of one class, once per process.

Only `DataLoader._get_iterator` is replaced, and only on the base class: a subclass that has its own keeps it (its state
lives in its own iterators). What a keepfed.DataLoader was asked for travels in its `num_workers`, an int that survives every
framework that builds a new loader from the attributes of the old one (`count.py`); so the replaced method recognises the
request on loaders that are no longer ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from keepfed.feed import RUN_VARIABLE
from keepfed.loader import elsewhere, torch_seam
from keepfed.loader.count import WorkerCount
from keepfed.loader.fixed import fixed_iterator
from keepfed.loader.fleet import Fleet
from keepfed.loader.gpu_iter import where_asked
from keepfed.loader.requests import requests_of
from keepfed.loader.session import Session
from keepfed.loader.switches import disabled

_fleet: list[Fleet] = []
_choice: list[Callable[[Any], Any]] = []


def fleet() -> Fleet | None:
    """The fleet that steers every loader of this process, if there is one."""
    return _fleet[0] if _choice and _fleet and _choice[-1] == _fleet[0].iterator else None


def iterator_of(loader: Any) -> Any:
    """What `iter()` of a keepfed.DataLoader returns."""
    _before_iter()
    return where_asked(loader, _choice[-1](loader) if _choice else _as_asked(loader))


def cover_everything(fleet: Fleet) -> None:
    """From now on this fleet steers every loader of the process."""
    _close_fleet()
    _fleet.append(fleet)
    _install(fleet.iterator)


def cover_ours() -> None:
    """From now on loaders whose count was made by a keepfed.DataLoader are ours, whoever built them."""
    if not _choice:
        _replace()


def install_fixed() -> None:
    """From now on every loader of the process uses our transport, with the worker count that it asks for ("auto" too).

    Below `keepfed run` or `keepfed tune` nothing changes, nor with `install_auto`: the run decides there.
    """
    if fleet() is None:
        _install(_as_asked)


def install_auto() -> None:
    """From now on every loader of the process is steered."""
    if fleet() is None:
        _install(_auto)


def uninstall() -> None:
    """Back to torch's own iterators."""
    _choice.clear()
    _close_fleet()
    setattr(DataLoader, "_get_iterator", torch_seam.original_get_iterator)  # noqa: B010  # private to torch
    elsewhere.stop()


def _close_fleet() -> None:
    while _fleet:
        _fleet.pop().close()


def _install(choice: Callable[[Any], Any]) -> None:
    _choice[:] = [choice]
    _replace()


def _replace() -> None:
    setattr(DataLoader, "_get_iterator", _get_iterator)  # noqa: B010  # private to torch, and the seam
    elsewhere.watch(_covered, _reported)


def _covered(loader: Any) -> bool:
    """Whether this loader would be ours, had it come to the seam."""
    asked = loader.num_workers
    steered = bool(_choice) and _choice[-1] != _as_asked
    return not disabled() and (isinstance(asked, WorkerCount) or steered or (bool(_choice) and asked > 0))


def _reported(loader: Any, reason: str) -> bool:
    """Whether a launcher was told that this loader is not ours."""
    steering = fleet()
    return steering is not None and steering.left_out(loader, reason)


def _before_iter() -> None:
    """Join the run that the program was started for, if any: `install()` came before the hook and took its place."""
    if os.environ.get(RUN_VARIABLE) and not os.environ.get("KEEPFED_WORKER"):
        from keepfed.loader.armed import join

        join()


def _get_iterator(self: Any) -> Any:
    if _choice or isinstance(self.num_workers, WorkerCount):
        return iterator_of(self)
    _before_iter()
    return _choice[-1](self) if _choice else torch_seam.original_get_iterator(self)


def _as_asked(loader: Any) -> Any:
    return _auto(loader) if requests_of(loader).auto else fixed_iterator(loader)


def _auto(loader: Any) -> Any:
    if _fleet and _fleet[0].foreign:
        _close_fleet()
    if not _fleet:
        _fleet.append(Fleet(Session(None)))
    return _fleet[0].iterator(loader)
