"""Who has what in /dev/shm: files with a name, and segments that `ls` cannot show.

torch unlinks each segment as soon as it is made and passes a descriptor on, so a full /dev/shm looks empty: `df` says 64 MB used,
`ls` says nothing, and the next batch ends in "Bus error". The kernel still knows: whoever holds a segment has it open or mapped.

    statvfs                    size and use, whoever uses it
    names in the folder        what `rm` could remove; a name that nobody holds is left over
    /proc/PID/fd, maps         what each process holds, by device and inode; "(deleted)" has no name any more

All of it is counted by device and inode, never by path: the same mount has other paths in other mount namespaces, and a segment
that two workers hold is there once. Memory files (memfd) lie on a device of their own and are no part of it, nor is System V
memory (`ipcs`). What belongs to other users cannot be looked at without root; how much that leaves in the dark is said.

Sources: proc_pid_maps(5), proc_pid_fd(5), proc_pid_map_files(5), proc_pid_mountinfo(5), shm_overview(7), tmpfs(5),
pytorch torch/csrc/StorageSharing.cpp and aten/src/ATen/MapAllocator.cpp (names and unlinking).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from keepfed.host.cgroups import parse_mounts
from keepfed.host.probe import SHM_PATH, FileSystemUse
from keepfed.host.tree import Tree

_MAPPED = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) \S+ (?P<offset>[0-9a-f]+) (?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+) (?P<inode>\d+)"
    r"(?:\s+(?P<path>\S.*))?$",
    re.MULTILINE,
)
_TORCH_NAME = re.compile(r"torch_(\d+)_")
_DELETED = " (deleted)"
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are: stat(3type)
_KEEPFED_MEMORY = "/memfd:keepfed"
_MOST_MAPS_BYTES = 32 << 20
_MOST_NAMES = 100_000


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of /dev/shm, with or without a name."""

    inode: int
    """Its number there."""
    name: str
    """Its file name; the last one that it had, where it has none any more; "?" where that is not known."""
    bytes: int
    """Memory that it takes."""
    linked: bool
    """Whether it still has a name."""
    holders: tuple[int, ...]
    """The processes that have it open or mapped."""

    @property
    def of_torch(self) -> bool:
        """Whether torch made it: torch_PID_RANDOM_COUNT."""
        return self.name.startswith("torch_")

    @property
    def maker(self) -> int:
        """The process that made it, if torch did, as its container counts; 0 otherwise."""
        found = _TORCH_NAME.match(self.name)
        return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Holder:
    """What one process holds."""

    pid: int
    """The process."""
    command: str
    """Its command line, or its name."""
    segments: int
    """How many segments it has open or mapped."""
    unlinked: int
    """How many of them have no name any more."""
    bytes: int
    """Memory that they take; what several processes hold counts for each."""
    torch_bytes: int
    """The part of it in segments of torch."""


@dataclass(frozen=True, slots=True)
class ShmUse:
    """A /dev/shm as one process sees it."""

    filesystem: str | None
    """Its type, "tmpfs" as it should be; None when nothing is mounted there."""
    use: FileSystemUse | None
    """Size and use; None when they cannot be asked for."""
    segments: tuple[Segment, ...]
    """All that could be seen."""
    holders: tuple[Holder, ...]
    """Who holds them, the largest first."""
    unseen_processes: int
    """Processes that share this /dev/shm, as far as that can be told, and that may not be looked at."""
    keepfed_processes: tuple[int, ...]
    """Processes that share it and hold memory files of keepfed's loader, which lie elsewhere."""
    alive: frozenset[int] = frozenset()
    """Numbers of the processes that share it, each as its own container counts: torch writes its maker's into a name."""
    device: tuple[int, int] | None = None
    """The mount itself: two processes with the same one share their /dev/shm, whatever an engine says of it."""

    @property
    def named_bytes(self) -> int:
        """Memory of the segments that have a name."""
        return sum(segment.bytes for segment in self.segments if segment.linked)

    @property
    def unlinked_bytes(self) -> int:
        """Memory of the segments that were seen and have none."""
        return sum(segment.bytes for segment in self.segments if not segment.linked)

    @property
    def dark_bytes(self) -> int:
        """Memory in use of which nothing was seen."""
        used = self.use.used_bytes if self.use else 0
        return max(0, used - self.named_bytes - self.unlinked_bytes)

    @property
    def left_over(self) -> tuple[Segment, ...]:
        """Torch's files with a name that no process holds, and whose maker is gone; none where not all processes can be looked at.

        With the `file_system` strategy a batch that waits to be fetched is held by nobody, while its maker lives.
        """
        if self.unseen_processes:
            return ()
        nobodys = (segment for segment in self.segments if segment.linked and not segment.holders)
        return tuple(segment for segment in nobodys if segment.maker and segment.maker not in self.alive)


