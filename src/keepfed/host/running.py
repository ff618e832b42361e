"""What a live program was started with: command line, environment, cores, shared memory, and the loader workers that it has now.

What a file says and what a process does differ as soon as somebody edits the file, gives an option by hand, or starts the
program from another folder. The process itself knows, and the kernel shows it to its owner without asking the program:

    /proc/PID/cmdline    the options as they were really given
    /proc/PID/environ    the variables at the start; what the program sets in itself afterwards is not in there
    /proc/PID/status     Cpus_allowed_list: the cores that it may use
    /proc/PID/root       its own view of the file system, with its /dev/shm, also from outside of its container
    /proc/*/stat         who is whose child

Workers are told from other children by what they are: torch names them `pt_data_worker` since 2.5; before that, a worker
is a fork with the very command line of its trainer, or what multiprocessing's spawn and forkserver start. Any Python and any
torch will do, since nothing of them is imported. Sources: proc_pid_cmdline(5), proc_pid_environ(5), proc_pid_stat(5),
torch/utils/data/_utils/worker.py, Lib/multiprocessing/spawn.py and forkserver.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keepfed.errors import UnreachableError
from keepfed.heartbeat import read_folder
from keepfed.host.cgroups import parse_mounts
from keepfed.host.limits import parse_cpu_list
from keepfed.host.ranks import whole_number
from keepfed.host.tree import Tree
from keepfed.text import say

_WORKER_NAME = "pt_data_worker"
_NURSERY_NAME = "keepfed-nursery"
_PYTHON = re.compile(r"(?i)python[\d.]*|pypy[\d.]*|pt_main_thread")
_RUN_VARIABLE = "KEEPFED_RUN"
_SHM = "dev/shm"
_MOST_FAMILY = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """One live process, as the kernel shows it."""

    pid: int
    """Its number, as the host counts it."""
    argv: tuple[str, ...]
    """Its command line, word for word."""
    environ: Mapping[str, str]
    """Its environment at the start; empty where it may not be read."""
    cwd: str
    """The folder it stands in, in its own view of the file system; "" when unknown."""
    cores: int | None
    """How many CPUs it may use (affinity and cpuset)."""
    shm_bytes: int | None
    """Size of its own /dev/shm; None when there is none, or it may not be looked at."""
    workers: tuple[int, ...] = ()
    """Its live loader workers, of all its loaders together."""
    named: bool = False
    """Whether the workers say themselves that they are a loader's; otherwise they are forks of it that look like that."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A process as the table of all of them shows it."""

    pid: int
    parent: int
    name: str
    children: list[_Entry] = field(default_factory=list, compare=False)


def read_running(pid: int, tree: Tree | None = None) -> tuple[Running, ...]:
    """The process and all that it started, workers left out: a trainer is often the child of a shell or of torchrun.

    The process that was named comes first; then the others, parents before their children. Raises UnreachableError where
    there is no such process, where it has ended and waits for its parent, and where its owner is somebody else.
    """
    tree = tree or Tree()
    _check(tree, pid)
    entries = _table(tree)
    if pid not in entries:
        raise UnreachableError(say("host.pid_gone", pid=pid), next_step=say("host.pid_gone_next"))
    workers: dict[int, tuple[list[int], bool]] = {}
    family = [pid]
    for member in family:  # grows while it is walked
        found, named, others = _sorted_children(tree, entries[member])
        workers[member] = found, named
        family.extend(others[: _MOST_FAMILY - len(family)])
    beats = _beats(tree, family)
    return tuple(_read(tree, one, *_counted(one, workers[one], beats)) for one in family)


def _check(tree: Tree, pid: int) -> None:
    """Raise UnreachableError with the reason where the process cannot be looked at."""
    if not tree.exists("/proc/self/stat") and not tree.folders("/proc"):
        raise UnreachableError(say("host.pid_no_proc", pid=pid), next_step=say("host.pid_no_proc_next"))
    status = tree.read(f"/proc/{pid}/status") if pid > 0 else None
    if status is None:
        raise UnreachableError(say("host.pid_gone", pid=pid), next_step=say("host.pid_gone_next"))
    if re.search(r"^State:\s+[ZX]", status, re.MULTILINE):
        raise UnreachableError(say("host.pid_ended", pid=pid), next_step=say("host.pid_gone_next"))
    if tree.read(f"/proc/{pid}/environ", 1) is None:
        uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        owner = _user(int(uid[1])) if uid else "?"
        raise UnreachableError(say("host.pid_foreign", pid=pid, owner=owner), next_step=say("host.pid_foreign_next"))


def _user(uid: int) -> str:
    try:
        import pwd
    except ImportError:  # Windows
        return str(uid)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _table(tree: Tree) -> dict[int, _Entry]:
    """All processes, each with its children, in the order in which they are numbered."""
    entries: dict[int, _Entry] = {}
    for name in tree.folders("/proc"):
        stat = tree.read(f"/proc/{name}/stat") if name.isdigit() else None
        if stat is None or "(" not in stat:
            continue
        head, _, rest = stat.rpartition(")")  # a name may hold spaces and brackets
        fields = rest.split()
        if len(fields) > 1 and fields[0] not in "ZX":
            entries[int(name)] = _Entry(int(name), int(fields[1]), head.partition("(")[2])
    for entry in sorted(entries.values(), key=lambda entry: entry.pid):
        if entry.parent in entries and entry.parent != entry.pid:
            entries[entry.parent].children.append(entry)
    return entries


