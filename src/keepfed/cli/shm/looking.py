"""What there is to know about a /dev/shm: this machine's, a process's, a container's, or the one that files ask for."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from keepfed.engine.client import find_container
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError, UsageError
from keepfed.host.container import read_container
from keepfed.host.memory import read_memory
from keepfed.host.probe import FileSystemUse, live_probe
from keepfed.host.running import Running, read_running
from keepfed.host.shm import Segment, ShmUse, read_shm_use, shares_ours
from keepfed.host.tree import Tree
from keepfed.inside.processes import running_in
from keepfed.knobs.knob import size_bytes
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.knobs.site import Kind, KnobSite
from keepfed.policy.shm import DEFAULT_CONTAINER_BYTES, Loading, Room, Setting
from keepfed.text import say

_IPC_HOST = re.compile(rb"--ipc[= ]\"?host|^\s*ipc:\s*[\"']?host|^\s*hostIPC:\s*true", re.MULTILINE)
_CONTAINERISH = re.compile(
    rb"\b(?:docker|podman|nvidia-docker)\s+(?:container\s+)?run\b|^services:|^\s*kind:\s*(?:Pod|Deployment|Job|StatefulSet)\b|^FROM\s",
    re.MULTILINE,
)
_STARTS = re.compile(r"(?i)(?:\.ya?ml|\.sh|\.bash|\.slurm|\.sbatch|\.mk|makefile|dockerfile[^/]*|justfile|/[^./]+)$")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
_LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_OUT_OF_PLAY = (Kind.RECORD, Kind.DEAD, Kind.OVERRIDDEN, Kind.REFERENCE)


@dataclass(frozen=True, slots=True)
class Looked:
    """All that was found out."""

    kind: str
    """host, pid, container or files."""
    name: str
    """The container's name, the process's number, the paths."""
    setting: Setting
    """Where the program runs, or would."""
    room: Room
    """The /dev/shm."""
    loading: Loading
    """The loaders."""
    use: ShmUse | None = None
    """Who uses it; None where nothing runs, or nothing can be seen."""
    sites: tuple[KnobSite, ...] = ()
    """Where settings of it are written."""
    notes: tuple[str, ...] = ()
    """What else the reader should know, in words."""
    container: str = ""
    """The container around it, as its engine's host calls it; empty where that is not known, or there is none."""


def look_at_host() -> Looked:
    """The /dev/shm that this very command sees. Raises UnreachableError where the system has none by design."""
    if sys.platform != "linux":
        raise UnreachableError(say("shm.only_linux", system=platform.system()), next_step=say("shm.only_linux_next"))
    use = read_shm_use()
    tree = Tree()
    return Looked(
        kind="host",
        name="",
        setting=_around(tree, os.environ, "self"),
        room=_room(use, tree, "self", use.segments),
        loading=_seen(Loading(None), use, None),
        use=use,
        container=_own_container(),
    )


def look_at_pid(pid: int) -> Looked:
    """The /dev/shm of a process, and the loaders of it and of all that it started. Raises UnreachableError."""
    family = read_running(pid)
    members = {one.pid for one in family} | {worker for one in family for worker in one.workers}
    use = read_shm_use(pid)
    own = [segment for segment in use.segments if members & set(segment.holders)]
    return Looked(
        kind="pid",
        name=str(pid),
        setting=_around(Tree(), family[0].environ, str(pid)),
        room=_room(use, Tree(), str(pid), own),
        loading=_seen(_loading(family), use, members),
        use=use,
        container=_container_of(pid),
    )


def look_at_container(name: str) -> Looked:
    """The /dev/shm of a container, which need not run. Raises UnreachableError, UsageError."""
    with find_container(name) as container:
        host = container.detail.get("HostConfig") or {}
        ipc = str(host.get("IpcMode") or "")
        setting = _managed(container)
        notes = [say("shm.note_ipc", mode=ipc)] if ipc.startswith("container:") else []
        configured = int(host.get("ShmSize") or 0) or None
        memory = int(host.get("Memory") or 0) or None
        if not container.running:
            room = Room(there=True, size_bytes=configured, memory_bytes=memory)
            notes.append(say("shm.note_stopped", name=container.name))
            return Looked("container", container.name, setting, room, Loading(None), None, (), tuple(notes))
        return _running_container(container, setting, configured, memory, notes)


def look_at_files(paths: Sequence[str]) -> Looked:
    """The /dev/shm that a program would get from what these files say. Raises UnreachableError."""
    scanned = scan_paths(paths)
    sites = [site for site in scanned.sites if _counts(site)]
    sizes = [site for site in sites if site.knob == "shm_size" and _bytes_of(site) is not None]
    shown = tuple(site for site in sites if site.knob in ("num_workers", "prefetch_factor", "shm_size"))
    loading = Loading(_largest(sites, "num_workers"), _largest(sites, "prefetch_factor"))
    name = " ".join(paths)
    if _asks(scanned, _IPC_HOST):
        here = look_at_host()
        return replace(here, kind="files", name=name, loading=loading, sites=shown, notes=(say("shm.note_ipc_files"),))
    if sizes:
        smallest = min(size for site in sizes if (size := _bytes_of(site)) is not None)
        room, note = Room(there=True, size_bytes=smallest), ""
    elif _asks(scanned, _CONTAINERISH):
        room, note = Room(there=True, size_bytes=DEFAULT_CONTAINER_BYTES), say("shm.note_default")
    else:
        here = look_at_host()
        return replace(
            here, kind="files", name=name, loading=loading, sites=shown, notes=(say("shm.note_this_machine"),)
        )
    return Looked("files", name, Setting.FILES, room, loading, None, shown, (note,) if note else ())