def read_shm_use(pid: int | None = None) -> ShmUse:
    """The /dev/shm that process `pid` sees (default: this one), and who uses it. Never raises."""
    if sys.platform != "linux":
        return ShmUse(None, None, (), (), 0, ())
    tree = Tree()
    who = "self" if pid is None else str(pid)
    mount = _mount(tree, who)
    folder = SHM_PATH if pid is None else f"/proc/{pid}/root{SHM_PATH}"
    use = _use(folder)
    if mount is None:
        return ShmUse(None, use, (), (), 0, ())
    device, filesystem = mount
    named = _named(folder, device)
    held: dict[int, set[int]] = {}
    seen: dict[int, Segment] = {}
    unseen = 0
    keepfed: list[int] = []
    alive: set[int] = set()
    for process in _sharers(tree, device):
        alive.add(_own_number(tree, process))
        found = _held(tree, process, device)
        if found is None:
            unseen += 1
            continue
        if found.keepfed:
            keepfed.append(process)
        for segment in found.segments:
            seen.setdefault(segment.inode, segment)
            held.setdefault(segment.inode, set()).add(process)
    known = {**seen, **named}
    segments = tuple(
        Segment(inode, one.name, one.bytes, inode in named, tuple(sorted(held.get(inode, ()))))
        for inode, one in sorted(known.items())
    )
    return ShmUse(filesystem, use, segments, _holders(tree, segments), unseen, tuple(keepfed), frozenset(alive), device)


@dataclass(frozen=True, slots=True)
class _Held:
    """What one process has open or mapped."""

    segments: list[Segment]
    keepfed: bool


def _mount(tree: Tree, who: str) -> tuple[tuple[int, int], str] | None:
    """Device and type of what is mounted at /dev/shm for a process; the last one mounted there hides the others."""
    text = tree.read(f"/proc/{who}/mountinfo") or ""
    here = [mount for mount in parse_mounts(text) if mount.point.rstrip("/") == SHM_PATH]
    lines = [line.split() for line in text.splitlines()]
    devices = [words[2] for words in lines if len(words) > 4 and words[4].rstrip("/") == SHM_PATH]
    if not here or not devices:
        return None
    major, _, minor = devices[-1].partition(":")
    return (int(major), int(minor)), here[-1].filesystem


def shares_ours(use: ShmUse) -> bool:
    """Whether this is the /dev/shm that this very process has, too."""
    mount = _mount(Tree(), "self")
    return mount is not None and use.device == mount[0]


def _use(folder: str) -> FileSystemUse | None:
    try:
        answer = os.statvfs(folder)
    except OSError:
        return None
    used = (answer.f_blocks - answer.f_bfree) * answer.f_frsize
    limited = answer.f_files > 0
    return FileSystemUse(
        answer.f_blocks * answer.f_frsize,
        used,
        answer.f_files if limited else None,
        answer.f_files - answer.f_ffree if limited else None,
    )


def _named(folder: str, device: tuple[int, int]) -> dict[int, Segment]:
    """The files that have a name, by inode; folders inside are looked through too."""
    found: dict[int, Segment] = {}
    waiting = [folder]
    while waiting and len(found) < _MOST_NAMES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    about = entry.stat(follow_symlinks=False)
                    if _device(about) != device:
                        continue
                    if stat.S_ISDIR(about.st_mode):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(about.st_mode):
                        name = os.path.relpath(entry.path, folder)
                        found[about.st_ino] = Segment(about.st_ino, name, about.st_blocks * _BLOCK_BYTES, True, ())
        except OSError:
            continue  # removed meanwhile, or not ours to list
    return found


