"""Where a compose file speaks of a service, so that a change of it can be told to the line.

A file with a database and a trainer may set the size for the wrong one of them; `keepfed set --site FILE:LINE` means one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def place_of(service: str, files: Sequence[str], read: Callable[[str], str | None]) -> tuple[str, int] | None:
    """File and line, from 1, of a service's shm_size, else of the service itself; None where no file shows either.

    The last file that sets the size decides, as overlays do; without any, the first that has the service gets it. `read` gives
    a file's text, None where it cannot.
    """
    found = [(file, place) for file in files if (place := _place(read(file), service)) is not None]
    for file, (line, is_size) in reversed(found):
        if is_size:
            return file, line
    return (found[0][0], found[0][1][0]) if found else None


def _place(text: str | None, service: str) -> tuple[int, bool] | None:
    """The line, and whether it is the size's own."""
    if text is None:
        return None
    import yaml

    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    services = _entry(document, "services")
    own = _entry(services[1] if services else None, service)
    if own is None:
        return None
    size = _entry(own[1], "shm_size")
    return (size[1].start_mark.line + 1, True) if size else (own[0].start_mark.line + 1, False)


def _entry(node: Any, key: str) -> tuple[Any, Any] | None:
    """Key and value of one entry of a mapping."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((name, value) for name, value in node.value if name.value == key), None)
