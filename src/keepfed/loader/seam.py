"""Where torch's DataLoader is cut open: one method of one class, once per process.

Only `DataLoader._get_iterator` is replaced, and only on the base class: a subclass that has its own keeps it (its state
lives in its own iterators). `num_workers="auto"` travels as `AutoWorkers`, an int that torch accepts and that survives
every framework that builds a new loader from the attributes of the old one; so the replaced method recognises the request
on loaders that are no longer ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
from keepfed.loader import torch_seam
from keepfed.loader.fixed import fixed_iterator
from keepfed.loader.fleet import Fleet
from keepfed.loader.session import Session


class AutoWorkers(int):
    """A worker count that keepfed may change; the number is the first guess."""

    @classmethod
    def first_guess(cls) -> AutoWorkers:
        """One worker per usable core, until something has been measured."""
        return cls(read_host(gpus=skip_gpus).cores.whole or 1)


_fleet: list[Fleet] = []
_choice: list[Callable[[Any], Any]] = []


def fleet() -> Fleet | None:
    """The fleet that steers every loader of this process, if there is one."""
    return _fleet[0] if _choice and _fleet and _choice[-1] == _fleet[0].iterator else None


def iterator_of(loader: Any) -> Any:
    """What `iter()` of a keepfed.DataLoader returns."""
    if _choice:
        return _choice[-1](loader)
    return _auto(loader) if isinstance(loader.num_workers, AutoWorkers) else fixed_iterator(loader)


def cover_everything(fleet: Fleet) -> None:
    """From now on this fleet steers every loader of the process."""
    _fleet[:] = [fleet]
    _install(fleet.iterator)


def cover_auto() -> None:
    """From now on loaders whose count is an AutoWorkers are steered, whoever built them."""
    if not _choice:
        _replace()


def install_fixed() -> None:
    """From now on every loader of the process uses our transport, with the worker count that it asks for."""
    _install(fixed_iterator)


def install_auto() -> None:
    """From now on every loader of the process is steered."""
    _install(_auto)


def uninstall() -> None:
    """Back to torch's own iterators."""
    _choice.clear()
    setattr(DataLoader, "_get_iterator", torch_seam.original_get_iterator)  # noqa: B010  # private to torch


def _install(choice: Callable[[Any], Any]) -> None:
    _choice[:] = [choice]
    _replace()


def _replace() -> None:
    setattr(DataLoader, "_get_iterator", _get_iterator)  # noqa: B010  # private to torch, and the seam


def _get_iterator(self: Any) -> Any:
    if _choice:
        return _choice[-1](self)
    return _auto(self) if isinstance(self.num_workers, AutoWorkers) else torch_seam.original_get_iterator(self)


def _auto(loader: Any) -> Any:
    if not _fleet:
        _fleet.append(Fleet(Session(None)))
    return _fleet[0].iterator(loader)
