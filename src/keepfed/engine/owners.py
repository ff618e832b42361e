"""Whose a file in a container is, where the engine's archive does not tell.

Podman hands out every file as if its container's root owned it (containers/podman, libpod/container_copy_common.go), and takes
what is put back at its word: an edited file of user 1000 would come back as root's, and its program could no longer write it.

A container with a user namespace counts users differently from the host; /proc/PID/uid_map leads back (user_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

_SAME = [(0, 0, 1 << 32)]


def owner_through_process(pid: int | None, path: str) -> tuple[int, int] | None:
    """User and group of an absolute, resolved path as the container of process `pid` counts; None where it cannot be seen."""
    try:
        found = os.lstat(f"/proc/{pid}/root{path}")
        users, groups = (_read_map(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map"))
    except (OSError, ValueError):
        return None
    return _both(_inside(found.st_uid, users), _inside(found.st_gid, groups))


def owner_in_layers(detail: Mapping[str, Any], path: str) -> tuple[int, int] | None:
    """The same for a container that does not run, from the folders of its overlay; None for any other storage or user mapping."""
    for number, layer in enumerate(_layers(detail)):
        try:
            if number == 0 and os.lstat(layer).st_uid:
                return None  # the container's root is somebody else here: a rootless engine's, or one with a user namespace
            found = os.lstat(f"{layer}{path}")
        except OSError:
            continue
        return found.st_uid, found.st_gid
    return None


def _layers(detail: Mapping[str, Any]) -> Iterator[str]:
    data = (detail.get("GraphDriver") or {}).get("Data") or {}
    if data.get("UpperDir"):
        yield str(data["UpperDir"])
        yield from str(data.get("LowerDir") or "").split(":")


def _read_map(path: str) -> list[tuple[int, int, int]]:
    """Lines of a map: first number inside, first number outside, how many."""
    with open(path, encoding="ascii") as file:
        lines = [tuple(int(word) for word in line.split()) for line in file]
    return [(line[0], line[1], line[2]) for line in lines] or _SAME


def _inside(number: int, ranges: list[tuple[int, int, int]]) -> int | None:
    return next((inside + number - outside for inside, outside, count in ranges if 0 <= number - outside < count), None)


def _both(user: int | None, group: int | None) -> tuple[int, int] | None:
    return None if user is None or group is None else (user, group)
