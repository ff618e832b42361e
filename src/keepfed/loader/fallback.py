"""When a loader is left to torch's own iterator, and why: said once per loader, counted in `stats().fallback`."""

from __future__ import annotations

import logging
import multiprocessing
import weakref
from typing import Any

import torch

from keepfed.loader import arena, nursery, torch_seam, zygote
from keepfed.loader.room import why_too_little
from keepfed.text import say

logger = logging.getLogger("keepfed")
_told: weakref.WeakSet[Any] = weakref.WeakSet()


def why_torch(loader: Any) -> str:
    """Why torch's own iterator must run this loader, in words; empty when ours can."""
    if absent := torch_seam.missing():
        return say("loader.torch_differs", names=", ".join(absent), version=torch.__version__)
    if not (arena.supported() and zygote.supported()):
        return say("loader.platform")
    if reason := why_too_little(loader.num_workers):
        return reason
    method = start_method(loader)
    if method != "fork" and not (method in nursery.METHODS and nursery.supported()):
        return say("loader.start_method", method=method)
    return ""


def start_method(loader: Any) -> str:
    """How this loader asks for its workers to be started: fork, spawn or forkserver."""
    context = loader.multiprocessing_context
    name = context.get_start_method() if context is not None else multiprocessing.get_start_method()
    return str(name)


def tell_once(loader: Any, reason: str) -> None:
    """Log that this loader runs on torch's iterator, the first time only."""
    if loader not in _told:
        _told.add(loader)
        logger.warning(say("loader.left_to_torch", dataset=type(loader.dataset).__name__, reason=reason))
