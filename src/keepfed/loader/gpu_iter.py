"""`device="cuda"` for loaders that no crew of ours runs: `num_workers=0`, and what is left to torch's own iterator.

Their batches are made while `next()` waits, or come out of torch's queue, and reading one ahead would move the program's
random states: so each is copied when it is asked for, on the side stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepfed.loader.epoch import EpochIter
from keepfed.loader.mover import Gpu, Mover
from keepfed.loader.requests import requests_of


class GpuIter:
    """Another iterator's batches, on the GPU. Everything else is that iterator's."""

    def __init__(self, iterator: Any, device: str) -> None:
        self._iterator = iterator
        self._mover = Mover(Gpu(device))

    def __iter__(self) -> Iterator[Any]:
        """An iterator is its own."""
        return self

    def __next__(self) -> Any:
        """The next batch, for use on the current stream. Raises LoaderError inside a graph capture."""
        self._mover.require_no_capture()
        return self._mover.moved(next(self._iterator))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._iterator)

    def __getattr__(self, name: str) -> Any:
        """What frameworks look for on torch's iterators, and `_reset` of persistent workers."""
        if name == "_iterator":  # a copy of this object that has nothing yet
            raise AttributeError(name)
        return getattr(self._iterator, name)


def where_asked(loader: Any, iterator: Any) -> Any:
    """This iterator of this loader, with its batches on the GPU if a GPU was asked for."""
    device = requests_of(loader).device
    return GpuIter(iterator, device) if device and not isinstance(iterator, EpochIter) else iterator
