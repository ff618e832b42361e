"""Why a container must not be recreated, or need not: judged before anything is touched.

    its /dev/shm is another's (--ipc host, container:X), or none at all     a size would say nothing
    something is mounted at /dev/shm                                        that mount has the size
    it was started with --rm                                                the engine deletes it when it stops: no way back
    other containers live in its namespaces                                 they would be left in those of a dead one
    keepfed itself runs in it                                               it would end half-way
    somebody else looks after it (`managers`)                               it would be made again as it was

`--ipc shareable` is none of these: the segment is the container's own, and has its size (moby, daemon/container_operations_unix.go,
setupIPCDirs; it is Podman's default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keepfed.recreate.managers import manager_of
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec
from keepfed.recreate.volumes import targets
from keepfed.text import say

SHM = "/dev/shm"  # noqa: S108  # the mount itself is meant


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason."""

    kind: str
    """itself, ipc, mount, auto_remove, dependents, or a manager's kind."""
    message: str
    """What is in the way."""
    next_step: str
    """The way round it."""


def obstacles(
    container: Mapping[str, Any],
    spec: ContainerSpec,
    others: Iterable[Mapping[str, Any]],
    read: Callable[[str], str | None] = lambda _file: None,
    *,
    itself: bool = False,
) -> list[Obstacle]:
    """Everything that is in the way.

    `spec` has the new size; `others` describe the engine's other containers; `read` gives the text of a compose file;
    `itself`: whether keepfed runs in this container.
    """
    found = [
        _itself(spec, itself),
        _manager(container, spec, read),
        _ipc(spec),
        _mounted(spec),
        _auto_remove(spec),
        _dependents(spec, others),
    ]
    return [obstacle for obstacle in found if obstacle is not None]


def runs_inside(identity: str, mountinfo: str) -> bool:
    """Whether this process lives in that container: its host name's file is mounted from the container's own folder.

    On the host the same folder shows too, but at another place. Source: proc_pid_mountinfo(5), fields 4 and 5.
    """
    lines = [line.split() for line in mountinfo.splitlines()]
    return any(len(words) > 4 and words[4] == "/etc/hostname" and identity in words[3] for words in lines)


def notes(spec: ContainerSpec) -> list[str]:
    """What is worth knowing, and in nobody's way."""
    memory = int(spec.host.get("Memory") or 0)
    if memory and spec.shm_bytes > memory:
        return [say("recreate.more_than_memory", size=size_word(spec.shm_bytes), memory=size_word(memory))]
    return []


def _manager(container: Mapping[str, Any], spec: ContainerSpec, read: Callable[[str], str | None]) -> Obstacle | None:
    manager = manager_of(container, spec.shm_bytes, podman=spec.podman, read=read)
    return Obstacle(manager.kind, manager.message, manager.next_step) if manager else None


def _itself(spec: ContainerSpec, itself: bool) -> Obstacle | None:
    if not itself:
        return None
    return Obstacle("itself", say("recreate.itself", name=spec.name), say("recreate.itself_next"))


def _ipc(spec: ContainerSpec) -> Obstacle | None:
    mode = str(spec.host.get("IpcMode") or "")
    if mode == "host":
        return Obstacle("ipc", say("recreate.ipc_host", name=spec.name), say("recreate.ipc_host_next"))
    if mode == "none":
        return Obstacle("ipc", say("recreate.ipc_none", name=spec.name), say("recreate.ipc_none_next"))
    if mode.startswith("container:"):
        other = mode.partition(":")[2]
        shown = other[:12] if len(other) == 64 else other
        text = say("recreate.ipc_container", name=spec.name, other=shown)
        return Obstacle("ipc", text, say("recreate.ipc_container_next", other=shown))
    return None


def _mounted(spec: ContainerSpec) -> Obstacle | None:
    what = targets(spec.host).get(SHM)
    if what is None:
        return None
    return Obstacle("mount", say("recreate.shm_mounted", name=spec.name, what=what), say("recreate.shm_mounted_next"))


def _auto_remove(spec: ContainerSpec) -> Obstacle | None:
    if not spec.host.get("AutoRemove"):
        return None
    return Obstacle(
        "auto_remove", say("recreate.goes_when_stopped", name=spec.name), say("recreate.goes_when_stopped_next")
    )


def _dependents(spec: ContainerSpec, others: Iterable[Mapping[str, Any]]) -> Obstacle | None:
    names = sorted(str(other.get("Name", "")).removeprefix("/") for other in others if _leans_on(other, spec))
    if not names:
        return None
    facts = {"name": spec.name, "others": ", ".join(names)}
    return Obstacle("dependents", say("recreate.leaned_on", **facts), say("recreate.leaned_on_next", **facts))


def _leans_on(other: Mapping[str, Any], spec: ContainerSpec) -> bool:
    host = other.get("HostConfig") or {}
    if other.get("Id") == spec.identity:
        return False
    modes = [str(host.get(f"{kind}Mode") or "") for kind in ("Network", "Ipc", "Pid", "UTS", "Userns")]
    named = {mode.partition(":")[2] for mode in modes if mode.startswith("container:")}
    named |= {str(entry).partition(":")[0] for entry in host.get("VolumesFrom") or ()}
    return any(name and (name == spec.name or spec.identity.startswith(name)) for name in named)
