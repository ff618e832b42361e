"""What makes a container this one: read from the engine's own answers, and nothing that it would fill in by itself.

    inspect of the container ─┐
                              ├─ read_spec ─► ContainerSpec ─► request    what `create` takes
    inspect of its image ─────┘                            ├─► flags      the words of `docker run`
                                                           └─► compose    a service of a compose file

inspect and create speak of the same structures, so a spec keeps the engine's own names and values, and drops three kinds of
them: what the image brings (else an update of the image would never get through), what the engine chose (host name, address), and
what says that nothing was asked. What then remains is what somebody wanted, whether we know the field or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keepfed.recreate.fields import CONFIG, HOST, Fate, Field, asked
from keepfed.recreate.networks import Endpoint, read_endpoints, shares_namespace
from keepfed.recreate.volumes import with_volumes_named
from keepfed.text import say

SHORT_ID = 12
_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Uncarried:
    """Something that the new container will not have from the old one."""

    field: str
    """Where inspect shows it: "HostConfig.LogConfig"."""
    value: str
    """What the old one has."""
    why: str
    """Why it cannot be carried over, in words."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container, as somebody wanted it."""

    name: str
    """Without the leading slash."""
    identity: str
    """The old container's ID."""
    image: str
    """What to create from: the name that was used, or the image's ID where that name means another image by now."""
    image_id: str
    """The image itself."""
    podman: bool
    """Whether Podman answered."""
    config: Mapping[str, Any]
    """Under the names of `Config`: what was asked for, image and engine taken out."""
    host: Mapping[str, Any]
    """Under the names of `HostConfig`: what was asked for."""
    endpoints: tuple[Endpoint, ...]
    """The networks; the first one is that of `NetworkMode`."""
    check: tuple[str, ...] = ()
    """The health check in force, the image's included: ("CMD-SHELL", "curl ..."); empty for none."""
    uncarried: tuple[Uncarried, ...] = ()
    """What no way of recreating it can carry over."""

    @property
    def shm_bytes(self) -> int:
        """The size of /dev/shm."""
        return int(self.host.get("ShmSize") or 0)

    @property
    def environment(self) -> tuple[str, ...]:
        """NAME=VALUE; a bare NAME takes a variable of the image away."""
        return tuple(self.config.get("Env") or ())

    @property
    def command(self) -> tuple[list[str] | None, list[str] | None]:
        """Entrypoint and command; None where the image's is meant, [] where there shall be none."""
        entrypoint, command = self.config.get("Entrypoint"), self.config.get("Cmd")
        return (None if entrypoint is None else [word for word in entrypoint if word]), command

    def with_shm(self, size_bytes: int) -> ContainerSpec:
        """The same with a /dev/shm of this size."""
        return replace(self, host={**self.host, "ShmSize": size_bytes})


def read_spec(
    container: Mapping[str, Any], image: Mapping[str, Any], *, image_name: str = "", podman: bool | None = None
) -> ContainerSpec:
    """A container from the engine's answers about it and about the image that it was made of.

    `image_name`: what to create from, if not the name that the container was made with. `podman`: which engine answered; None
    finds out by the paths in the answer.
    """
    podman = looks_like_podman(container) if podman is None else podman
    config, host = dict(container.get("Config") or {}), dict(container.get("HostConfig") or {})
    mode, endpoints = read_endpoints(container, host, config, podman=podman)
    host = with_volumes_named({**host, "NetworkMode": mode}, container.get("Mounts") or ())
    brought = dict(image.get("Config") or {})
    identity = str(container.get("Id", ""))
    return ContainerSpec(
        name=str(container.get("Name", "")).removeprefix("/"),
        identity=identity,
        image=image_name or str(config.get("Image") or container.get("Image") or ""),
        image_id=str(container.get("Image", "")),
        podman=podman,
        config=_config(config, brought, host, identity, podman),
        host=_host(host, podman),
        endpoints=endpoints,
        check=_check(config.get("Healthcheck") or {}),
        uncarried=tuple(_chosen_by_engine(host, container)),
    )


def looks_like_podman(container: Mapping[str, Any]) -> bool:
    """Whether Podman wrote this answer: it keeps a container's files in places of its own."""
    kept = f"{container.get('ResolvConfPath')} {container.get('HostsPath')} {container.get('LogPath')}"
    return "overlay-containers" in kept or "/containers/storage/" in kept or container.get("Path") == "/run/podman-init"


def _host(host: Mapping[str, Any], podman: bool) -> dict[str, Any]:
    kept = _kept(host, HOST, podman)
    if kept.get("NanoCpus"):
        # Podman shows --cpus in both ways and takes only one of them.
        kept.pop("CpuQuota", None)
        kept.pop("CpuPeriod", None)
    if "Ulimits" in kept:
        kept["Ulimits"] = [{**limit, "Name": _limit_name(str(limit["Name"]))} for limit in kept["Ulimits"]]
    if "Devices" in kept:
        # Podman shows no rights and takes no empty ones; these are everybody's default.
        kept["Devices"] = [
            {**one, "CgroupPermissions": one.get("CgroupPermissions") or "rwm"} for one in kept["Devices"]
        ]
    if "Links" in kept:
        kept["Links"] = [_link(str(link)) for link in kept["Links"]]
    policy = kept.get("RestartPolicy") or {}
    if policy.get("Name") in (None, "", "no"):
        kept.pop("RestartPolicy", None)
    if podman and kept.get("LogConfig") == {"Type": "json-file", "Config": None}:
        kept.pop("LogConfig")  # this is how Podman calls its default
    if isinstance(kept.get("LogConfig"), Mapping) and not kept["LogConfig"].get("Type"):
        kept.pop("LogConfig")
    if "ShmSize" not in kept:
        kept["ShmSize"] = int(host.get("ShmSize") or 0)
    return kept


