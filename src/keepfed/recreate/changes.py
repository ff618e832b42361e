"""What a container has written into its own layer, which a new container starts without.

Somebody has once run `pip install` in there, at night, and nobody wrote it down: that is what recreating loses. The engine lists
every path that differs from the image; most of them are no loss (/tmp, bytecode, the points where something is mounted), so
those are only counted, and packages are told by name instead of by their thousand files.

Sources: Docker Engine API, "Get changes on a container's filesystem" (kinds 0, 1, 2); PEP 376 (RECORD, *.dist-info);
dpkg(1) (/var/lib/dpkg/info/NAME.list); conda-meta/*.json.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_KINDS = {0: "modified", 1: "added", 2: "deleted"}
_NEVER_MATTERS = ("/tmp", "/var/tmp", "/run", "/var/run", "/dev", "/proc", "/sys")  # noqa: S108  # paths inside a container
_OF_THE_ENGINE = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv"}
_PODMANS_OWN = {"/etc/passwd", "/etc/group", "/etc/localtime"}
_PACKAGES = (
    ("pip", re.compile(r"/(?:site|dist)-packages/([^/]+?)-([^-/]+)\.(?:dist|egg)-info(?:$|/)")),
    ("conda", re.compile(r"/conda-meta/(.+)-([^-/]+)-[^-/]+\.json$")),
    ("dpkg", re.compile(r"/var/lib/dpkg/info/([^/:]+)(?::[^/]+)?\.list()$")),
)
_MOST_FOLDERS = 20


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One path that differs from the image."""

    path: str
    """Absolute, inside the container."""
    kind: str
    """modified, added or deleted."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package that was installed, changed or removed."""

    name: str
    """As its manager calls it."""
    version: str
    """Empty where the file's name does not tell."""
    manager: str
    """pip, conda or dpkg."""
    kind: str
    """modified, added or deleted."""

    def __str__(self) -> str:
        """For people: `numpy 1.26.4 (pip)`."""
        return f"{self.name} {self.version} ({self.manager})" if self.version else f"{self.name} ({self.manager})"


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that would be lost."""

    listed: tuple[Change, ...]
    """By path."""
    packages: tuple[Package, ...]
    """By name; their files are among those listed as well."""
    noise: int
    """How many paths were left out, because they never matter."""

    def __bool__(self) -> bool:
        return bool(self.listed)

    def folders(self, most: int = _MOST_FOLDERS) -> list[tuple[str, int]]:
        """Folders with the number of changes below each, at most so many: far too many are told by their parents."""
        deepest = max((change.path.count("/") for change in self.listed), default=1)
        for depth in range(deepest, 0, -1):
            found = Counter(_above(change.path, depth) for change in self.listed)
            if len(found) <= most or depth == 1:
                return sorted(found.items())
        return []


def read_changes(raw: Iterable[Mapping[str, Any]] | None, mounted: Sequence[str], *, podman: bool) -> Changes:
    """Sort the engine's list. `mounted`: every path inside at which something is mounted."""
    found = [Change(str(entry["Path"]), _KINDS.get(int(entry.get("Kind", 0)), "modified")) for entry in raw or ()]
    above = {parent for change in found for parent in _parents(change.path)}
    above |= {parent for path in (*mounted, *_OF_THE_ENGINE) for parent in _parents(path)}
    listed, noise = [], 0
    for change in sorted(found):
        if change.path in above and change.kind != "deleted":
            continue  # a folder whose content changed: that stands below
        if _is_noise(change, mounted, podman):
            noise += 1
        else:
            listed.append(change)
    return Changes(tuple(listed), _packages(listed), noise)


def _is_noise(change: Change, mounted: Sequence[str], podman: bool) -> bool:
    path = change.path
    if path in _OF_THE_ENGINE or (podman and change.kind == "added" and path in _PODMANS_OWN):
        return True
    if any(path == folder or path.startswith(f"{folder}/") for folder in (*_NEVER_MATTERS, *mounted)):
        return True
    return "__pycache__" in path.split("/") or path.endswith(".pyc")


def _packages(listed: Iterable[Change]) -> tuple[Package, ...]:
    """Packages whose record was added or deleted; both for the same name is another version."""
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for change in listed:
        for manager, pattern in _PACKAGES:
            matched = pattern.search(change.path)
            if matched:
                kinds.setdefault((manager, matched[1]), {}).setdefault(change.kind, matched[2])
    return tuple(sorted(_package(name, manager, found) for (manager, name), found in kinds.items()))


def _package(name: str, manager: str, found: Mapping[str, str]) -> Package:
    if "added" in found:
        return Package(name, found["added"], manager, "modified" if "deleted" in found else "added")
    kind, version = next(iter(found.items()))
    return Package(name, version, manager, kind)


def _parents(path: str) -> Iterable[str]:
    while (path := posixpath.dirname(path)) not in ("", "/"):
        yield path


def _above(path: str, depth: int) -> str:
    """The folder of a path, cut to so many levels."""
    parts = posixpath.dirname(path).split("/")[1 : depth + 1]
    return "/" + "/".join(parts)
