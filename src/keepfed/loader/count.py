"""The worker count of a keepfed.DataLoader: an int that remembers what it was asked for.

Frameworks build loaders anew from the attributes of the old one. Accelerate (and with it the Trainer of transformers) makes
one of torch's own class, and every keyword that torch does not know is gone; Lightning calls the old class again, with the
*attribute* `num_workers`, which is a number by then even where the program had written "auto". All of them copy the object
`loader.num_workers`. So the request travels in it, and the seam recognises it on loaders that are no longer ours.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset

from keepfed.errors import WrongType
from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
from keepfed.text import say


class WorkerCount(int):
    """A number of workers, equal to the int everywhere, with what else the program asked of its keepfed.DataLoader."""

    auto: bool
    """Whether keepfed may change it; the number is then the first guess."""

    def __new__(cls, count: int, *, auto: bool = False) -> Self:
        """`count` as an int, with these requests."""
        self = super().__new__(cls, count)
        self.auto = auto
        return self

    @classmethod
    def first_guess(cls) -> Self:
        """One worker per usable core, until something has been measured."""
        return cls(read_host(gpus=skip_gpus).cores.whole or 1, auto=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """With its requests; where it is unpickled (a rank that was spawned with a loader), the seam has to be cut as well."""
        return _revived, (int(self), vars(self))


def count_of(asked: Any, dataset: object = None) -> Any:
    """What a keepfed.DataLoader hands to torch for this `num_workers`; what torch will refuse is left as it is.

    "auto" is one worker for an iterable dataset: whether it gives every worker another share cannot be seen from outside,
    and if it does not, every further worker repeats all samples. Raises WrongType for a string other than "auto".
    """
    if isinstance(asked, WorkerCount) or not isinstance(asked, str | Integral):
        return asked
    if not isinstance(asked, str):
        return WorkerCount(int(asked))
    if asked != "auto":
        raise WrongType(say("loader.bad_workers", value=asked), next_step=say("loader.bad_workers_next"))
    return WorkerCount(1, auto=True) if isinstance(dataset, IterableDataset) else WorkerCount.first_guess()


def _revived(count: int, requests: dict[str, Any]) -> WorkerCount:
    from keepfed.loader.seam import cover_ours

    cover_ours()
    return WorkerCount(count, **requests)


# A checkpoint that holds `loader.num_workers` is loaded with weights_only=True as one that holds an int.
torch.serialization.add_safe_globals([_revived])
