"""torch's iterator for `num_workers=0`, with a place in every error and no epoch that ends too early.

Everything is torch's own but what happens to an exception out of the dataset or the collate function: see `blame.py`. The
sampler's exceptions stay as they are, and its StopIteration is the end of the epoch.
"""

from __future__ import annotations

from typing import Any, NoReturn

from keepfed.loader import blame, torch_seam
from keepfed.loader.stats import Tally


class SingleIter(torch_seam.SingleProcessDataLoaderIter):  # type: ignore[misc]  # private base, typed as Any
    """What `iter(loader)` returns for a loader without workers."""

    def __init__(self, loader: Any, tally: Tally) -> None:
        """Begin an epoch as torch does."""
        super().__init__(loader)
        self._profile_name = torch_seam.profile_name(torch_seam.SingleProcessDataLoaderIter)
        self._tally = tally
        self._failed = 0  # batches of this epoch that came out as exceptions
        self._in_hand: tuple[Any] | None = None

    def _next_index(self) -> Any:
        self._in_hand = None
        index = super()._next_index()
        self._in_hand = (index,)
        return index

    def _next_data(self) -> Any:
        try:
            batch = super()._next_data()
        except Exception as error:
            if self._in_hand is None:
                raise  # the sampler's own
            self._blame(error, self._in_hand[0])
        if batch is None and self._in_hand is not None:
            blame.tell_of_nothing(self._tally, self._dataset, self._number(), self._in_hand[0])
        return batch

    def _number(self) -> int:
        return int(self._num_yielded) + self._failed

    def _blame(self, error: Exception, index: Any) -> NoReturn:
        """Raise this error of the dataset's or the collate function's again, with its place."""
        try:
            if isinstance(error, StopIteration) and torch_seam.is_iterable_kind(self._dataset_kind):
                raise error
            self._failed += 1
            blame.raise_again(error, self._dataset, self._number() - 1, index)
        finally:
            del error
