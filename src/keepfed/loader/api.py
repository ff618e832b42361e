"""The doors: `keepfed.DataLoader`, and `install()` for programs that keep torch's."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any, Literal

from torch.utils.data import DataLoader as TorchDataLoader
from typing_extensions import TypeVar  # torch brings it along

from keepfed._site.hook import construction_site
from keepfed.errors import UsageError
from keepfed.loader import seam
from keepfed.loader.count import count_of
from keepfed.loader.fixed import tally_of
from keepfed.loader.journal import Why, without_journal
from keepfed.loader.requests import KEYWORDS
from keepfed.loader.stats import LoaderStats
from keepfed.text import say

_POSITION_OF_NUM_WORKERS = 5
_T_co = TypeVar("_T_co", covariant=True, default=Any)


def with_ours(torchs: inspect.Signature) -> inspect.Signature:
    """torch's signature and the keywords that only ours has."""
    ours = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any) for name in KEYWORDS]
    return torchs.replace(parameters=[*torchs.parameters.values(), *ours])


class DataLoader(TorchDataLoader[_T_co]):
    """torch's DataLoader, with batches in reused shared memory.

    Every argument and behaviour is torch's, and with an integer `num_workers` so are the batches, bit for bit.
    `num_workers="auto"` measures the training loop and changes the number of workers while it runs, down to none where
    samples cost less than handing them over: then, from one epoch to the next, the training process makes the same batches
    itself. An iterable dataset gets one worker, since any other number may repeat its samples. Any other string raises UsageError.

    `device="cuda"` (or "cuda:1", or a torch.device) delivers batches on that GPU, copied there while the step before is
    computed, ready for use on the stream that is current at `next()`. Tensors in dicts, lists and tuples are copied ahead,
    other objects with a `.to()` at delivery; the rest stays as it is. Raises UsageError where there is no such GPU.

    `stall_timeout=` (seconds) and `on_stall=` ("replace", "raise" or "warn"): what is done about a worker that is stuck, and
    when. Unless told otherwise, one that provably cannot go on is replaced, and one that is slow beyond anything so far is
    named in the log with its stack, and replaced much later.

    `on_error="skip"`: a sample whose making raises is left out of its batch and counted; `max_skipped=` ends the run at
    more than so many. `memory_limit=` (bytes): what workers and batches of this loader may take together.

    These are not among torch's arguments; they are heard on loaders that frameworks build from this one, too. Raises
    UsageError for a value that cannot be used.

    What keepfed cannot handle yet runs on torch's own iterator; one log line and `stats().fallback` say why.
    """

    __signature__ = with_ours(inspect.signature(TorchDataLoader))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        at, dataset = _POSITION_OF_NUM_WORKERS, args[0] if args else kwargs.get("dataset")
        ours = {name: kwargs.pop(name) for name in KEYWORDS if name in kwargs}
        if len(args) > at:
            args = (*args[:at], count_of(args[at], dataset, ours), *args[at + 1 :])
        if len(args) <= at or "num_workers" in kwargs:
            kwargs["num_workers"] = count_of(kwargs.get("num_workers", 0), dataset, ours)
        seam.cover_ours()
        super().__init__(*args, **kwargs)
        if not hasattr(self, "_keepfed_site"):
            site = construction_site(self, sys._getframe(1), os.getcwd())
            object.__setattr__(self, "_keepfed_site", site)

    def _get_iterator(self) -> Any:
        return seam.iterator_of(self)

    def stats(self) -> LoaderStats:
        """What this loader has done so far."""
        return tally_of(self).snapshot()

    def why(self) -> Why:
        """Why it has the workers that it has: the last moves with their reasons. `print(loader.why())` shows them."""
        return why(self)


def install(num_workers: Literal["auto"] | None = None) -> None:
    """Let every torch DataLoader of this process use keepfed's transport.

    With `num_workers="auto"` their worker counts are chosen and changed by measurement; without it each keeps the count
    that it asks for, and torch's batches. Subclasses with a `_get_iterator` of their own (StatefulDataLoader) and
    libraries with loaders of their own (fastai) are not reached. Raises UsageError for any other value.
    """
    if num_workers is None:
        seam.install_fixed()
    elif num_workers == "auto":
        seam.install_auto()
    else:
        raise UsageError(say("loader.bad_install", value=num_workers), next_step=say("loader.bad_install_next"))


def stats(loader: TorchDataLoader[Any]) -> LoaderStats:
    """What this loader has done so far, whoever built it.

    Also for a framework's copy of a keepfed.DataLoader, and for any loader after `install()`. `fallback` says why torch runs
    it, where that is so.
    """
    return tally_of(loader).snapshot()


def why(loader: TorchDataLoader[Any]) -> Why:
    """Why this loader has the workers that it has, whoever built it: the last moves of keepfed with their reasons."""
    tally = tally_of(loader)
    if tally.journal is None or tally.fallback:
        return without_journal(loader, tally.plan, workers=loader.num_workers, fallback=tally.fallback)
    return tally.journal.read(tally.plan)


def uninstall() -> None:
    """Undo `install()`."""
    seam.uninstall()
