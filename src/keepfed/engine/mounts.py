"""What is mounted into a container, and where a path inside it really lies.

A file that is bind-mounted lives on the host: written through the engine it would be changed behind the back of the host's
editor and version control. A file on a tmpfs is the opposite case: the engine's archives show what lies *below* such a mount, so
that both reading and writing there would be silently wrong.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHM = "/dev/shm"  # noqa: S108  # the mount itself is meant; every container has one, and no engine lists it


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container."""

    kind: str
    """bind, volume, tmpfs, npipe, cluster or image."""
    source: str
    """On the host: the folder or file; of a volume, its folder below the engine's; empty for a tmpfs."""
    target: str
    """The absolute path inside."""
    writable: bool
    """Whether the container may write there."""
    name: str = ""
    """A volume's name."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a path inside a container lies."""

    mount: Mount | None
    """The mount that shows it; None for the container's own layers."""
    on_host: str
    """Its path on the engine's host, for bind mounts; empty otherwise."""

    @property
    def hidden(self) -> bool:
        """Whether the engine's archives cannot reach it: it lies in memory."""
        return self.mount is not None and self.mount.kind == "tmpfs"


def mounts_of(detail: Mapping[str, Any]) -> tuple[Mount, ...]:
    """All mounts of an inspected container, tmpfs included, which Docker lists elsewhere."""
    found = [
        Mount(
            kind=str(entry.get("Type") or ("volume" if entry.get("Name") else "bind")),
            source=str(entry.get("Source") or ""),
            target=_plain(str(entry.get("Destination") or "/")),
            writable=bool(entry.get("RW", True)),
            name=str(entry.get("Name") or ""),
        )
        for entry in detail.get("Mounts") or ()
    ]
    known = {mount.target for mount in found}
    in_memory = [*((detail.get("HostConfig") or {}).get("Tmpfs") or ()), _SHM]
    found += [Mount("tmpfs", "", _plain(path), writable=True) for path in in_memory if _plain(path) not in known]
    return tuple(found)


def placed(path: str, mounts: Sequence[Mount]) -> Placed:
    """Where an absolute path inside, with its links followed, lies: the innermost mount above it decides."""
    path = _plain(path)
    above = [mount for mount in mounts if _is_below(path, mount.target)]
    mount = max(above, key=lambda found: len(found.target), default=None)
    if mount is None or mount.kind != "bind":
        return Placed(mount, "")
    inside = posixpath.relpath(path, mount.target)
    return Placed(mount, mount.source if inside == "." else posixpath.join(mount.source, inside))


def _is_below(path: str, folder: str) -> bool:
    return folder in ("/", path) or path.startswith(f"{folder}/")


def _plain(path: str) -> str:
    return posixpath.normpath(f"/{path}").replace("//", "/")
