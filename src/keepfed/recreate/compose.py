"""A spec as a compose file with one service, for those who would rather keep it written down.

Volumes and networks exist already, so they are external: compose shall neither make others nor remove these. Compose replaces
`$NAME` in every string, so each `$` is doubled. The variables go to a file of their own, since a compose file is what people commit.

Source: the Compose Specification (github.com/compose-spec/compose-spec, 05-services.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from keepfed.recreate.fields import CONFIG, HOST, Field, Shape
from keepfed.recreate.flags import MASKED_BY_DEFAULT, cpus_word, device_word, duration, policy_word, published
from keepfed.recreate.networks import Endpoint, network_mode
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec, Uncarried
from keepfed.recreate.volumes import read_bind
from keepfed.text import say

_SIZES = {"ShmSize", "Memory", "MemoryReservation", "MemorySwap"}
_BY_HAND_ELSEWHERE = {"Env", "Cmd", "Entrypoint", "MacAddress", "NetworkMode", "ReadonlyPaths", "Image"}
_BLOCK_IO = {
    "BlkioDeviceReadBps": "device_read_bps",
    "BlkioDeviceReadIOps": "device_read_iops",
    "BlkioDeviceWriteBps": "device_write_bps",
    "BlkioDeviceWriteIOps": "device_write_iops",
}


def compose_file(spec: ContainerSpec, env_file: str) -> tuple[str, tuple[Uncarried, ...]]:
    """The text of the file, and what it cannot say. `env_file` is how it names the file of variables; empty for none."""
    import yaml

    document, left = compose_document(spec, env_file)
    text = yaml.safe_dump(_escaped(document), sort_keys=False, allow_unicode=True, width=1000, default_flow_style=False)
    return f"# {say('recreate.compose_header', name=spec.name)}\n{text}", left


def compose_document(spec: ContainerSpec, env_file: str) -> tuple[dict[str, Any], tuple[Uncarried, ...]]:
    """The same as plain data, before `$` is doubled."""
    service: dict[str, Any] = {"image": spec.image, "container_name": spec.name}
    left: list[Uncarried] = []
    for table, prefix, values in ((HOST, "HostConfig", spec.host), (CONFIG, "Config", spec.config)):
        for name, value in values.items():
            _say(service, left, table.get(name, Field()), name, f"{prefix}.{name}", value)
    entrypoint, command = spec.command
    service |= {} if entrypoint is None else {"entrypoint": entrypoint}
    service |= {} if command is None else {"command": command}
    service |= {"env_file": [env_file]} if env_file else {}
    document: dict[str, Any] = {"services": {spec.name: service}}
    if volumes := _volume_names(spec.host):
        document["volumes"] = {name: {"external": True, "name": name} for name in volumes}
    document |= _networks(spec, service)
    return document, tuple(left)


def _say(service: dict[str, Any], left: list[Uncarried], field: Field, name: str, path: str, value: Any) -> None:
    if name in _BY_HAND_ELSEWHERE:
        return
    if name in _OWN:
        service |= _merged(service, _OWN[name](value))
    elif name == "MaskedPaths":
        if not value:
            service |= _merged(service, {"security_opt": ["systempaths=unconfined"]})
        elif MASKED_BY_DEFAULT not in value:
            left.append(Uncarried(path, json.dumps(value), say("recreate.no_key")))
    elif name in _BLOCK_IO:
        rates = [{"path": one["Path"], "rate": one["Rate"]} for one in value]
        service |= _merged(service, {"blkio_config": {_BLOCK_IO[name]: rates}})
    elif not field.compose:
        text = value if isinstance(value, str) else json.dumps(value)
        key = "recreate.auto_remove" if name == "AutoRemove" else "recreate.no_key"
        left.append(Uncarried(path, text, say(key)))
    elif field.shape is Shape.SWITCH:
        service[field.compose] = True
    elif field.shape is Shape.MAP:
        service[field.compose] = {key: str(one) for key, one in value.items()}
    else:
        service[field.compose] = size_word(value) if name in _SIZES else value


def _merged(service: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more`, with what stands in the same lists and maps already."""
    merged: dict[str, Any] = {}
    for key, value in more.items():
        before = service.get(key)
        if isinstance(before, list):
            merged[key] = [*before, *value]
        elif isinstance(before, dict):
            merged[key] = {**before, **value}
        else:
            merged[key] = value
    return merged


# -------------------------------------------------------------------------------------------------------------- one by one


def _check(value: Any) -> dict[str, Any]:
    if list(value.get("Test") or ())[:1] == ["NONE"]:
        return {"healthcheck": {"disable": True}}
    found: dict[str, Any] = {"test": list(value["Test"])} if value.get("Test") else {}
    times = (("Interval", "interval"), ("Timeout", "timeout"), ("StartPeriod", "start_period"))
    for name, key in (*times, ("StartInterval", "start_interval")):
        if value.get(name):
            found[key] = duration(int(value[name]))
    if value.get("Retries"):
        found["retries"] = value["Retries"]
    return {"healthcheck": found}


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    """One structured mount in compose's long syntax."""
    bind, volume, tmpfs = (mount.get(f"{kind}Options") or {} for kind in ("Bind", "Volume", "Tmpfs"))
    own: dict[str, Any] = {
        "bind": {"propagation": bind.get("Propagation")},
        "volume": {"nocopy": volume.get("NoCopy"), "subpath": volume.get("Subpath")},
        "tmpfs": {"size": tmpfs.get("SizeBytes"), "mode": tmpfs.get("Mode")},
    }
    named = {kind: {key: value for key, value in options.items() if value} for kind, options in own.items()}
    long = {"type": mount.get("Type", "volume"), "source": mount.get("Source"), "target": mount.get("Target")}
    long |= {"read_only": mount.get("ReadOnly"), **named}
    return {key: value for key, value in long.items() if value}