def _config(
    config: Mapping[str, Any], brought: Mapping[str, Any], host: Mapping[str, Any], identity: str, podman: bool
) -> dict[str, Any]:
    kept = _kept(config, CONFIG, podman)
    for name in ("Image", "Entrypoint", "Cmd", "MacAddress"):
        kept.pop(name, None)
    kept |= _command(config, brought)
    for name in ("User", "WorkingDir", "StopSignal"):
        if _same(config.get(name), brought.get(name)) or (name == "WorkingDir" and config.get(name) == "/"):
            kept.pop(name, None)
    if podman and str(brought.get("WorkingDir") or "/") != "/" and config.get("WorkingDir") == "/":
        kept["WorkingDir"] = "/"
    if config.get("Hostname") == identity[:SHORT_ID] or host.get("UTSMode") == "host" or shares_namespace(host):
        kept.pop("Hostname", None)
    for name, value in (
        ("Env", _environment(config, brought, podman)),
        ("Labels", _less(config.get("Labels"), brought.get("Labels"))),
        ("ExposedPorts", _ports(config, brought, host)),
    ):
        kept.pop(name, None)
        if value:
            kept[name] = value
    if _check_is_the_images(config.get("Healthcheck") or {}, brought.get("Healthcheck") or {}):
        kept.pop("Healthcheck", None)
    return kept


def _kept(values: Mapping[str, Any], table: Mapping[str, Field], podman: bool) -> dict[str, Any]:
    """What was asked for; a field that the table does not know is kept if it says anything."""
    unknown = Field()
    return {
        name: value
        for name, value in values.items()
        if table.get(name, unknown).fate is Fate.CARRIED and asked(table.get(name, unknown), value, podman=podman)
    }


def _command(config: Mapping[str, Any], brought: Mapping[str, Any]) -> dict[str, Any]:
    """Entrypoint and command, where they are not the image's.

    A new entrypoint makes the engine forget the image's command, so both go together; [""] is how one says "none".
    """
    entrypoint, command = _words(config.get("Entrypoint")), _words(config.get("Cmd"))
    if entrypoint == _words(brought.get("Entrypoint")):
        return {} if command == _words(brought.get("Cmd")) else {"Cmd": command}
    return {"Entrypoint": entrypoint or [""], "Cmd": command}


def _words(value: object) -> list[str]:
    """A list of words; Podman has had a string there."""
    if isinstance(value, str):
        return value.split()
    words = [str(word) for word in value] if isinstance(value, Sequence) else []
    return [] if words == [""] else words


def _environment(config: Mapping[str, Any], brought: Mapping[str, Any], podman: bool) -> list[str]:
    """Variables that are not the image's; of Podman's answers without those that Podman sets in every container."""
    set_by_engine = set(brought.get("Env") or ())
    if podman:
        hostname = f"HOSTNAME={config.get('Hostname')}"
        set_by_engine |= {
            "container=podman",
            "container=oci",
            "TERM=xterm",
            "HOME=/root",
            "HOME=/",
            _DEFAULT_PATH,
            hostname,
        }
    found = dict.fromkeys(str(entry) for entry in config.get("Env") or ())
    return [entry for entry in found if entry not in set_by_engine]


def _less(values: Mapping[str, Any] | None, brought: Mapping[str, Any] | None) -> dict[str, Any]:
    image = brought or {}
    return {name: value for name, value in (values or {}).items() if image.get(name) != value or name not in image}


def _ports(config: Mapping[str, Any], brought: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, Any]:
    """Ports that are open to other containers: less the image's, but with those that are published, which belong here too."""
    published = host.get("PortBindings") or {}
    exposed = config.get("ExposedPorts") or {}
    image = brought.get("ExposedPorts") or {}
    return {port: {} for port in exposed if port not in image or port in published}


def _check(found: Mapping[str, Any]) -> tuple[str, ...]:
    test = tuple(str(word) for word in found.get("Test") or ())
    return () if test[:1] in ((), ("NONE",)) else test


def _check_is_the_images(check: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether a health check is the image's own; Podman adds the times that it uses."""
    asked_for = {name: value for name, value in image.items() if value}
    return bool(asked_for) and all(check.get(name) == value for name, value in asked_for.items())


def _same(value: object, brought: object) -> bool:
    return bool(brought) and str(value) == str(brought)


def _limit_name(name: str) -> str:
    return name.removeprefix("RLIMIT_").lower()


def _link(shown: str) -> str:
    """`--link db:store` is shown as "/db:/trainer/store".

    >>> _link("/db:/trainer/store")
    'db:store'
    """
    other, _, alias = shown.partition(":")
    return f"{other.removeprefix('/')}:{alias.rpartition('/')[2]}" if alias else other.removeprefix("/")


def _chosen_by_engine(host: Mapping[str, Any], container: Mapping[str, Any]) -> list[Uncarried]:
    """Host ports that the engine chose: it will choose others."""
    bound = (container.get("NetworkSettings") or {}).get("Ports") or {}
    left = []
    for port, bindings in (host.get("PortBindings") or {}).items():
        if any(str(binding.get("HostPort") or "0") == "0" for binding in bindings or ()):
            now = ", ".join(
                str(binding.get("HostPort")) for binding in bound.get(port) or () if binding.get("HostPort")
            )
            left.append(Uncarried(f"HostConfig.PortBindings.{port}", now, say("recreate.port_chosen_by_engine")))
    return left
