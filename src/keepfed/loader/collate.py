"""torch's `default_collate`, writing into the slot that the batch will travel in: the one copy that a batch needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch

from keepfed.heartbeat import Phase, Pulse
from keepfed.loader import torch_seam
from keepfed.loader.codec import INLINE_BYTES, BatchWriter, dense_stride, is_plain
from keepfed.loader.phases import Stopwatch


class SlotCollate:
    """Collates plain tensors straight into the slot: the one copy that a batch needs."""

    def __init__(self, out: BatchWriter, pulse: Pulse, watch: Stopwatch, *, always: bool) -> None:
        """`always`: also outside of `within`, for datasets whose items are whole batches."""
        self._out, self._pulse, self._watch = out, pulse, watch
        self._making_batch = always
        self._owner = os.getpid(), threading.get_ident()  # a child that the dataset forks must not write here

    def within(self, collate_fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The loader's own collate function, in which tensors go to the slot.

        A dataset that collates inside `__getitem__` makes parts of samples: those would fill the slot with bytes that
        never travel.
        """

        def collate(samples: Any) -> Any:
            self._making_batch = True
            self._pulse.phase(Phase.COLLATING)
            self._watch.fetched()
            try:
                return collate_fn(samples)
            finally:
                self._making_batch = False

        return collate

    def __call__(self, batch: Any, *, collate_fn_map: Any = None) -> torch.Tensor:
        """Stack tensors into one of the first one's dtype, as torch's own function does in a worker.

        What is not plain, or is on an accelerator, goes to that function.
        """
        first = batch[0]
        if not is_plain(first):
            other: torch.Tensor = torch_seam.collate_tensor(batch, collate_fn_map=collate_fn_map)
            return other
        shape = (len(batch), *first.shape)
        if len(batch) * first.nbytes <= INLINE_BYTES:
            return _small_stack(batch, first.dtype, shape)
        here = self._making_batch and self._owner == (os.getpid(), threading.get_ident())
        out = self._out.tensor(first.dtype, shape) if here else torch.empty(shape, dtype=first.dtype, device="cpu")
        return torch.stack(batch, 0, out=out)


def _small_stack(batch: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """torch.stack with and without `out` agree for tensors of one kind, and without is three times as fast.

    They differ for mixed dtypes (promoted, instead of cast), for gradients (kept, instead of refused) and for strides (those
    of the samples, instead of dense ones).
    """
    stacked = torch.stack(batch, 0)
    if stacked.dtype is dtype and is_plain(stacked) and stacked.stride() == dense_stride(shape):
        return stacked
    return torch.stack(batch, 0, out=torch.empty(shape, dtype=dtype, device="cpu"))