def _sorted_children(tree: Tree, entry: _Entry) -> tuple[list[int], bool, list[int]]:
    """The loader workers among the children, whether they name themselves so, and the other children."""
    named = [child.pid for child in entry.children if child.name == _WORKER_NAME]
    nursery = [child for child in entry.children if child.name == _NURSERY_NAME]
    if named or nursery:
        below = [leaf for child in nursery for leaf in _leaves(child)]
        known = {*named, *(child.pid for child in nursery)}
        return named + below, True, [child.pid for child in entry.children if child.pid not in known]
    alike = [child for child in entry.children if _is_python(tree, entry) and _starts_workers(tree, entry, child)]
    workers: list[int] = []
    trainers: list[int] = []
    for child in alike:
        if child.children and (len(alike) == 1 or _is_server(tree, child)):
            workers.extend(_leaves(child))  # the process from which this loader forks its workers
        else:
            # A worker hardly ever has children; a rank that torch.multiprocessing.spawn started has its workers.
            (trainers if child.children else workers).append(child.pid)
    return workers, False, trainers + [child.pid for child in entry.children if child not in alike]


def _leaves(entry: _Entry) -> list[int]:
    """The processes below one that have none below themselves."""
    return [leaf for child in entry.children for leaf in (_leaves(child) if child.children else [child.pid])]


def _is_python(tree: Tree, entry: _Entry) -> bool:
    """Whether this process can have torch's workers at all: a shell forks copies of itself, too."""
    return any(_PYTHON.match(Path(name).name) for name in (_executable(tree, entry.pid), entry.name))


def _starts_workers(tree: Tree, parent: _Entry, child: _Entry) -> bool:
    """Whether a child is a fork of its parent, or what multiprocessing starts to run Python in."""
    words = _words(tree, child.pid)
    if words and words == _words(tree, parent.pid):
        return _executable(tree, child.pid) == _executable(tree, parent.pid)
    return any("spawn_main(" in word for word in words) or _is_server(tree, child)


def _is_server(tree: Tree, entry: _Entry) -> bool:
    return any("multiprocessing.forkserver" in word for word in _words(tree, entry.pid))


def _words(tree: Tree, pid: int) -> tuple[str, ...]:
    text = tree.read(f"/proc/{pid}/cmdline") or ""
    return tuple(text.removesuffix("\0").split("\0")) if text else ()


def _executable(tree: Tree, pid: int) -> str:
    return tree.resolve(f"/proc/{pid}/exe") if tree.exists(f"/proc/{pid}/exe") else ""


def _beats(tree: Tree, family: Iterable[int]) -> dict[int, list[int]]:
    """The workers of programs that keepfed started, by trainer: each worker says itself whose it is."""
    found: dict[int, list[int]] = {}
    for folder in {_environ(tree, pid).get(_RUN_VARIABLE, "") for pid in family} - {""}:
        for trainer, rows in read_folder(Path(folder)).items():
            found[trainer] = [row.pid for row in rows if tree.exists(f"/proc/{row.pid}/stat")]
    return found


def _counted(pid: int, seen: tuple[list[int], bool], beats: Mapping[int, list[int]]) -> tuple[tuple[int, ...], bool]:
    """The workers of one process: as they say themselves, else as they look."""
    if beats.get(pid):
        return tuple(beats[pid]), True
    return tuple(seen[0]), seen[1]


def _environ(tree: Tree, pid: int) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in (tree.read(f"/proc/{pid}/environ") or "").split("\0"))
    return {name: value for name, joint, value in pairs if joint}


def _read(tree: Tree, pid: int, workers: tuple[int, ...], named: bool) -> Running:
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", tree.read(f"/proc/{pid}/status") or "", re.MULTILINE)
    cores = len(parse_cpu_list(allowed[1])) if allowed else 0
    return Running(
        pid=pid,
        argv=_words(tree, pid),
        environ=_environ(tree, pid),
        cwd=_cwd(tree, pid),
        cores=cores or None,
        shm_bytes=shm_bytes(pid, tree),
        workers=workers,
        named=named,
    )


def _cwd(tree: Tree, pid: int) -> str:
    try:
        return os.readlink(tree.at(f"/proc/{pid}/cwd"))
    except OSError:
        return ""


def shm_bytes(pid: int, tree: Tree | None = None) -> int | None:
    """Size of the /dev/shm that process `pid` sees: statvfs(3) through its root, else what its mount table says."""
    tree = tree or Tree()
    mounts = parse_mounts(tree.read(f"/proc/{pid}/mountinfo") or "")
    shm = [mount for mount in mounts if mount.point.rstrip("/") == f"/{_SHM}"]
    if mounts and not shm:
        return None
    try:
        answer = os.statvfs(tree.at(f"/proc/{pid}/root/{_SHM}"))
        return answer.f_blocks * answer.f_frsize
    except (OSError, AttributeError):  # no statvfs on Windows
        return _size_option(shm[-1].options) if shm else None


def _size_option(options: Sequence[str]) -> int | None:
    """The size in a tmpfs's mount options, where the kernel writes it in KiB: `size=65536k`."""
    for option in options:
        if option.startswith("size="):
            number = whole_number(option[5:].removesuffix("k"))
            return None if number is None else number * (1024 if option.endswith("k") else 1)
    return None
