"""Samples whose making raises leave a hole in their batch (`on_error="skip"`), where the batch is made.

torch's own fetcher runs; only what it reads from and what it collates with are stood in for:

    fetcher.fetch([4, 5, 6, 7])          stand-in                    the program's
        dataset[4] … dataset[7]   ──▶    _Samples, _Stream    ──▶    dataset[5] raises: noted, a hole in its place
        collate_fn([a, hole, c, d]) ─▶   Holes._collate       ──▶    collate_fn([a, c, d]), or of [a, c, c, d] if the
                                                                     program asked for full batches
                                                                     never called when nothing but holes is left

A hole counts as its sample does: no later batch has other samples because of it, and there are as many batches as without
it. Other ranks rely on that number. What the collate function raises is no broken sample, and is raised; nor are KeyboardInterrupt,
SystemExit and other exceptions that mean the process.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from typing import Any, Final, NamedTuple

from torch.utils.data import Dataset

from keepfed.loader import blame
from keepfed.text import say

logger = logging.getLogger("keepfed")
MOST_IN_A_ROW = 1000
"""A stream that raises so often without a sample in between is taken to be stuck at one place."""
_LONGEST_TEXT = 300


class Skip(NamedTuple):
    """A sample that was left out."""

    index: Any
    """Its index in the dataset, as a number or a text; of a stream, its place in what this worker read, from 0."""
    error: str
    """Type and text of the exception."""


class _Marker:
    """Compared by identity only."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


HOLE: Final = _Marker("HOLE")
"""In the place of a sample."""
NOTHING: Final = _Marker("NOTHING")
"""In the place of a batch that has no samples left."""


class Holes:
    """What was left out of the batch that is being made."""

    def __init__(self, *, full_batches: bool) -> None:
        """`full_batches`: a hole is filled with another sample of its batch, since the program asked for batches of one size."""
        self._full_batches = full_batches
        self._skipped: list[Skip] = []
        self._collate_fn: Any = None
        self._stream: _Stream | None = None

    @property
    def read(self) -> int:
        """How many samples were read from the stream, holes included; 0 where it is not guarded."""
        return self._stream.read if self._stream is not None else 0

    def guard(self, fetcher: Any) -> None:
        """From now on this fetcher of torch's leaves out what it cannot make."""
        if hasattr(fetcher, "dataset_iter"):
            self._stream = _Stream(fetcher.dataset_iter, self)
            fetcher.dataset_iter = self._stream
        else:
            fetcher.dataset = _Samples(fetcher.dataset, self)
        self._collate_fn = fetcher.collate_fn
        fetcher.collate_fn = self._collate

    def stream(self, iterator: Any, read: int) -> Any:
        """This iterator, of which `read` samples were read before, in the place of the one that is guarded, if one is."""
        if self._stream is None:
            return iterator
        self._stream = _Stream(iterator, self, read)
        return self._stream

    def add(self, index: Any, error: Exception) -> Any:
        """This sample could not be made: the hole in its place."""
        text = f"<{type(error).__name__}>"
        with contextlib.suppress(Exception):  # the program's own exception class may fail in its __str__
            text = f"{type(error).__name__}: {error}"
        self._skipped.append(Skip(_plain(index), text[:_LONGEST_TEXT]))
        return HOLE

    def take(self) -> tuple[Skip, ...]:
        """What was left out since the last call."""
        skipped = tuple(self._skipped)
        self._skipped.clear()
        return skipped

    def _collate(self, samples: Any) -> Any:
        if not self._skipped:
            return self._collate_fn(samples)
        if samples is HOLE:  # batch_size=None: the sample would have been the batch
            return NOTHING
        good = [sample for sample in samples if sample is not HOLE]
        if not good:
            return NOTHING
        return self._collate_fn(_filled(samples) if self._full_batches else good)


class _Samples:
    """Stands in a fetcher for a map-style dataset."""

    def __init__(self, dataset: Any, holes: Holes) -> None:
        self._dataset = dataset
        self._holes = holes

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._dataset[index]
        except Exception as error:
            return self._holes.add(index, error)

    @property
    def __getitems__(self) -> Any:
        """torch asks whether the dataset has it before every batch."""
        return self._all if getattr(self._dataset, "__getitems__", None) else None

    def _all(self, indices: Any) -> Any:
        """The whole batch in one call; when that raises, one by one, to find out which of them are broken."""
        each = indices if hasattr(indices, "__iter__") else [indices]
        try:
            return self._dataset.__getitems__(indices)
        except Exception as error:
            one_by_one = getattr(type(self._dataset), "__getitem__", None)
            if one_by_one is None or one_by_one is Dataset.__getitem__:
                return [self._holes.add(index, error) for index in each]
        return [self[index] for index in each]


class _Stream:
    """Stands in a fetcher for the iterator of an iterable dataset."""

    def __init__(self, iterator: Any, holes: Holes, read: int = 0) -> None:
        self._iterator = iterator
        self._holes = holes
        self.read = read
        self._in_a_row = 0

    def __next__(self) -> Any:
        try:
            sample = next(self._iterator)
        except StopIteration:
            if self._in_a_row:
                logger.warning(say("loader.ended_after_error", iterator=blame.name_of(self._iterator)))
            raise
        except Exception as error:
            self._in_a_row += 1
            if inspect.isgenerator(self._iterator):  # finished: its next answer would be the end of the epoch
                error.add_note(f"keepfed: {say('loader.broken_generator')}")
                raise
            if self._in_a_row > MOST_IN_A_ROW:
                error.add_note(f"keepfed: {say('loader.stuck_stream', count=self._in_a_row)}")
                raise
            sample = self._holes.add(self.read, error)
        else:
            self._in_a_row = 0
        self.read += 1
        return sample


def wants_full_batches(iterator: Any) -> bool:
    """Whether the program of this iterator of torch's asked for batches of one size, by `drop_last` on loader or sampler."""
    return bool(iterator._drop_last or getattr(iterator._index_sampler, "drop_last", False))


def _filled(samples: list[Any]) -> list[Any]:
    """Every hole with a copy of the next good sample, cyclically; there is one at least."""
    filled: list[Any] = []
    for place, sample in enumerate(samples):
        if sample is HOLE:
            after = next(other for other in [*samples[place:], *samples] if other is not HOLE)
            try:
                filled.append(copy.deepcopy(after))  # a collate function may take samples apart
            except Exception:  # locks, tensors inside of a graph
                filled.append(after)
        else:
            filled.append(sample)
    return filled


def _plain(index: Any) -> Any:
    """A number as a number, anything else as text: it travels in messages and stays in the statistics."""
    if isinstance(index, str):
        return index[:_LONGEST_TEXT]
    try:
        return index.__index__()
    except Exception:  # no number, or several
        return blame.shown(index)
