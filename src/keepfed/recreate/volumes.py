"""What is mounted, so that the new container gets the very volumes of the old one, those without a name included.

`docker run -v /cache` makes a volume whose only name is a number. inspect shows the wish in one place (`Config.Volumes`, a mount
without source) and the volume in another (`Mounts`). Created from the wish alone, the new container would get a fresh, empty
volume, and the data would lie in one that nobody refers to any more.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bind:
    """One entry of `HostConfig.Binds`: `source:target[:options]`."""

    source: str
    """A path of the host, or a volume's name."""
    target: str
    """The path inside."""
    options: tuple[str, ...]
    """ro, z, rprivate, nocopy, ..."""

    @property
    def word(self) -> str:
        """As `-v` takes it."""
        return ":".join([self.source, self.target, *([",".join(self.options)] if self.options else [])])

    @property
    def is_volume(self) -> bool:
        """Whether the source is a volume's name."""
        return not self.source.startswith(("/", ".", "~"))


def read_bind(text: str) -> Bind:
    """Take an entry of Binds apart.

    >>> read_bind("data:/data:ro,z")
    Bind(source='data', target='/data', options=('ro', 'z'))
    """
    parts = text.split(":")
    source, target = parts[0], parts[1] if len(parts) > 1 else ""
    return Bind(source, target, tuple(option for option in ":".join(parts[2:]).split(",") if option))


def with_volumes_named(host: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """HostConfig with a name in place of each volume that was asked for without one."""
    names = {plain(str(mount.get("Destination", ""))): mount for mount in mounts if mount.get("Type") == "volume"}
    binds = [str(bind) for bind in host.get("Binds") or ()]
    structured = [_named(dict(mount), names) for mount in host.get("Mounts") or ()]
    covered = {plain(read_bind(bind).target) for bind in binds}
    covered |= {plain(str(mount.get("Target", ""))) for mount in structured}
    covered |= {plain(target) for target in host.get("Tmpfs") or {}}
    anonymous = [
        f"{mount['Name']}:{target}{'' if mount.get('RW', True) else ':ro'}"
        for target, mount in names.items()
        if target not in covered and mount.get("Name")
    ]
    return {**host, "Binds": [*binds, *anonymous], "Mounts": structured}


def targets(host: Mapping[str, Any]) -> dict[str, str]:
    """Every mount of a spec by its path inside, with what is mounted there: one line each, for people and comparisons."""
    found = {plain(bind.target): bind.source for bind in map(read_bind, host.get("Binds") or ())}
    found |= {plain(str(one.get("Target", ""))): str(one.get("Source") or one.get("Type")) for one in _mounts(host)}
    return found | {plain(target): f"tmpfs {options}".strip() for target, options in (host.get("Tmpfs") or {}).items()}


def plain(path: str) -> str:
    """The path in its shortest form."""
    return posixpath.normpath(f"/{path}").replace("//", "/")


def _mounts(host: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return host.get("Mounts") or ()


def _named(mount: dict[str, Any], names: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = names.get(plain(str(mount.get("Target", ""))))
    if mount.get("Type") == "volume" and not mount.get("Source") and found:
        mount["Source"] = found.get("Name")
    return mount
