"""Takes over the DataLoaders of a program that was started by `keepfed run` or `keepfed tune` and knows nothing of it.

`arm()` is called by the hook at the program's first `iter(loader)`, and by `keepfed.DataLoader` at its own.
"""

from __future__ import annotations

from keepfed.feed import RunFolder
from keepfed.loader.fleet import Fleet
from keepfed.loader.seam import cover_everything, fleet
from keepfed.loader.session import Session


def arm() -> None:
    """Steer all loaders of this process, for the run that the environment names. A second call does nothing.

    Raises UnreachableError when the run folder cannot be used.
    """
    if fleet() is not None:
        return
    folder = RunFolder.from_environment()
    if folder is not None:
        cover_everything(Fleet(Session(folder)))
