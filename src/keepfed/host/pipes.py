"""Whether a thread waits at a pipe whose other end nobody holds but its own process.

A pipe of which nobody has the other end open does not block: read(2) gives end-of-file, write(2) EPIPE. The one that blocks
for ever is a pipe of which the process kept *both* ends, typically since a fork that forgot to close one: it waits for a
byte, or for room, that only itself could bring.

       +--------- the process ---------+
       |  read(5)  <----- pipe -----   |      nobody else has 6 open: no end-of-file ever comes
       |  6 (the writing end)  ----^   |
       +-------------------------------+

Pipes have no list of their holders, so every process that may be looked at is looked at (proc_pid_fd(5)). That costs about
10 µs per descriptor of the machine and is done only for a process that has the other end itself. An end that travels in a
message of a socket at this moment (SCM_RIGHTS) is in no list at all.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from keepfed.host.syscalls import Call
from keepfed.host.tree import Tree

_READS, _WRITES = ("read", "readv"), ("write", "writev")
_ROUNDS = 3
_ACCESS, _READABLE, _WRITABLE = 0o3, (os.O_RDONLY, os.O_RDWR), (os.O_WRONLY, os.O_RDWR)


def waits_for_itself(processes: Tree, pid: int, call: Call) -> bool:
    """Whether `call` of process `pid` waits at a pipe of which this process alone has the other end.

    `processes` is the tree of /proc itself. False whenever something that could hold it cannot be looked at.
    """
    if call.name not in (*_READS, *_WRITES):
        return False
    try:
        pipe = _target(processes, pid, str(call.arguments[0]))
    except PermissionError:
        return False
    if pipe is None or not pipe.startswith("pipe:["):
        return False
    wanted = _WRITABLE if call.name in _READS else _READABLE
    return _holds(processes, pid, pipe, wanted) is True and not _held_elsewhere(processes, pid, pipe, wanted)


def _held_elsewhere(processes: Tree, pid: int, pipe: str, wanted: tuple[int, ...]) -> bool:
    """Whether another process has it, or may have. Who was forked while we looked is looked at in another round."""
    seen = {str(pid)}
    for _ in range(_ROUNDS):
        new = {name for name in processes.folders("/") if name.isdigit()} - seen
        if not new:
            return False
        for other in new:
            held = _holds(processes, int(other), pipe, wanted)
            if held or (held is None and _may_hold(processes, pid, int(other))):
                return True
        seen |= new
    return True


def _holds(processes: Tree, pid: int, pipe: str, wanted: tuple[int, ...]) -> bool | None:
    """Whether `pid` has that end of the pipe open; None when it may not be looked at."""
    try:
        # Root may list the descriptors of a process with more capabilities, but not read where they lead.
        targets = {number: _target(processes, pid, number) for number in os.listdir(processes.at(f"/{pid}/fd"))}
    except PermissionError:
        return None
    except (OSError, ValueError):  # it ended
        return False
    return any(target == pipe and _access(processes, pid, number) in wanted for number, target in targets.items())


def _target(processes: Tree, pid: int, number: str) -> str | None:
    """What the descriptor leads to; None when it is closed. Raises PermissionError."""
    try:
        return os.readlink(processes.at(f"/{pid}/fd/{number}"))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None


def _access(processes: Tree, pid: int, number: str) -> int:
    """How it is opened (O_RDONLY, O_WRONLY, O_RDWR); O_RDWR, which counts as both ends, when that cannot be read."""
    flags = re.search(r"^flags:\s+([0-7]+)$", processes.read(f"/{pid}/fdinfo/{number}") or "", re.MULTILINE)
    return int(flags.group(1), 8) & _ACCESS if flags else os.O_RDWR


def _may_hold(processes: Tree, pid: int, other: int) -> bool:
    """Whether `other`, which may not be looked at, could have inherited what `pid` has: same user or same session.

    An ancestor inherits nothing from it, and hands down only what the program that it started was given at its start.
    """
    mine, theirs = _origin(processes, pid), _origin(processes, other)
    if theirs is None or other in _ancestors(processes, pid):
        return False
    return mine is None or mine.user == theirs.user or mine.session == theirs.session


@dataclass(frozen=True, slots=True)
class _Origin:
    """What stays readable of a process whose descriptors are not."""

    user: str
    parent: int
    session: str


def _origin(processes: Tree, pid: int) -> _Origin | None:
    """None when it is gone."""
    user = re.search(r"^Uid:\s+(\d+)", processes.read(f"/{pid}/status") or "", re.MULTILINE)
    fields = (processes.read(f"/{pid}/stat") or "").rpartition(")")[2].split()
    return _Origin(user.group(1), int(fields[1]), fields[3]) if user and len(fields) > 3 else None


def _ancestors(processes: Tree, pid: int) -> set[int]:
    found: set[int] = set()
    while (origin := _origin(processes, pid)) and origin.parent not in found:
        pid = origin.parent
        found.add(pid)
    return found
