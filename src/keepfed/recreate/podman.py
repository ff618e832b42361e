"""What Podman knows of a container and does not tell in Docker's words: it cannot be carried over through Docker's API, so it is named.

Podman's own API answers beside Docker's on the same socket. A field counts when it differs from what Podman sets by itself.

Source: Podman's API, "Inspect container" (libpod); the defaults are those that Podman 4.3 shows, and containers.conf(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from keepfed.recreate.spec import Uncarried
from keepfed.text import say

PATH = "/v4.0.0/libpod/containers/{identity}/json"
"""Of Podman's own answer about a container; newer versions serve older ones' paths."""

_ENGINES_ANNOTATIONS = ("io.container.", "io.kubernetes.cri-o.", "io.podman.annotations.", "org.opencontainers.image.")
_CONFIG = {
    "Timezone": ("",),
    "Umask": ("", "0022", "0000"),  # 0000 is shown for containers made through Docker's API, which have 0022
    "Timeout": (0,),
    "sdNotifyMode": ("", "container"),
    "HealthcheckOnFailureAction": ("", "none"),
    "Secrets": (),
    "SystemdMode": (False,),
    "ChrootDirs": ("",),
    "StartupHealthCheck": (),
}
_HOST = {"UsernsMode": ("", "host"), "IDMappings": (), "CgroupConf": (), "DiskQuota": (0,)}
_ENGINES_SYSCTLS = {"net.ipv4.ping_group_range"}
_LOG = {"Size": ("", "0B"), "Tag": ("",)}


def unseen(native: Mapping[str, Any]) -> tuple[Uncarried, ...]:
    """What Docker's words leave out of this container."""
    config, host = native.get("Config") or {}, native.get("HostConfig") or {}
    found = [
        *_differing("Config", config, _CONFIG),
        *_differing("HostConfig", host, _HOST),
        *_differing("HostConfig.LogConfig", host.get("LogConfig") or {}, _LOG),
        *_differing("Config.Annotations", _annotations(config), {}),
    ]
    return tuple(Uncarried(path, value, say("recreate.podman_only")) for path, value in found)


def sysctls(runtime: Mapping[str, Any]) -> dict[str, str]:
    """The kernel's settings that somebody asked for, which no inspect of Podman shows.

    `runtime` is what the runtime was told: config.json of the OCI Runtime Specification.
    """
    found = (runtime.get("linux") or {}).get("sysctl") or {}
    return {name: str(value) for name, value in found.items() if name not in _ENGINES_SYSCTLS}


def _differing(
    prefix: str, values: Mapping[str, Any], defaults: Mapping[str, tuple[object, ...]]
) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if defaults and name not in defaults:
            continue
        if value and value not in defaults.get(name, ()):
            yield f"{prefix}.{name}", value if isinstance(value, str) else json.dumps(value)


def _annotations(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those that somebody asked for."""
    found = config.get("Annotations") or {}
    return {name: value for name, value in found.items() if not name.startswith(_ENGINES_ANNOTATIONS)}
