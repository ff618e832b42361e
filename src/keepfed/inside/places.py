"""Where a file of a container is edited: on this machine where it is bind-mounted from there, else through the engine.

That an engine names a path does not make it a path of this machine: the engine may run on another one, or in a virtual machine.
So the file has to be here, and hold the same bytes.
"""

from __future__ import annotations

import os

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError

_SAME_BYTES = 64 << 20


def on_host(container: Container, path: str) -> str:
    """This machine's path of a file inside, links resolved; "" where it lies in the container, or out of reach."""
    place = container.placed(path).on_host
    if not place or not container.engine.local or not os.path.isfile(place):
        return ""
    try:
        with open(place, "rb") as file:
            here = file.read(_SAME_BYTES)
        there = container.read(path, _SAME_BYTES, with_owner=False).data
    except (OSError, UnreachableError):
        return ""
    return os.path.realpath(place) if here == there else ""
