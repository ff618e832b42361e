"""Where in the data an error happened: dataset, batch, indices.

torch's exceptions from workers hold the worker's traceback, which says what line failed and not on which sample; with
shuffling nobody can tell afterwards. So every exception that making a batch raises gets a note (PEP 678) with that: type and
message stay as they are, and whoever prints the traceback sees the place below it.

Two traps of torch's are closed here. A `StopIteration` that escapes from `__getitem__`, a transform or a collate function
leaves `next()` as the word for "the epoch is over", and the training silently goes on without the rest of the data; PEP 479
made the same accident in generators a RuntimeError, and so does this. And a collate function without a `return` delivers
None, batch after batch: that is delivered as in torch, since programs skip broken batches that way, and said once.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, NoReturn

from torch.utils.data import Subset

from keepfed.errors import StoppedEarly
from keepfed.loader import torch_seam
from keepfed.loader.stats import Tally
from keepfed.text import say

logger = logging.getLogger("keepfed")
_LONGEST_INDEX = 300
"""Characters of a batch's indices in a message: some forty of them."""


def place(dataset: object, number: int, index: Any) -> str:
    """In words: the dataset's class, the number of the batch in the epoch (from 0) and the indices of its samples."""
    name = name_of(dataset)
    if index is None or (
        type(index) is list and index and index[0] is None
    ):  # the dummy indices of an iterable dataset
        return say("loader.place_in_stream", dataset=name, number=number)
    return say("loader.place", dataset=name, number=number, index=shown(index))


def name_of(dataset: object) -> str:
    """Class of the dataset; of a Subset also what it is a subset of, since the indices are the subset's own."""
    name = type(dataset).__name__
    return f"{name}({name_of(dataset.dataset)})" if isinstance(dataset, Subset) else name


def shown(index: Any) -> str:
    """An index as text, cut where it becomes too long to read."""
    try:
        text = str(index.tolist() if hasattr(index, "tolist") else index)
    except Exception:  # an object of the program's that does not even have a repr
        text = f"<{type(index).__name__}>"
    return text if len(text) <= _LONGEST_INDEX else f"{text[:_LONGEST_INDEX]}…"


def annotate(error: BaseException, dataset: object, number: int, index: Any) -> None:
    """Add the place to this error, unless its message has it."""
    where = place(dataset, number, index)
    with contextlib.suppress(Exception):  # the program's own exception class may fail in its __str__
        if where not in str(error):
            error.add_note(f"keepfed: {where}")


def stopped_early(error: StopIteration, dataset: object, number: int, index: Any) -> StoppedEarly:
    """What to raise for a StopIteration that must not end the epoch."""
    said = say("loader.stopped_early", place=place(dataset, number, index))
    new = StoppedEarly(said, next_step=say("loader.stopped_early_next"))
    new.__cause__ = error
    return new


def raise_again(error: Exception, dataset: object, number: int, index: Any) -> NoReturn:
    """Raise this error, which the making of a batch in this process raised, with its place."""
    if isinstance(error, StopIteration):
        error = stopped_early(error, dataset, number, index)
    else:
        annotate(error, dataset, number, index)
    try:
        raise error
    finally:
        del error


def raise_from_worker(wrapped: Any, dataset: object, number: int, index: Any) -> NoReturn:
    """Raise what a worker raised, as torch would, with its place.

    Without the frames of torch's `reraise`: they hold the exception that holds them, and so the iterator with its workers
    until the next garbage collection.
    """
    try:
        torch_seam.reraise_if_exception(wrapped)
    except Exception as caught:
        error = caught.with_traceback(None)
    try:
        raise_again(error, dataset, number, index)
    finally:
        del error


def tell_of_nothing(tally: Tally, dataset: object, number: int, index: Any) -> None:
    """Log that a batch is None, the first time for each loader."""
    if not tally.told_of_nothing:
        tally.told_of_nothing = True
        logger.warning(say("loader.nothing", place=place(dataset, number, index)))
