"""Loaders that never come to the seam: noticed, named, counted.

A subclass with a `_get_iterator` of its own (StatefulDataLoader, whose state lives in its own iterators) must keep it, and a
library that builds torch's iterators by hand (fastai, around an object that is no DataLoader) does not ask anybody. Both
begin with torch's `_BaseDataLoaderIter.__init__`, so that is where they are seen; nothing is changed there.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from keepfed.loader import torch_seam
from keepfed.loader.fixed import tally_of
from keepfed.text import say

logger = logging.getLogger("keepfed")
_torchs_init = torch_seam.BaseDataLoaderIter.__init__
_told: set[str] = set()


def watch(covered: Callable[[Any], bool], reported: Callable[[Any, str], bool]) -> None:
    """From now on look at every iterator that is made.

    `covered(loader)` says whether ours would have run this loader; `reported(loader, reason)` tells a launcher, if there is
    one that reads along, else there is one line in the log for each class.
    """

    @functools.wraps(_torchs_init)
    def __init__(self: Any, loader: Any) -> None:  # noqa: N807  # it is one
        _torchs_init(self, loader)
        if _is_elsewhere(self, loader) and covered(loader):
            reason = say("loader.elsewhere", name=_name_of(loader))
            tally_of(loader).fallback = reason
            if not reported(loader, reason):
                _tell_once(_name_of(loader), reason)

    torch_seam.BaseDataLoaderIter.__init__ = __init__


def stop() -> None:
    """Look no more."""
    torch_seam.BaseDataLoaderIter.__init__ = _torchs_init
    _told.clear()


def _is_elsewhere(iterator: Any, loader: Any) -> bool:
    kind = type(iterator)
    if kind.__module__.startswith("keepfed."):
        return False
    torchs_own = kind in (torch_seam.SingleProcessDataLoaderIter, torch_seam.MultiProcessingDataLoaderIter)
    return not (torchs_own and isinstance(loader, DataLoader))


def _tell_once(name: str, reason: str) -> None:
    if name not in _told:
        _told.add(name)
        logger.warning(say("loader.left_elsewhere", name=name, reason=reason))


def _name_of(loader: Any) -> str:
    kind = type(loader)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
