"""Takes over the DataLoaders of a program that was started by `keepfed run` or `keepfed tune` and knows nothing of it.

`arm()` is called by the hook at the program's first `iter(loader)`; `keepfed.DataLoader` and loaders covered by
`keepfed.install()` come through `join()`.
"""

from __future__ import annotations

import logging
import os

from keepfed.errors import KeepfedError
from keepfed.feed import RUN_VARIABLE, RunFolder
from keepfed.loader.fleet import Fleet
from keepfed.loader.seam import cover_everything, fleet
from keepfed.loader.session import Session
from keepfed.text import say

_failed: set[str] = set()


def arm() -> None:
    """Steer all loaders of this process, for the run that the environment names. A second call does nothing.

    Raises UnreachableError when the run folder cannot be used.
    """
    if fleet() is not None:
        return
    folder = RunFolder.from_environment()
    if folder is not None:
        cover_everything(Fleet(Session(folder)))


def join() -> None:
    """`arm()` for loaders of our own: they work without the run, so that its folder being unusable is one logged line."""
    folder = os.environ.get(RUN_VARIABLE, "")
    if folder in _failed:
        return
    try:
        arm()
    except KeepfedError as error:
        _failed.add(folder)
        logging.getLogger("keepfed").warning(say("loader.not_steered", error=error))