def _sharers(tree: Tree, device: tuple[int, int]) -> Iterator[int]:
    """Processes to which the same /dev/shm is mounted: anybody may read the table of mounts."""
    wanted = f"{device[0]}:{device[1]}"
    answers: dict[str, bool] = {}
    for name in tree.folders("/proc"):
        if not name.isdigit():
            continue
        space = _namespace(name)
        if space not in answers or not space:
            lines = [line.split() for line in (tree.read(f"/proc/{name}/mountinfo") or "").splitlines()]
            answers[space] = any(len(words) > 4 and words[2] == wanted for words in lines)
        if answers[space]:
            yield int(name)


def _namespace(pid: str) -> str:
    """The mount namespace of a process; "" where that may not be asked."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def _own_number(tree: Tree, pid: int) -> int:
    """The number of a process in its own namespace, the last one of NSpid (proc_pid_status(5))."""
    found = re.search(r"^NSpid:.*?(\d+)$", tree.read(f"/proc/{pid}/status") or "", re.MULTILINE)
    return int(found[1]) if found else pid


def _held(tree: Tree, pid: int, device: tuple[int, int]) -> _Held | None:
    """What process `pid` holds on this device; None where it may not be looked at. A process that has just ended holds nothing."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    except OSError:
        return _Held([], False)
    found: dict[int, Segment] = {}
    keepfed = False
    for number in numbers:
        path = f"/proc/{pid}/fd/{number}"
        try:
            about = os.stat(path)
            target = os.readlink(path)
        except OSError:
            continue
        keepfed = keepfed or target.startswith(_KEEPFED_MEMORY)
        if _device(about) == device and stat.S_ISREG(about.st_mode):
            found[about.st_ino] = _segment(about.st_ino, target, about.st_blocks * _BLOCK_BYTES)
    maps = tree.read(f"/proc/{pid}/maps", _MOST_MAPS_BYTES) or ""
    for line in _MAPPED.finditer(maps):
        keepfed = keepfed or (line["path"] or "").startswith(_KEEPFED_MEMORY)
        inode = int(line["inode"])
        if (int(line["major"], 16), int(line["minor"], 16)) == device and inode not in found:
            found[inode] = _segment(inode, line["path"] or "?", _mapped_bytes(pid, line))
    return _Held(list(found.values()), keepfed)


def _mapped_bytes(pid: int, line: re.Match[str]) -> int:
    """Memory of a mapped file: asked through map_files where that is allowed (root), else the length of the mapping."""
    try:
        return os.stat(f"/proc/{pid}/map_files/{line['start']}-{line['end']}").st_blocks * _BLOCK_BYTES
    except OSError:
        return int(line["offset"], 16) + int(line["end"], 16) - int(line["start"], 16)


def _segment(inode: int, path: str, size: int) -> Segment:
    name = path.removesuffix(_DELETED).rpartition("/")[2]
    return Segment(inode, name or "?", size, not path.endswith(_DELETED), ())


def _holders(tree: Tree, segments: tuple[Segment, ...]) -> tuple[Holder, ...]:
    by_process: dict[int, list[Segment]] = {}
    for segment in segments:
        for pid in segment.holders:
            by_process.setdefault(pid, []).append(segment)
    found = [
        Holder(
            pid,
            _command(tree, pid),
            len(held),
            sum(not segment.linked for segment in held),
            sum(segment.bytes for segment in held),
            sum(segment.bytes for segment in held if segment.of_torch),
        )
        for pid, held in by_process.items()
    ]
    return tuple(sorted(found, key=lambda holder: (-holder.bytes, holder.pid)))


def _command(tree: Tree, pid: int) -> str:
    words = (tree.read(f"/proc/{pid}/cmdline", 4096) or "").replace("\0", " ").strip()
    return words or (tree.read(f"/proc/{pid}/comm") or "?").strip()


def _device(about: os.stat_result) -> tuple[int, int]:
    return os.major(about.st_dev), os.minor(about.st_dev)
