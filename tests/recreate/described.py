"""Containers as engines describe them.

docker.json has every field that Docker's API 1.51 documents, docker_20.json is a real answer of Docker 20.10.24, podman.json one of
Podman 4.3.1.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).parent / "answers"
PODMAN_IMAGE: dict[str, Any] = {
    "Config": {"Env": None, "Cmd": None, "Entrypoint": None, "WorkingDir": "", "Labels": None}
}


def answer(name: str) -> dict[str, Any]:
    """A stored answer, one's own to change."""
    found: dict[str, Any] = json.loads((ANSWERS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def docker_like(**changes: Any) -> dict[str, Any]:
    """Docker's answer about a plain container; `HostConfig__Memory=1` changes one field of it."""
    full = answer("docker")
    plain: dict[str, Any] = {
        "Id": full["Id"],
        "Name": "/plain",
        "Image": full["Image"],
        "State": {"Status": "running", "Running": True},
        "HostConfig": {"NetworkMode": "bridge", "ShmSize": 64 << 20, "IpcMode": "private", "Runtime": "runc"},
        "Config": {"Image": "busybox:1", "Cmd": ["sleep", "9"], "Hostname": full["Id"][:12], "Env": []},
        "NetworkSettings": {"Networks": {"bridge": {"Aliases": None}}},
        "Mounts": [],
    }
    for path, value in changes.items():
        place = plain
        *parents, last = path.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = copy.deepcopy(value)
    return plain
