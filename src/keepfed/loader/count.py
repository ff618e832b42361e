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

from keepfed.errors import UsageError, WrongType
from keepfed.host.facts import read_host
from keepfed.host.gpu import skip_gpus
from keepfed.text import say


class WorkerCount(int):
    """A number of workers, equal to the int everywhere, with what else the program asked of its keepfed.DataLoader."""

    auto: bool
    """Whether keepfed may change it; the number is then the first guess."""
    device: str
    """The GPU on which batches are delivered; empty for the CPU."""

    def __new__(cls, count: int, *, auto: bool = False, device: str = "") -> Self:
        """`count` as an int, with these requests."""
        self = super().__new__(cls, count)
        self.auto, self.device = auto, device
        return self

    @classmethod
    def first_guess(cls, *, device: str = "") -> Self:
        """One worker per usable core, until something has been measured."""
        return cls(read_host(gpus=skip_gpus).cores.whole or 1, auto=True, device=device)

    def __reduce__(self) -> tuple[Any, ...]:
        """With its requests; where it is unpickled (a rank that was spawned with a loader), the seam has to be cut as well."""
        return _revived, (int(self), vars(self))


def count_of(asked: Any, dataset: object = None, device: Any = None) -> Any:
    """What a keepfed.DataLoader hands to torch for this `num_workers`; what torch will refuse is left as it is.

    "auto" is one worker for an iterable dataset: whether it gives every worker another share cannot be seen from outside,
    and if it does not, every further worker repeats all samples. Raises WrongType for a string other than "auto",
    and UsageError for a `device` that is no usable GPU.
    """
    gpu = "" if device is None else gpu_of(device)
    if isinstance(asked, WorkerCount):  # of another loader
        return WorkerCount(asked, auto=asked.auto, device=gpu or asked.device)
    if not isinstance(asked, str | Integral):
        return asked
    if not isinstance(asked, str):
        return WorkerCount(int(asked), device=gpu)
    if asked != "auto":
        raise WrongType(say("loader.bad_workers", value=asked), next_step=say("loader.bad_workers_next"))
    if isinstance(dataset, IterableDataset):
        return WorkerCount(1, auto=True, device=gpu)
    return WorkerCount.first_guess(device=gpu)


def gpu_of(device: Any) -> str:
    """The name of this GPU. Raises UsageError when it is none, or is not there."""
    try:
        named = torch.device(device)
    except (RuntimeError, TypeError):
        named = None
    if named is None or named.type != "cuda":
        raise UsageError(say("loader.bad_device", value=device), next_step=say("loader.bad_device_next"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (named.index or 0) >= count:
        found = torch.version.cuda or torch.version.hip
        facts = {"value": str(named), "count": count, "torch": torch.__version__, "built": found or "CPU"}
        raise UsageError(say("loader.no_device", **facts), next_step=say("loader.no_device_next"))
    return str(named)


def _revived(count: int, requests: dict[str, Any]) -> WorkerCount:
    from keepfed.loader.seam import cover_ours

    cover_ours()
    return WorkerCount(count, **requests)


# A checkpoint that holds `loader.num_workers` is loaded with weights_only=True as one that holds an int.
torch.serialization.add_safe_globals([_revived])
