"""Where in a container its program's settings are likely to be, when nobody says: never the whole root.

An image holds a distribution and ten thousand packages besides the twenty files that matter. The container itself says where
those are: the folder in which its command starts, the script that the command names, and the folders in which its
processes stand now (of somebody who works in it by `docker exec`, too). Where all of that is the root itself, as with `docker run -it image
bash`, what is mounted from the host and the folders that people use for this are left.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError, UsageError
from keepfed.text import say

# Folders of the distribution: a command like /usr/bin/python says nothing about where the settings are.
_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "proc",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
)
_SCRIPTS = (".py", ".sh", ".bash")
# Where Dockerfiles put programs; /opt and /mnt are left out, which hold environments and data sets.
_CUSTOMARY = (
    "app",
    "workspace",
    "workspaces",
    "work",
    "src",
    "code",
    "project",
    "repo",
    "train",
    "home",
    "root",
    "srv",
)


def likely_folders(container: Container) -> list[str]:
    """Resolved folders, none inside another. Raises UsageError where none can be told."""
    told = [container.workdir, *_of_command(container), *_of_processes(container)]
    found = _existing(container, told) or _existing(container, _customary(container))
    if not found:
        raise UsageError(say("inside.no_folder", name=container.name), next_step=say("inside.no_folder_next"))
    return without_nested(found)


def _existing(container: Container, paths: Iterable[str]) -> list[str]:
    """The folders among these that are there, links followed, and none of the system's."""
    found = []
    for path in dict.fromkeys(posixpath.normpath(path) for path in paths):
        if _is_system(path):
            continue
        try:
            real = container.resolve(path)
        except UnreachableError:
            continue
        if not _is_system(real):
            found.append(real)
    return found


def _customary(container: Container) -> Iterable[str]:
    for mount in container.mounts:
        if mount.kind == "bind":
            yield mount.target
    for name in _CUSTOMARY:
        yield f"/{name}"


def without_nested(paths: Iterable[str]) -> list[str]:
    """The same folders without those that lie in another one of them."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == other or path.startswith(f"{other.rstrip('/')}/") for other in kept):
            kept.append(path)
    return kept


def _of_command(container: Container) -> Iterable[str]:
    """The folders of the scripts that its command names, also in a line for a shell."""
    words = [part for word in container.command for part in word.split()]
    for word in words:
        plain = word.strip("\"';&")
        if plain.endswith(_SCRIPTS):
            yield posixpath.dirname(posixpath.join(container.workdir, plain))


def _of_processes(container: Container) -> Iterable[str]:
    for process in container.processes_here():
        try:
            yield os.readlink(f"/proc/{process.pid}/cwd")
        except OSError:
            continue  # another user's, or gone


def _is_system(path: str) -> bool:
    top = path.strip("/").split("/")[0]
    return not top or top in _SYSTEM
