"""A DataLoader with the two methods that the hook swaps, and torch's guard around attributes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence


class DataLoader:
    """Yields the items of its dataset."""

    __initialized = False

    def __init__(self, dataset: Sequence[int], batch_size: int = 1, *, num_workers: int = 0) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.__initialized = True

    def __setattr__(self, name: str, value: object) -> None:
        if self.__initialized and name in {"dataset", "batch_size"}:
            raise ValueError(f"{name} attribute should not be set after DataLoader is initialized")
        super().__setattr__(name, value)

    def _get_iterator(self) -> Iterator[int]:
        """torch's own."""
        return iter(self.dataset)

    def __iter__(self) -> Iterator[int]:
        return self._get_iterator()


COMPLETE_TORCH = hasattr(sys.modules["torch"], "HALF_MADE_WHEN_THE_LOADER_WAS_IMPORTED")
