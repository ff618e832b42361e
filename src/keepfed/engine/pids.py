"""Which processes of this machine belong to a container, without asking the engine and without being root.

The engine names the first process, as its host counts. The others share its control group or one below it, which anybody may
read; the group's path holds the container's ID, which also proves that the engine's host is this machine. (Podman's monitor has
the ID in its group too, but not in the same group.) Where an engine made no group, the namespace of process numbers tells.

Sources: cgroups(7), pid_namespaces(7), podman-run(1) --cgroups=disabled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator


def processes_here(first: int, identity: str) -> list[tuple[int, str]] | None:
    """Numbers and command lines of the processes around `first`; None where it cannot be told that it is that container's."""
    groups = {path for path in _groups(first) if identity in path}
    if groups:
        return [(pid, _command(pid)) for pid in _pids() if _inside(_groups(pid), groups)]
    space = _namespace(first)
    if space is None or space == _namespace(os.getpid()):
        return None
    found = [pid for pid in _pids() if _namespace(pid) == space]
    return [(pid, _command(pid)) for pid in found] if first in found and _hostname_fits(first, identity) else None


def _inside(paths: list[str], groups: set[str]) -> bool:
    return any(path == group or path.startswith(f"{group}/") for path in paths for group in groups)


def _groups(pid: int) -> list[str]:
    """Paths of the groups of a process, each as it stands in its hierarchy."""
    return [line.split(":", 2)[2] for line in _read(pid, "cgroup").splitlines() if line.count(":") >= 2]


def _hostname_fits(pid: int, identity: str) -> bool:
    """Whether the process was given the container's default host name, its only other mark of the ID."""
    environ = _read(pid, "environ").split("\0")
    return f"HOSTNAME={identity[:12]}" in environ


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ").strip() or f"[{_read(pid, 'comm').strip()}]"


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _read(pid: int, name: str) -> str:
    """A small file of /proc; empty when the process is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    yield from sorted(int(name) for name in names if name.isdigit())
