"""Where a container engine may listen, and why one that should be there cannot be reached.

"Cannot connect to the Docker daemon" has four causes with four different ways out: nothing is installed, the daemon does not
run, the socket belongs to a group that one is not in, or the engine is a rootless one that listens in one's own folder. The
socket itself tells them apart: ENOENT, ECONNREFUSED, EACCES.

Sources: docs.docker.com "Use the Docker CLI" (DOCKER_HOST, contexts), docker(1) rootless mode ($XDG_RUNTIME_DIR/docker.sock),
Docker Desktop for Linux and macOS (~/.docker/desktop, ~/.docker/run), podman-system-service(1), podman(1) (CONTAINER_HOST).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from keepfed.text import say

CONNECT_S = 5.0
_VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST")


@dataclass(frozen=True, slots=True)
class Address:
    """One place where an engine may listen."""

    url: str
    """As the docker package takes it: `unix:///run/docker.sock`, `tcp://host:2375`, `npipe://...`."""
    source: str
    """Who named it: a variable, "docker context NAME", or "" for one of the usual places."""

    @property
    def path(self) -> str:
        """The socket's path; empty where it is none."""
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}" if parts.scheme in ("unix", "http+unix") else ""

    @property
    def local(self) -> bool:
        """Whether paths and process numbers that this engine names are most likely those of this machine."""
        return bool(self.path) and sys.platform == "linux"


def addresses(environ: Mapping[str, str], home: Path) -> list[Address]:
    """Where to look, in order. One that was named explicitly is the only one."""
    for variable in _VARIABLES:
        if environ.get(variable):
            return [Address(environ[variable].strip(), variable)]
    chosen = _context(environ, home)
    found = [] if chosen is None else [chosen]
    found += [Address(url, "") for url in _usual(environ, home)]
    return list({address.url: address for address in reversed(found)}.values())[::-1]


def why_not(address: Address) -> tuple[str, str]:
    """What is wrong with a socket and what to do about it; ("", "") where somebody answers, or where it is no socket."""
    if not address.path:
        return "", ""
    number = _knock(address.path)
    if number is None:
        return "", ""
    if isinstance(number, PermissionError):
        group = _group(address.path)
        return (
            say("engine.no_permission", path=address.path, group=group),
            say("engine.no_permission_next", group=group),
        )
    if isinstance(number, ConnectionRefusedError):
        return say("engine.nobody_listens", path=address.path), say("engine.start_it")
    if isinstance(number, FileNotFoundError):
        return say("engine.no_socket", path=address.path), say("engine.start_it")
    reason = number.strerror or str(number) or type(number).__name__
    return say("engine.socket_fails", path=address.path, reason=reason), say("engine.start_it")


def nothing_listens() -> tuple[str, str]:
    """What to say when no socket was found at all: nothing is installed, or what is installed does not run."""
    if shutil.which("podman") and not shutil.which("dockerd"):
        return say("engine.podman_sleeps"), say("engine.podman_sleeps_next")
    if shutil.which("docker") or shutil.which("dockerd"):
        return say("engine.docker_sleeps"), say("engine.start_it")
    return say("engine.not_installed"), say("engine.not_installed_next")


def _usual(environ: Mapping[str, str], home: Path) -> list[str]:
    if sys.platform == "win32":
        return ["npipe:////./pipe/docker_engine", "npipe:////./pipe/podman-machine-default"]
    uid = os.getuid()
    own = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return [
        f"unix://{path}"
        for path in (
            "/var/run/docker.sock",
            f"{own}/docker.sock",
            f"{home}/.docker/run/docker.sock",
            f"{home}/.docker/desktop/docker.sock",
            f"{own}/podman/podman.sock",
            "/run/podman/podman.sock",
            f"{home}/.local/share/containers/podman/machine/podman.sock",
            f"{home}/.colima/default/docker.sock",
        )
    ]


def _context(environ: Mapping[str, str], home: Path) -> Address | None:
    """The endpoint of the docker context in use, which the docker command obeys and its Python package does not.

    Contexts are files: ~/.docker/contexts/meta/SHA256-OF-THE-NAME/meta.json (docker/cli, cli/context/store).
    """
    folder = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        name = environ.get("DOCKER_CONTEXT") or json.loads((folder / "config.json").read_bytes())["currentContext"]
        if name and name != "default":
            digest = hashlib.sha256(name.encode()).hexdigest()
            meta = json.loads((folder / "contexts" / "meta" / digest / "meta.json").read_bytes())
            return Address(str(meta["Endpoints"]["docker"]["Host"]), f"docker context {name}")
    return None


def _knock(path: str) -> OSError | None:
    """Connect and leave; the error if that fails."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_S)
        try:
            client.connect(path)
        except OSError as error:
            return error
    return None


def _group(path: str) -> str:
    """Name of the group that may use the socket; its number where it has no name, "?" where it cannot be seen."""
    try:
        number = os.stat(path).st_gid
    except OSError:
        return "?"
    if sys.platform == "win32":
        return str(number)
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
