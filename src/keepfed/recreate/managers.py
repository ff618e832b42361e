"""Who else looks after a container: recreated behind that one's back it would be made again with the old size, or twice.

Each of them writes down what it looks after, as labels or as a variable.

Sources: docs.docker.com/compose ("com.docker.compose.*", also written by podman-compose), Docker's swarm mode, Kubernetes'
dockershim and cri-dockerd ("io.kubernetes.*"), podman-generate-systemd(1) and podman-systemd.unit(5) (PODMAN_SYSTEMD_UNIT).
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepfed.recreate.sizes import size_word
from keepfed.text import say

_COMPOSE = "com.docker.compose."


@dataclass(frozen=True, slots=True)
class Manager:
    """Whoever looks after a container."""

    kind: str
    """compose, swarm, kubernetes, systemd or pod."""
    message: str
    """Who it is."""
    next_step: str
    """Where the size has to be changed instead."""
    commands: tuple[tuple[str, ...], ...] = ()
    """What does that, where it can be said in commands."""


def manager_of(container: Mapping[str, Any], size: int, *, podman: bool) -> Manager | None:
    """Who looks after this container, if anybody; `size` is what its /dev/shm shall get."""
    config = container.get("Config") or {}
    labels = {str(name): str(value) for name, value in (config.get("Labels") or {}).items()}
    name = str(container.get("Name", "")).removeprefix("/")
    if f"{_COMPOSE}service" in labels:
        return _compose(name, labels, size, podman)
    if service := labels.get("com.docker.swarm.service.name"):
        return _manager("swarm", name=name, service=service, bytes=size)
    if pod := labels.get("io.kubernetes.pod.name"):
        return _manager("kubernetes", name=name, pod=pod, size=size_word(size))
    if unit := labels.get("PODMAN_SYSTEMD_UNIT"):
        return _manager("systemd", name=name, unit=unit, size=size_word(size))
    if podman and container.get("Pod"):
        return _manager("pod", name=name, pod=str(container["Pod"])[:12], size=size_word(size))
    return None


def _compose(name: str, labels: Mapping[str, str], size: int, podman: bool) -> Manager:
    project, service = labels.get(f"{_COMPOSE}project", ""), labels[f"{_COMPOSE}service"]
    folder = labels.get(f"{_COMPOSE}project.working_dir", "")
    files = [
        posixpath.join(folder, file) for file in labels.get(f"{_COMPOSE}project.config_files", "").split(",") if file
    ]
    change = ("keepfed", "set", f"shm_size={size_word(size)}", *(files or [folder or "."]), "--insert")
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
