"""Where a worker stands in its stream, in words that its replacement can go on from: `state_dict` and `load_state_dict`.

When the worker of a stream dies, its replacement would have to read the stream from the beginning of the epoch and throw
away what was delivered, which on the fifth hour of an epoch takes five hours. A dataset or an iterator that has
`state_dict()` and `load_state_dict()` can say where it is, in the protocol of torchdata's StatefulDataLoader: the state is
taken after a batch; on the way back first the dataset is loaded, then `iter()` is called, then the iterator is loaded.

    worker      batch, batch, batch ─▶ state ─▶ note (notes.py), beside the random states
    replacement                                 note ─▶ load ─▶ the few batches since then again ─▶ on

What a state must be to be trusted with samples that nobody else counts, else the stream is read from the beginning:

- it moves. An object may have a `state_dict` for something else (a module of weights in the dataset);
- it ends with the epoch. A dataset that was loaded begins its next epochs there, too, if it keeps what it was given
  (Hugging Face's does). An iterator is gone by then, and so is a worker that lasts for one epoch;
- it is exact. Hugging Face's says what it is not: examples in shuffle buffers are lost, and tables mapped in batches may lose
  one (https://huggingface.co/docs/datasets/stream#save-a-dataset-checkpoint-and-resume-iteration).

Nothing is noted after an exception or the end of the stream: a generator is finished then, and a new one would not be.
"""

from __future__ import annotations

import pickle
from typing import Any

from keepfed.loader.broken import Holes


class Place:
    """The place of one worker in its stream."""

    def __init__(self, holes: Holes, *, persistent: bool) -> None:
        """`holes` stand between the fetcher and the stream; `persistent` workers read the dataset once more in a later epoch."""
        self._holes = holes
        self._persistent = persistent
        self._fetcher: Any = None
        self._iterator: Any = None
        self._last = b""

    def begin(self, fetcher: Any) -> None:
        """The worker loop made this fetcher, for a new epoch."""
        self._fetcher, self._iterator = fetcher, fetcher.dataset_iter
        try:
            self._last = self._states()
        except Exception:  # whatever the program's state_dict raises, or the pickling of what it returned
            self._last = b""

    def state(self) -> bytes:
        """Where the stream stands; nothing when that cannot be told."""
        if not self._last:
            return b""
        try:
            states = self._states()
        except Exception:  # as above
            states = self._last
        if states == self._last:
            self._last = b""  # for this epoch: samples came, and it did not move
            return b""
        self._last = states
        return pickle.dumps((states, self._fetcher.ended, self._holes.read), 5)

    def go_to(self, state: bytes) -> None:
        """Go on from here. Raises what `load_state_dict` raises."""
        if self._fetcher is None:
            return  # the stream could not be begun: the worker loop says so at its first task
        self._last, self._fetcher.ended, read = pickle.loads(state)  # noqa: S301  # our own worker wrote it
        of_dataset, of_iterator = pickle.loads(self._last)  # noqa: S301  # as above
        if of_dataset is not None:
            self._fetcher.dataset.load_state_dict(of_dataset)
            self._iterator = iter(self._fetcher.dataset)
        if of_iterator is not None:
            self._iterator.load_state_dict(of_iterator)
        self._fetcher.dataset_iter = self._holes.stream(self._iterator, read)

    def _states(self) -> bytes:
        """States of dataset and iterator; nothing where they have none to be trusted."""
        dataset, of_dataset = self._fetcher.dataset, None
        of_iterator = self._iterator.state_dict() if _has_state(self._iterator) else None
        if _has_state(dataset):
            if self._persistent or is_inexact(dataset):
                return b""
            of_dataset = dataset.state_dict() if self._iterator is not dataset else None
        if of_dataset is None and of_iterator is None:
            return b""
        return pickle.dumps((of_dataset, of_iterator), 5)


def is_inexact(dataset: Any) -> bool:
    """Whether this is a dataset of Hugging Face's that loses examples when it is resumed, by its own documentation."""
    if not type(dataset).__module__.startswith("datasets."):
        return False
    formatting = getattr(dataset, "_formatting", None)
    if formatting is not None and getattr(formatting, "is_table", False):
        return True
    left, seen = [getattr(dataset, "_ex_iterable", None)], 0
    while left and seen < _MOST_PARTS:
        part = left.pop()
        seen += 1
        if "Shuffled" in type(part).__name__ and hasattr(part, "buffer_size"):
            return True
        left += [inner for name in ("ex_iterable", "ex_iterables") for inner in _several(getattr(part, name, None))]
    return bool(left)


_MOST_PARTS = 1000


def _several(found: Any) -> list[Any]:
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [found]


def _has_state(thing: Any) -> bool:
    """torchdata's Stateful: a protocol, not a base class."""
    return hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")