def _gpus(value: Any) -> dict[str, Any]:
    """GPUs are reservations; what the Container Device Interface names are devices."""
    devices, reserved = [], []
    for request in value:
        if request.get("Driver") == "cdi":
            devices += list(request.get("DeviceIDs") or ())
            continue
        ids, count = request.get("DeviceIDs") or [], int(request.get("Count") or 0)
        one: dict[str, Any] = {"driver": request["Driver"]} if request.get("Driver") else {}
        one |= {"device_ids": list(ids)} if ids else {"count": "all" if count == -1 else count}
        one["capabilities"] = [name for wanted in request.get("Capabilities") or () for name in wanted]
        one |= {"options": dict(request["Options"])} if request.get("Options") else {}
        reserved.append(one)
    found: dict[str, Any] = {"devices": devices} if devices else {}
    return found | ({"deploy": {"resources": {"reservations": {"devices": reserved}}}} if reserved else {})


def _limits(value: Any) -> dict[str, Any]:
    return {"ulimits": {one["Name"]: {"soft": one.get("Soft", one["Hard"]), "hard": one["Hard"]} for one in value}}


def _logging(value: Any) -> dict[str, Any]:
    options = {"options": {name: str(one) for name, one in value["Config"].items()}} if value.get("Config") else {}
    return {"logging": {"driver": value["Type"], **options}}


def _ports(value: Any) -> dict[str, Any]:
    anywhere: list[Mapping[str, Any]] = [{}]
    return {"ports": [published(port, one) for port, bindings in value.items() for one in bindings or anywhere]}


_OWN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Binds": lambda value: {"volumes": list(value)},
    "BlkioWeight": lambda value: {"blkio_config": {"weight": value}},
    "BlkioWeightDevice": lambda value: {
        "blkio_config": {"weight_device": [{"path": one["Path"], "weight": one["Weight"]} for one in value]}
    },
    "DeviceRequests": _gpus,
    "Devices": lambda value: {"devices": [device_word(one) for one in value]},
    "ExposedPorts": lambda value: {"expose": list(value)},
    "Healthcheck": _check,
    "Init": lambda value: {"init": bool(value)},
    "Links": lambda value: {"external_links": list(value)},
    "LogConfig": _logging,
    "Mounts": lambda value: {"volumes": [_mount(one) for one in value]},
    "NanoCpus": lambda value: {"cpus": cpus_word(int(value))},
    "PortBindings": _ports,
    "RestartPolicy": lambda value: {"restart": policy_word(value)},
    "SecurityOpt": lambda value: {"security_opt": list(value)},
    "StopTimeout": lambda value: {"stop_grace_period": f"{value}s"},
    "Tmpfs": lambda value: {
        "tmpfs": [f"{target}:{options}" if options else target for target, options in value.items()]
    },
    "Ulimits": _limits,
    "VolumesFrom": lambda value: {"volumes_from": [f"container:{one}" for one in value]},
}


# ------------------------------------------------------------------------------------------------------ volumes, networks


def _volume_names(host: Mapping[str, Any]) -> list[str]:
    names = [bind.source for bind in map(read_bind, host.get("Binds") or ()) if bind.is_volume]
    names += [
        str(one["Source"]) for one in host.get("Mounts") or () if one.get("Type") == "volume" and one.get("Source")
    ]
    return list(dict.fromkeys(names))


def _networks(spec: ContainerSpec, service: dict[str, Any]) -> dict[str, Any]:
    """Fill in the service's networks; returns the document's. Without any, compose would make a network of its own."""
    mode = network_mode(spec.host)
    if not spec.endpoints or (not mode and len(spec.endpoints) == 1):
        service["network_mode"] = mode or "bridge"
        return {}
    service["networks"] = {endpoint.network: _endpoint(endpoint) for endpoint in spec.endpoints}
    return {"networks": {one.network: {"external": True, "name": one.network} for one in spec.endpoints}}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    addresses, settings = endpoint.addresses, endpoint.settings
    found = {
        "aliases": endpoint.aliases,
        "ipv4_address": addresses.get("IPv4Address"),
        "ipv6_address": addresses.get("IPv6Address"),
        "link_local_ips": addresses.get("LinkLocalIPs"),
        "mac_address": settings.get("MacAddress"),
        "driver_opts": settings.get("DriverOpts"),
        "gw_priority": settings.get("GwPriority"),
    }
    return {key: value for key, value in found.items() if value}


def _escaped(value: Any) -> Any:
    """Every string with its `$` doubled, keys left alone."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value
