"""Am I in a container, and in which kind.

There is no call that tells. Each engine leaves a mark: a file, a variable, a name in the paths of the control groups. The first
mark found names the kind; a pod of Kubernetes is one whatever engine runs it.

Sources: moby daemon/initlayer (/.dockerenv), podman-run(1) (/run/.containerenv, container=podman), Kubernetes documentation
"Service: environment variables" and "Accessing the API from a Pod", systemd's Container Interface (container=...), Apptainer
user guide (APPTAINER_CONTAINER), microsoft/WSL#423 (name of the kernel).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from keepfed.host.tree import Tree

_FILES = (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/.singularity.d", "apptainer"))
_VARIABLES = (("APPTAINER_CONTAINER", "apptainer"), ("SINGULARITY_CONTAINER", "apptainer"))
_GROUP_NAMES = (
    (re.compile(r"kubepods"), "kubernetes"),
    (re.compile(r"/docker[/-]"), "docker"),
    (re.compile(r"/libpod[-_/]"), "podman"),
    (re.compile(r"/lxc(?:\.payload)?[./]"), "lxc"),
)
_DECLARED = {"docker": "docker", "podman": "podman", "lxc": "lxc", "lxc-libvirt": "lxc"}
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io"


@dataclass(frozen=True, slots=True)
class Container:
    """The container around a process."""

    kind: str | None
    """docker, podman, kubernetes (engine unknown), lxc, apptainer or other; None when no mark is found."""
    kubernetes: bool
    """Whether it belongs to a pod."""


def read_container(tree: Tree, environ: Mapping[str, str], pid: str = "self") -> Container:
    """Look for the marks of container engines around process `pid`."""
    named = _from_groups(tree.read(f"/proc/{pid}/cgroup") or "")
    pod = "KUBERNETES_SERVICE_HOST" in environ or tree.exists(_SERVICE_ACCOUNT) or named == "kubernetes"
    declared = environ.get("container", "")  # systemd's Container Interface; LXC and Podman set it for every process
    kind = (
        next((kind for path, kind in _FILES if tree.exists(path)), None)
        or next((kind for variable, kind in _VARIABLES if variable in environ), None)
        or named
        or (_DECLARED.get(declared, "other") if declared else None)
        or ("kubernetes" if pod else None)
    )
    return Container(kind, pod)


def read_wsl(kernel: str | None) -> int | None:
    """1 or 2 for the kernels that Microsoft ships: "4.4.0-19041-Microsoft", "5.15.167.4-microsoft-standard-WSL2"."""
    name = (kernel or "").lower()
    if "microsoft" not in name:
        return None
    return 1 if name.startswith("4.4.") and "wsl2" not in name else 2


def _from_groups(text: str) -> str | None:
    return next((kind for pattern, kind in _GROUP_NAMES if pattern.search(text)), None)