def _running_container(
    container: Container, setting: Setting, configured: int | None, memory: int | None, notes: list[str]
) -> Looked:
    pids = {process.pid for process in container.processes_here()}
    use = read_shm_use(container.pid) if pids else None
    if (use is not None and shares_ours(use)) or (container.detail.get("HostConfig") or {}).get("IpcMode") == "host":
        # Podman calls such a container "shareable"; the mount tells.
        setting = Setting.HOST
        notes.append(say("shm.note_ipc", mode="host"))
    space = use.use if use is not None else None
    if space is None:
        space = _df(container)
        notes.append(say("shm.note_from_outside", name=container.name))
    loading = _seen(_loading(running_in(container)), use, pids)
    room = Room(
        there=space is not None or configured is not None,
        size_bytes=space.size_bytes if space else configured,
        used_bytes=space.used_bytes if space else None,
        loaders_bytes=sum(segment.bytes for segment in use.segments if segment.of_torch) if use else 0,
        inodes_left=_left(space),
        memory_bytes=memory,
    )
    return Looked("container", container.name, setting, room, loading, use, (), tuple(notes))


def _own_container() -> str:
    """What this container is called, if this is one: its host name is the beginning of its ID unless somebody chose another."""
    name = platform.node()
    return name if _SHORT_ID.fullmatch(name) else ""


def _container_of(pid: int) -> str:
    """The beginning of the ID in the names of the control groups of a process."""
    found = _LONG_ID.search(Tree().read(f"/proc/{pid}/cgroup") or "")
    return found[1] if found else ""


def _managed(container: Container) -> Setting:
    labels = (container.detail.get("Config") or {}).get("Labels") or {}
    if any(label.startswith("io.kubernetes.") for label in labels):
        return Setting.KUBERNETES
    composed = ("com.docker.compose.project", "io.podman.compose.project")
    return Setting.COMPOSE if any(label in labels for label in composed) else Setting.CONTAINER


def _loading(family: Sequence[Running]) -> Loading:
    if not family:
        return Loading(None)
    workers = {worker for one in family for worker in one.workers}
    ranks = max((int(one.environ.get("LOCAL_WORLD_SIZE", "1") or 1) for one in family if _is_rank(one)), default=1)
    # No workers now may mean that the program is between two epochs: nothing is concluded from that.
    return Loading(len(workers) or None, gpus=ranks)


def _is_rank(one: Running) -> bool:
    return one.environ.get("LOCAL_WORLD_SIZE", "").isdigit()


def _seen(loading: Loading, use: ShmUse | None, members: set[int] | None) -> Loading:
    """With what shows in /dev/shm: segments of torch (of these processes, or of all), memory files of keepfed's loader."""
    if use is None:
        return loading
    ours = [one for one in use.segments if one.of_torch and (members is None or members & set(one.holders))]
    return replace(
        loading,
        largest_tensor_bytes=max((segment.bytes for segment in ours), default=None),
        keepfed_seen=bool(members and members & set(use.keepfed_processes)),
        workers_without=bool(loading.num_workers and not ours and not use.unseen_processes),
    )


def _around(tree: Tree, environ: Mapping[str, str], pid: str) -> Setting:
    found = read_container(tree, environ, pid)
    if found.kubernetes:
        return Setting.KUBERNETES
    return Setting.CONTAINER if found.kind in ("docker", "podman") else Setting.HOST


def _room(use: ShmUse, tree: Tree, who: str, own: Iterable[Segment]) -> Room:
    memory = read_memory(tree, live_probe(who), who).total.value
    space = use.use
    return Room(
        there=use.filesystem is not None or space is not None,
        size_bytes=space.size_bytes if space else None,
        used_bytes=space.used_bytes if space else None,
        loaders_bytes=sum(segment.bytes for segment in own if segment.of_torch),
        inodes_left=_left(space),
        memory_bytes=int(memory) if memory is not None else None,
    )


def _left(space: FileSystemUse | None) -> int | None:
    if space is None or space.inodes is None:
        return None
    return space.inodes - (space.inodes_used or 0)


def _df(container: Container) -> FileSystemUse | None:
    """Size and use as `df` inside tells them; None where there is no df, or no /dev/shm."""
    try:
        ran = container.run(["df", "-kP", "/dev/shm"])  # noqa: S108  # it is only asked about
    except UnreachableError:
        return None
    words = ran.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
    numbers = [int(word) for word in words[0].split()[1:3] if word.isdigit()] if words else []
    return FileSystemUse(numbers[0] << 10, numbers[1] << 10) if ran.exit_code == 0 and len(numbers) == 2 else None


def _counts(site: KnobSite) -> bool:
    return site.kind not in _OUT_OF_PLAY and site.wins is not False


def _largest(sites: Iterable[KnobSite], knob: str) -> int | None:
    """The largest number that counts: loaders of the same program are often alive at once."""
    numbers = [int(site.value) for site in sites if site.knob == knob and site.value.strip().isdigit()]
    return max(numbers, default=None)


def _bytes_of(site: KnobSite) -> int | None:
    try:
        return size_bytes(site.value)
    except UsageError:
        return None


def _asks(scanned: Scanned, pattern: re.Pattern[bytes]) -> bool:
    for name in scanned.files:
        with suppress(KeyError):  # a text that was not kept
            if _STARTS.search(name) and pattern.search(scanned.files[name].utf8):
                return True
    return False
