"""Who else looks after a container: recreated behind that one's back it would be made again with the old size, or twice.

Each of them writes down what it looks after, as labels or as a variable.

Sources: docs.docker.com/compose ("com.docker.compose.*", also written by podman-compose), Docker's swarm mode, Kubernetes'
dockershim and cri-dockerd ("io.kubernetes.*"), podman-generate-systemd(1) and podman-systemd.unit(5) (PODMAN_SYSTEMD_UNIT).
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keepfed.recreate.composed import place_of
from keepfed.recreate.sizes import size_word
from keepfed.text import say

_COMPOSE = "com.docker.compose."
_OTHERS = {
    "com.amazonaws.ecs.task-arn": "Amazon ECS",
    "com.hashicorp.nomad.alloc_id": "Nomad",
    "devcontainer.local_folder": "Dev Containers",
}


@dataclass(frozen=True, slots=True)
class Manager:
    """Whoever looks after a container."""

    kind: str
    """compose, swarm, kubernetes, systemd, pod, or other."""
    message: str
    """Who it is."""
    next_step: str
    """Where the size has to be changed instead."""
    commands: tuple[tuple[str, ...], ...] = ()
    """What does that, where it can be said in commands."""


def _unreadable(_file: str) -> str | None:
    return None


def manager_of(
    container: Mapping[str, Any], size: int, *, podman: bool, read: Callable[[str], str | None] = _unreadable
) -> Manager | None:
    """Who looks after this container, if anybody.

    `size` is what its /dev/shm shall get; `read` gives the text of a compose file on this machine, None where it cannot.
    """
    config = container.get("Config") or {}
    labels = {str(name): str(value) for name, value in (config.get("Labels") or {}).items()}
    name = str(container.get("Name", "")).removeprefix("/")
    if f"{_COMPOSE}service" in labels:
        return _compose(name, labels, size, podman, read)
    if service := labels.get("com.docker.swarm.service.name"):
        return _manager("swarm", name=name, service=service, bytes=size)
    if pod := labels.get("io.kubernetes.pod.name"):
        return _manager("kubernetes", name=name, pod=pod, size=size_word(size))
    if unit := labels.get("PODMAN_SYSTEMD_UNIT"):
        return _manager("systemd", name=name, unit=unit, size=size_word(size))
    if podman and container.get("Pod"):
        return _manager("pod", name=name, pod=str(container["Pod"])[:12], size=size_word(size))
    for label, tool in _OTHERS.items():
        if label in labels:
            return _manager("other", name=name, tool=tool, size=size_word(size))
    return None


def _compose(
    name: str, labels: Mapping[str, str], size: int, podman: bool, read: Callable[[str], str | None]
) -> Manager:
    project, service = labels.get(f"{_COMPOSE}project", ""), labels[f"{_COMPOSE}service"]
    folder = labels.get(f"{_COMPOSE}project.working_dir", "")
    files = [
        posixpath.join(folder, file) for file in labels.get(f"{_COMPOSE}project.config_files", "").split(",") if file
    ]
    place = place_of(service, files, read)
    where = ["--site", f"{place[0]}:{place[1]}", place[0]] if place else files or [folder or "."]
    change = ("keepfed", "set", f"shm_size={size_word(size)}", *where, "--insert")
    tool = ["podman-compose"] if podman and "io.podman.compose.version" in labels else ["docker", "compose"]
    chosen = [word for file in files for word in ("-f", file)]
    if project:
        chosen = ["-p", project, *chosen]
    up = (*tool, *chosen, "up", "-d", service)
    commands = (change, up)
    text = "\n".join(f"    {shlex.join(command)}" for command in commands)
    return Manager(
        "compose",
        say("recreate.managed_compose", name=name, service=service, files=", ".join(files) or folder or "?"),
        say("recreate.managed_compose_next", commands=text),
        commands,
    )


def _manager(kind: str, **facts: object) -> Manager:
    return Manager(kind, say(f"recreate.managed_{kind}", **facts), say(f"recreate.managed_{kind}_next", **facts))
