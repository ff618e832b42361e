"""torch's iterator for `num_workers=0`, with a place in every error and no epoch that ends too early.

Everything is torch's own but what happens to an exception out of the dataset or the collate function: see `blame.py`. The
sampler's exceptions stay as they are, and its StopIteration is the end of the epoch.
"""

from __future__ import annotations

from typing import Any, NoReturn

from keepfed.loader import blame, torch_seam
from keepfed.loader.broken import NOTHING, Holes, wants_full_batches
from keepfed.loader.requests import requests_of
from keepfed.loader.skipped import Skipped
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
        self._requests = requests_of(loader)
        self._holes = Holes(full_batches=wants_full_batches(self))
        self._skipped = Skipped(
            self._dataset,
            tally,
            self._requests.max_skipped,
            stream=torch_seam.is_iterable_kind(self._dataset_kind),
            full_batches=wants_full_batches(self),
        )
        if self._requests.on_error == "skip":
            self._holes.guard(self._dataset_fetcher)

    def _next_index(self) -> Any:
        self._in_hand = None
        index = super()._next_index()
        self._in_hand = (index,)
        return index

    def _next_data(self) -> Any:
        while (batch := self._next_batch()) is NOTHING:
            pass
        return batch

    def _next_batch(self) -> Any:
        """The next batch; NOTHING when all its samples were left out."""
        try:
            batch = super()._next_data()
        except Exception as error:
            if self._in_hand is None:
                raise  # the sampler's own
            self._blame(error, self._in_hand[0])
        self._count_skipped(batch)
        if batch is None and self._in_hand is not None:
            blame.tell_of_nothing(self._tally, self._dataset, self._number(), self._in_hand[0])
        return batch

    def _count_skipped(self, batch: Any) -> None:
        """What is missing of this batch. Raises SkippedTooMany and EmptyBatch."""
        if skips := self._holes.take():
            number, empty = self._number(), batch is NOTHING
            self._failed += 1
            self._skipped.account_for(number, skips, empty=empty)
            self._failed -= not empty

    def _number(self) -> int:
        return int(self._num_yielded) + self._failed

    def _blame(self, error: Exception, index: Any) -> NoReturn:
        """Raise this error of the dataset's or the collate function's again, with its place."""
        try:
            if isinstance(error, StopIteration) and torch_seam.is_iterable_kind(self._dataset_kind):
                raise error
            self._count_skipped(None)
            self._failed += 1
            blame.raise_again(error, self._dataset, self._number() - 1, index)
        finally:
            del error
