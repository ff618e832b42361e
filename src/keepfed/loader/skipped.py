"""What became of samples that were left out: counted, said, and limited (`on_error="skip"`, `max_skipped`).

The training process counts, when the turn of their batch comes: so the numbers do not depend on how far workers are ahead,
a sample that a dead worker skipped and its replacement skips again counts once, and the run ends at the same batch each
time. The log has the first ten, then the hundredth, the thousandth, …: a whole broken folder must not fill a disk.

A batch of which nothing is left cannot be delivered. One process trains on without it. Where several ranks train together,
that rank would make one step less than the others, who would wait for it in their next collective operation, for ever: an
error there.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch

from keepfed.errors import EmptyBatch, SkippedTooMany
from keepfed.host.ranks import read_ranks, whole_number
from keepfed.loader import blame
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.broken import Skip
    from keepfed.loader.stats import Tally

logger = logging.getLogger("keepfed")
LOGGED_EACH = 10
"""So many skipped samples of a loader are logged one by one."""
WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""What torchrun, Open MPI, MPICH's Hydra and srun(1) tell their children about the size of the whole job."""
SHOWN_INDICES = 20
"""Indices in an error's text; `stats().skipped_indices` has more."""


class Skipped:
    """What one iterator leaves out; the counts are its loader's."""

    def __init__(self, dataset: object, tally: Tally, limit: int | None, *, stream: bool, full_batches: bool) -> None:
        """More than `limit` over the loader's life are an error."""
        self._dataset = dataset
        self._tally = tally
        self._limit = limit
        self._stream = stream
        self._full_batches = full_batches

    def account_for(self, number: int, skips: tuple[Skip, ...], *, empty: bool) -> None:
        """Count and log what was left out of the `number`-th batch; `empty` when nothing is left of it.

        Raises SkippedTooMany past the limit, and EmptyBatch for an empty batch that other ranks wait for. May be repeated
        with the same tuple: then it raises again and counts nothing.
        """
        self._count(number, skips, empty=empty)
        self._refuse(number, skips, empty=empty)

    def _count(self, number: int, skips: tuple[Skip, ...], *, empty: bool) -> None:
        before = self._tally.skips.count
        if not self._tally.skip(skips):
            return
        for count, skip in enumerate(skips, before + 1):
            if count <= LOGGED_EACH or _is_power_of_ten(count):
                logger.warning(self._line(number, skip, count, empty=empty))

    def _refuse(self, number: int, skips: tuple[Skip, ...], *, empty: bool) -> None:
        count, limit = self._tally.skips.count, self._limit
        last = skips[-1]
        if limit is not None and count > limit:
            indices = list(self._tally.skips.last[-SHOWN_INDICES:])
            facts = {"count": count, "limit": limit, "dataset": blame.name_of(self._dataset), "error": last.error}
            text = say("loader.skipped_too_many", indices=blame.shown(indices), **facts)
            raise SkippedTooMany(text, next_step=say("loader.skipped_too_many_next"))
        if empty and several_ranks():
            indices = [skip.index for skip in skips]
            place = blame.place(self._dataset, number, None if self._stream else indices)
            text = say("loader.empty_batch", place=place, error=last.error)
            raise EmptyBatch(text, next_step=say("loader.empty_batch_next"))

    def _line(self, number: int, skip: Skip, count: int, *, empty: bool) -> str:
        key = "loader.skipped_in_stream" if self._stream else "loader.skipped"
        facts = {"index": skip.index, "dataset": blame.name_of(self._dataset), "number": number, "error": skip.error}
        parts = [say(key, count=count, **facts)]
        if empty and not several_ranks():
            parts.append(say("loader.skipped_whole"))
        elif not empty and self._full_batches:
            parts.append(say("loader.skipped_filled"))
        if count == LOGGED_EACH:
            parts.append(say("loader.skipped_quiet"))
        return " ".join(parts)


def several_ranks() -> bool:
    """Whether other processes train in step with this one, as far as torch.distributed or a launcher's environment tells."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_world_size() > 1
    sizes = (whole_number(os.environ.get(variable, "")) or 1 for variable in WORLD_SIZES)
    return max(sizes) > 1 or read_ranks(os.environ).count > 1


def _is_power_of_ten(count: int) -> bool:
    return str(count).rstrip("0") == "1"
