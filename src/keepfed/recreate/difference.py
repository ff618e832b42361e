"""Whether the engine made what it was asked for: the new container's own description against the request.

An engine may pass over what it does not know (Podman behind Docker's API, an older Docker), without an error. What it passed over is
found here by reading the new container as the old one was read. Without its data, its devices or its command a container would
be healthy and wrong: those differences end the matter, while the old one still runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from keepfed.recreate.spec import ContainerSpec, Uncarried, read_spec
from keepfed.recreate.volumes import targets
from keepfed.text import say

_GRAVE = {
    "ShmSize",
    "DeviceRequests",
    "Devices",
    "PortBindings",
    "NetworkMode",
    "IpcMode",
    "Env",
    "Cmd",
    "Entrypoint",
    "User",
}
_NOT_SHOWN_BY_PODMAN = {"Sysctls"}
_BY_TARGET = {"Binds", "Mounts", "Tmpfs"}
_IN_ORDER = {"Cmd", "Entrypoint"}
_SECRET = {"Env"}


def differences(
    spec: ContainerSpec, created: Mapping[str, Any], image: Mapping[str, Any]
) -> tuple[tuple[Uncarried, ...], tuple[Uncarried, ...]]:
    """What the engine did not take over: what makes the new container useless, and the rest."""
    found = read_spec(created, image, podman=spec.podman)
    grave = [*_mounts(spec, found)]
    light: list[Uncarried] = []
    for prefix, wanted, got in (("HostConfig", spec.host, found.host), ("Config", spec.config, found.config)):
        for name in wanted:
            ordered = name in _IN_ORDER and wanted[name] != got.get(name)
            if name in _BY_TARGET or (spec.podman and name in _NOT_SHOWN_BY_PODMAN):
                continue
            if ordered or not _same(wanted[name], got.get(name)):
                shown = "***" if name in _SECRET else json.dumps(wanted[name])
                why = say("recreate.engine_made", value="***" if name in _SECRET else json.dumps(got.get(name)))
                (grave if name in _GRAVE else light).append(Uncarried(f"{prefix}.{name}", shown, why))
    light += _endpoints(spec, found)
    return tuple(grave), tuple(light)


def _mounts(spec: ContainerSpec, found: ContainerSpec) -> Iterator[Uncarried]:
    wanted, got = targets(spec.host), targets(found.host)
    for target, source in wanted.items():
        here = got.get(target)
        if here is None or (here != source and not {here.split()[0], source.split()[0]} <= {"tmpfs"}):
            yield Uncarried(f"Mounts.{target}", source, say("recreate.engine_made", value=here or "-"))


def _endpoints(spec: ContainerSpec, found: ContainerSpec) -> Iterator[Uncarried]:
    got = {endpoint.network: endpoint for endpoint in found.endpoints}
    for endpoint in spec.endpoints:
        here = got.get(endpoint.network)
        for name, value in endpoint.settings.items():
            if here is None or not _same(value, here.settings.get(name)):
                shown = None if here is None else here.settings.get(name)
                path = f"NetworkSettings.Networks.{endpoint.network}.{name}"
                yield Uncarried(path, json.dumps(value), say("recreate.engine_made", value=json.dumps(shown)))


def _same(wanted: Any, got: Any) -> bool:
    """Equal, whatever the order of a list; a map may have gained entries."""
    if isinstance(wanted, Mapping):
        return isinstance(got, Mapping) and all(_same(value, got.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(got, list) and {_key(one) for one in wanted} <= {_key(one) for one in got}
    return bool(wanted == got) or (not wanted and not got)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
