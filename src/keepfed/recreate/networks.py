"""The networks that a container is in: names, aliases, and the addresses that were asked for.

inspect mixes what was asked for with what the network gave: an address under IPAMConfig is a wish, the one beside it a fact that
another container may have tomorrow. The short ID among the aliases is the old container's own, and would point to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEFAULT_MODES = {"", "default", "bridge"}
_DEFAULT_NETWORKS = {"bridge", "podman"}
_SHORT_ID = 12


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One network of a container."""

    network: str
    """Its name."""
    settings: Mapping[str, Any]
    """What was asked for, under the names of the API's EndpointSettings: Aliases, IPAMConfig, Links, DriverOpts, ..."""

    @property
    def aliases(self) -> list[str]:
        """Further names of the container in this network."""
        return list(self.settings.get("Aliases") or ())

    @property
    def addresses(self) -> Mapping[str, Any]:
        """IPv4Address, IPv6Address, LinkLocalIPs that were asked for."""
        return self.settings.get("IPAMConfig") or {}


def shares_namespace(host: Mapping[str, Any]) -> bool:
    """Whether the network is another container's."""
    return str(host.get("NetworkMode") or "").startswith(("container:", "ns:"))


def network_mode(host: Mapping[str, Any]) -> str:
    """The network as `docker run --network` takes it; empty for the engine's own choice."""
    mode = str(host.get("NetworkMode") or "")
    return "" if mode in _DEFAULT_MODES else mode


def read_endpoints(
    container: Mapping[str, Any], host: Mapping[str, Any], config: Mapping[str, Any], *, podman: bool
) -> tuple[str, tuple[Endpoint, ...]]:
    """NetworkMode, corrected, and the networks, that of NetworkMode first.

    Podman says "bridge" whatever network it is; then the first one that is not its default stands for it.
    """
    mode = str(host.get("NetworkMode") or "")
    joined = (container.get("NetworkSettings") or {}).get("Networks") or {}
    if mode in {"host", "none"} or shares_namespace(host):
        return mode, ()
    first = _first(mode, joined)
    if first is None:
        return mode, ()
    names = [first, *(name for name in joined if name != first)]
    identity = str(container.get("Id", ""))
    endpoints = tuple(Endpoint(name, _asked_for(joined[name] or {}, identity, config, podman=podman)) for name in names)
    is_default = mode in _DEFAULT_MODES and first in _DEFAULT_NETWORKS
    return (mode if is_default else first), endpoints


def _first(mode: str, joined: Mapping[str, Any]) -> str | None:
    for name, settings in joined.items():
        if mode == name or (mode and mode == (settings or {}).get("NetworkID")):
            return name
    if mode in _DEFAULT_MODES:
        return next((name for name in joined if name in _DEFAULT_NETWORKS), next(iter(joined), None))
    return next(iter(joined), None)


def _hardware_address(settings: Mapping[str, Any], config: Mapping[str, Any], *, podman: bool) -> str | None:
    """The one that was asked for, as far as that can be told.

    Until Docker 25 `Config.MacAddress` says what was asked for; since then only the one in use is shown. Docker up to 27 made
    its own of the address: 02:42 and four bytes; any other is kept, since licences are bound to them. Podman's are random.
    """
    found = str(settings.get("MacAddress") or "")
    if found and found == config.get("MacAddress"):
        return found
    parts = str(settings.get("IPAddress") or "").split(".")
    made = ":".join(["02", "42", *(f"{int(part):02x}" for part in parts)]) if len(parts) == 4 else ""
    return found if found and made and found != made and not podman else None


def _asked_for(
    settings: Mapping[str, Any], identity: str, config: Mapping[str, Any], *, podman: bool
) -> dict[str, Any]:
    aliases = [alias for alias in settings.get("Aliases") or () if alias != identity[:_SHORT_ID]]
    addresses = {name: value for name, value in (settings.get("IPAMConfig") or {}).items() if value}
    found = {
        "Aliases": aliases,
        "IPAMConfig": addresses,
        "Links": settings.get("Links"),
        "DriverOpts": settings.get("DriverOpts"),
        "GwPriority": settings.get("GwPriority"),
        "MacAddress": _hardware_address(settings, config, podman=podman),
    }
    return {name: value for name, value in found.items() if value}
