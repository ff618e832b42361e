"""Where torch's DataLoader is cut open: one method of one class, once per process.

Only `DataLoader._get_iterator` is replaced, and only on the base class: a subclass that has its own keeps it (its state
lives in its own iterators). `num_workers="auto"` travels as `AutoWorkers`, an int that torch accepts and that survives
every framework that builds a new loader from the attributes of the old one; so the replaced method recognises the request
on loaders that are no longer ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from keepfed.feed import RUN_VARIABLE
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Also in a process that was spawned with a loader: there the seam has to be cut as well."""
        return _revived, (int(self),)


def _revived(count: int) -> AutoWorkers:
    cover_auto()
    return AutoWorkers(count)


_fleet: list[Fleet] = []
_choice: list[Callable[[Any], Any]] = []


def fleet() -> Fleet | None:
    """The fleet that steers every loader of this process, if there is one."""
    return _fleet[0] if _choice and _fleet and _choice[-1] == _fleet[0].iterator else None


def iterator_of(loader: Any) -> Any:
    """What `iter()` of a keepfed.DataLoader returns."""
    _before_iter()
    if _choice:
        return _choice[-1](loader)
    return _auto(loader) if isinstance(loader.num_workers, AutoWorkers) else fixed_iterator(loader)


def cover_everything(fleet: Fleet) -> None:
    """From now on this fleet steers every loader of the process."""
    _close_fleet()
    _fleet.append(fleet)
    _install(fleet.iterator)


def cover_auto() -> None:
    """From now on loaders whose count is an AutoWorkers are steered, whoever built them."""
    if not _choice:
        _replace()


def install_fixed() -> None:
    """From now on every loader of the process uses our transport, with the worker count that it asks for.

    Below `keepfed run` or `keepfed tune` nothing changes, nor with `install_auto`: the run decides there.
    """
    if fleet() is None:
        _install(fixed_iterator)


def install_auto() -> None:
    """From now on every loader of the process is steered."""
    if fleet() is None:
        _install(_auto)


def uninstall() -> None:
    """Back to torch's own iterators."""
    _choice.clear()
    _close_fleet()
    setattr(DataLoader, "_get_iterator", torch_seam.original_get_iterator)  # noqa: B010  # private to torch


def _close_fleet() -> None:
    while _fleet:
        _fleet.pop().close()


def _install(choice: Callable[[Any], Any]) -> None:
    _choice[:] = [choice]
    _replace()


def _replace() -> None:
    setattr(DataLoader, "_get_iterator", _get_iterator)  # noqa: B010  # private to torch, and the seam


def _before_iter() -> None:
    """Join the run that the program was started for, if any: `install()` came before the hook and took its place."""
    if os.environ.get(RUN_VARIABLE) and not os.environ.get("KEEPFED_WORKER"):
        from keepfed.loader.armed import join

        join()


def _get_iterator(self: Any) -> Any:
    _before_iter()
    if _choice:
        return _choice[-1](self)
    return _auto(self) if isinstance(self.num_workers, AutoWorkers) else torch_seam.original_get_iterator(self)


def _auto(loader: Any) -> Any:
    if _fleet and _fleet[0].foreign:
        _close_fleet()
    if not _fleet:
        _fleet.append(Fleet(Session(None)))
    return _fleet[0].iterator(loader)
