"""Which control groups hold a process, and under which folders their files are visible here.

`/proc/PID/cgroup` names a path, but not below `/sys/fs/cgroup`: a container mounts only its own part of the hierarchy, a cgroup
namespace shows paths relative to a root of its own ("/.." above it), and a bind mount may put the files anywhere. Gluing the
two together, as many programs do, reads the limits of another group or of none. The join is in `/proc/self/mountinfo`: a
mount shows the part of the hierarchy below its *root* field at its *mount point* (cgroup_namespaces(7), proc(5)).

Every group binds together with all its ancestors (kernel documentation, admin-guide/cgroup-v2, "Limits"), so what is found
is the whole visible chain, own group first. Ancestors above the mount's root bind as well, but nothing in the process's view
shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.host.tree import Tree

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOST_FOLDERS = 256


@dataclass(frozen=True, slots=True)
class Membership:
    """One line of /proc/PID/cgroup."""

    controllers: frozenset[str]
    """Controllers of a version 1 hierarchy; empty for version 2."""
    path: str
    """The group, relative to the reader's cgroup namespace."""
    unified: bool
    """Whether this is the version 2 hierarchy."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo, as far as it matters here."""

    root: str
    """The folder within the mounted file system that appears at `point`."""
    point: str
    """Where it appears."""
    filesystem: str
    """Its type, "cgroup2", "tmpfs", ..."""
    options: tuple[str, ...]
    """Options of the superblock: for version 1 the controllers, for tmpfs its size."""


@dataclass(frozen=True, slots=True)
class Group:
    """The groups of one controller that bind a process, as far as they can be seen."""

    version: int
    """1 or 2."""
    folders: tuple[str, ...]
    """Folders with their files: own group first, then each ancestor up to the mount point."""


def parse_memberships(text: str) -> tuple[Membership, ...]:
    """Read /proc/PID/cgroup ("4:memory:/a/b", "0::/a/b"); lines of another shape are skipped."""
    found = []
    for line in text.split("\n"):
        number, first, rest = line.partition(":")
        names, second, path = rest.partition(":")
        if first and second and path.startswith("/") and number.isdigit():
            unified = number == "0" and not names
            found.append(
                Membership(frozenset(filter(None, names.split(","))), path.removesuffix(" (deleted)"), unified)
            )
    return tuple(found)


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Read mountinfo (proc(5)); lines of another shape are skipped. Later mounts lie on top of earlier ones."""
    found = []
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if separator and len(before) >= 6 and len(after) >= 3:
            found.append(Mount(_unescape(before[3]), _unescape(before[4]), after[0], tuple(after[-1].split(","))))
    return tuple(found)


def find_group(tree: Tree, controller: str, pid: str = "self") -> tuple[Group, ...]:
    """The groups of `controller` ("cpu", "memory", "cpuset") that bind `pid`: at most one per cgroup version.

    A controller belongs to one hierarchy, but a hybrid system has both mounted, and a version 2 group without it simply has
    none of its files.
    """
    members = parse_memberships(tree.read(f"/proc/{pid}/cgroup") or "")
    mounts = parse_mounts(tree.read("/proc/self/mountinfo") or "")  # the kernel shows it relative to the reader
    found = []
    for member in members:
        if member.unified:
            candidates = [mount for mount in mounts if mount.filesystem == "cgroup2"]
        elif controller in member.controllers:
            candidates = [mount for mount in mounts if mount.filesystem == "cgroup" and controller in mount.options]
        else:
            continue
        if folders := _visible(tree, candidates, member.path, pid):
            found.append(Group(2 if member.unified else 1, folders))
    return tuple(found)


def _visible(tree: Tree, mounts: list[Mount], path: str, pid: str) -> tuple[str, ...]:
    """The chain of folders for group `path` under the first mount that shows it; the mount on top first."""
    second_best: tuple[str, ...] = ()
    for mount in reversed(mounts):
        chain = _chain(tree, mount, path, pid)
        if chain and tree.exists(chain[0]):
            return chain
        second_best = second_best or chain
    return second_best


def _chain(tree: Tree, mount: Mount, path: str, pid: str) -> tuple[str, ...]:
    way = way_down(mount.root, path)
    point = mount.point.rstrip("/")
    if way is None:
        # Moved between groups by somebody outside, or a mount of a sibling: only the kernel's own list is proof.
        return (point,) if _lists(tree, point, pid) else ()
    unnamed, names = way
    if not unnamed:
        return _upwards(point, names)
    return _search(tree, point, unnamed, names, pid) or (point,)


def way_down(root: str, path: str) -> tuple[int, tuple[str, ...]] | None:
    """How to go from a mount's `root` to group `path`: (levels whose names are hidden, names below them).

    With a mount made outside the cgroup namespace the root reads "/..": the group that the namespace calls "/" is one
    unnamed level below it. None when the group does not lie below the root.
    """
    base = [part for part in root.split("/") if part not in ("", ".")]
    goal = [part for part in path.split("/") if part not in ("", ".")]
    while base and goal and base[0] == goal[0]:
        del base[0], goal[0]
    if any(part != ".." for part in base) or ".." in goal:
        return None
    return len(base), tuple(goal)


def _upwards(point: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("/".join((point, *names[:depth])) for depth in range(len(names), -1, -1))


def _search(tree: Tree, point: str, unnamed: int, names: tuple[str, ...], pid: str) -> tuple[str, ...]:
    """Find the hidden names by looking for the group that lists the process."""
    level: list[tuple[str, ...]] = [()]
    for _ in range(unnamed):
        level = [(*way, name) for way in level for name in tree.folders("/".join((point, *way)))][:_MOST_FOLDERS]
    for way in level:
        chain = _upwards(point, (*way, *names))
        if _lists(tree, chain[0], pid):
            return chain
    return ()


def _lists(tree: Tree, folder: str, pid: str) -> bool:
    """Whether the group in `folder` holds the process itself (not one of its sub-groups)."""
    number = pid if pid != "self" else _own_pid(tree)
    return number is not None and number in (tree.read(f"{folder}/cgroup.procs") or "").split()


def _own_pid(tree: Tree) -> str | None:
    """Our process id as this /proc counts, which need not be the one that os.getpid() tells."""
    found = re.search(r"^Pid:\t(\d+)$", tree.read("/proc/self/status") or "", re.MULTILINE)
    return found and found.group(1)


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), text)
