"""The worker count of a keepfed.DataLoader: an int that remembers what it was asked for.

Frameworks build loaders anew from the attributes of the old one. Accelerate (and with it the Trainer of transformers) makes
one of torch's own class, and every keyword that torch does not know is gone; Lightning calls the old class again, with the
*attribute* `num_workers`, which is a number by then even where the program had written "auto". All of them copy the object
`loader.num_workers`. So the request travels in it, and the seam recognises it on loaders that are no longer ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset

from keepfed.errors import UsageError, WrongType
from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
from keepfed.loader.requests import NOTHING, Requests, asked
from keepfed.text import say

LEAST_WORKER_BYTES = 16 << 20
"""What a worker takes for itself before it has made anything: 13 MB were measured after the first batches of numbers."""


class WorkerCount(int):
    """A number of workers, equal to the int everywhere, with what else the program asked of its keepfed.DataLoader."""

    requests: Requests
    """What was asked."""

    def __new__(cls, count: int, requests: Requests = NOTHING) -> Self:
        """`count` as an int, with these requests."""
        self = super().__new__(cls, count)
        self.requests = requests
        return self

    @classmethod
    def first_guess(cls, requests: Requests) -> Self:
        """One worker per usable core, until something has been measured."""
        return cls(read_host(gpus=skip_gpus).cores.whole or 1, requests)

    def __reduce__(self) -> tuple[Any, ...]:
        """With its requests; where it is unpickled (a rank that was spawned with a loader), the seam has to be cut as well."""
        return _revived, (int(self), dataclasses.asdict(self.requests))


def count_of(num_workers: Any, dataset: object = None, keywords: Mapping[str, Any] | None = None) -> Any:
    """What a keepfed.DataLoader hands to torch for this `num_workers`; what torch will refuse is left as it is.

    "auto" is one worker for an iterable dataset: whether it gives every worker another share cannot be seen from outside,
    and if it does not, every further worker repeats all samples. Raises WrongType for a string other than "auto",
    and UsageError as `asked` does for the other keywords, and for a memory limit that so many workers cannot keep.
    """
    before = num_workers.requests if isinstance(num_workers, WorkerCount) else NOTHING  # of another loader
    requests = asked(keywords or {}, before)
    if not isinstance(num_workers, str | Integral):
        return num_workers
    if not isinstance(num_workers, str):
        _require_room(requests, int(num_workers))
        return WorkerCount(int(num_workers), requests)
    if num_workers != "auto":
        raise WrongType(say("loader.bad_workers", value=num_workers), next_step=say("loader.bad_workers_next"))
    _require_room(requests, 1)
    requests = dataclasses.replace(requests, auto=True)
    return WorkerCount(1, requests) if isinstance(dataset, IterableDataset) else WorkerCount.first_guess(requests)


def _require_room(requests: Requests, workers: int) -> None:
    """A limit below what workers take before they have made anything cannot be kept, whatever is given up later."""
    limit, floor = requests.memory_limit_bytes, workers * LEAST_WORKER_BYTES
    if limit is not None and limit < floor:
        facts = {"limit": limit, "workers": workers, "floor": floor, "each": LEAST_WORKER_BYTES >> 20}
        raise UsageError(say("loader.memory_too_little", **facts), next_step=say("loader.memory_too_little_next"))


def _revived(count: int, requests: dict[str, Any]) -> WorkerCount:
    from keepfed.loader.seam import cover_ours

    cover_ours()
    return WorkerCount(count, Requests(**requests))


# A checkpoint that holds `loader.num_workers` is loaded with weights_only=True as one that holds an int.
torch.serialization.add_safe_globals([_revived])
