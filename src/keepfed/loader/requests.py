"""What a program asks of its keepfed.DataLoader beyond torch's arguments, and what is refused.

Everything is checked when the loader is built: a misspelt `on_error` must not show at the first broken file of the night.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch

from keepfed.errors import UsageError
from keepfed.text import say

OnStall = Literal["replace", "raise", "warn"]
OnError = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class Requests:
    """What one loader was asked for."""

    auto: bool = False
    """Whether keepfed may change the number of workers; the number is then the first guess."""
    device: str = ""
    """The GPU on which batches are delivered; empty for the CPU."""
    stall_timeout_s: float | None = None
    """A worker without progress for so long is stuck; None for a limit that follows what batches need."""
    on_stall: OnStall = "replace"
    """What is done about a stuck worker."""
    on_error: OnError = "raise"
    """What is done about a sample whose making raises."""
    max_skipped: int | None = None
    """With on_error="skip": more than so many skipped samples end the run; None for no limit."""
    memory_limit_bytes: int | None = None
    """What workers and batches of this loader may take; None for what the host or container has to spare."""


KEYWORDS = ("device", "stall_timeout", "on_stall", "on_error", "max_skipped", "memory_limit")
"""The keywords of keepfed.DataLoader that torch's does not have. None means: not said."""
NOTHING = Requests()


def requests_of(loader: Any) -> Requests:
    """What this loader was asked for, whoever built it: a framework copies the object `num_workers`, and it is in there."""
    requests: Requests = getattr(loader.num_workers, "requests", NOTHING)
    return requests


def asked(keywords: Mapping[str, Any], before: Requests = NOTHING) -> Requests:
    """`before`, with what these keywords of keepfed.DataLoader say. Raises UsageError for a value that cannot be used."""
    said = {name: value for name, value in keywords.items() if value is not None}
    changes: dict[str, Any] = {name: said[name] for name in ("on_stall", "on_error", "max_skipped") if name in said}
    if "device" in said:
        changes["device"] = gpu_of(said["device"])
    if "stall_timeout" in said:
        changes["stall_timeout_s"] = _seconds("stall_timeout", said["stall_timeout"])
    if "memory_limit" in said:
        changes["memory_limit_bytes"] = _whole("memory_limit", said["memory_limit"], least=1)
    if "max_skipped" in said:
        _whole("max_skipped", said["max_skipped"], least=0)
    for name, known in (("on_stall", get_args(OnStall)), ("on_error", get_args(OnError))):
        if name in said and said[name] not in known:
            raise UsageError(say("loader.bad_choice", name=name, value=said[name], known=", ".join(map(repr, known))))
    requests = dataclasses.replace(before, **changes)
    if requests.max_skipped is not None and requests.on_error != "skip":
        raise UsageError(say("loader.skips_nothing", value=requests.max_skipped))
    return requests


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value) or value <= 0:
        raise UsageError(say("loader.bad_seconds", name=name, value=value))
    return float(value)


def _whole(name: str, value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UsageError(say("loader.bad_whole_number", name=name, value=value, least=least))
    return int(value)


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
