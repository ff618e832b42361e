"""A spec as the words of `docker run`, for people and for scripts; Podman's command takes the same words.

The API can say more than the command line: what has no option, or none that says exactly this, is named. Variables are left
out here; they go to files of their own.

Source: docker-run(1) of Docker 28, podman-run(1).
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from keepfed.recreate.fields import CONFIG, HOST, Field, Shape
from keepfed.recreate.networks import Endpoint, network_mode
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec, Uncarried
from keepfed.text import say

_SIZES = {"ShmSize", "Memory", "MemoryReservation", "MemorySwap", "KernelMemory"}
_BY_HAND_ELSEWHERE = {"Env", "Cmd", "Entrypoint", "MacAddress", "NetworkMode", "ReadonlyPaths", "Image"}
_ANY_PORT: Mapping[str, Any] = {}
MASKED_BY_DEFAULT = "/proc/kcore"
"""Among the paths that every engine hides unless it is told otherwise; a list with it is the engine's own."""


@dataclass(frozen=True, slots=True)
class RunWords:
    """A spec for the command line."""

    options: tuple[tuple[str, ...], ...]
    """Between `run` and the image: option by option, each with its value."""
    command: tuple[str, ...]
    """Behind the image."""
    joins: tuple[tuple[str, ...], ...]
    """For each further network, the words of `network connect` without the container."""
    uncarried: tuple[Uncarried, ...]
    """What a command line cannot say."""


def run_words(spec: ContainerSpec) -> RunWords:
    """The words that make this container again."""
    said = _Said()
    for table, prefix, values in ((HOST, "HostConfig", spec.host), (CONFIG, "Config", spec.config)):
        for name, value in values.items():
            _say(said, table.get(name, Field()), name, f"{prefix}.{name}", value, values)
    _networks(said, spec)
    entrypoint, command = spec.command
    behind = list(command or ())
    if entrypoint is not None:
        said.add("--entrypoint", entrypoint[0] if entrypoint else "")
        behind = [*entrypoint[1:], *behind]
    # By option alone: the order of name servers, say, is a wish.
    return RunWords(
        tuple(sorted(said.options, key=lambda option: option[0])), tuple(behind), tuple(said.joins), tuple(said.left)
    )


class _Said:
    """What has been said so far."""

    def __init__(self) -> None:
        self.options: list[tuple[str, ...]] = []
        self.joins: list[tuple[str, ...]] = []
        self.left: list[Uncarried] = []

    def add(self, option: str, value: object = None) -> None:
        self.options.append((option,) if value is None else (option, str(value)))

    def leave(self, field: str, value: object, key: str = "recreate.no_option") -> None:
        self.left.append(Uncarried(field, value if isinstance(value, str) else json.dumps(value), say(key)))


def _say(said: _Said, field: Field, name: str, path: str, value: Any, values: Mapping[str, Any]) -> None:
    if name in _BY_HAND_ELSEWHERE:
        return
    if name in _OWN:
        _OWN[name](said, path, value, values)
    elif not field.flag:
        said.leave(path, value)
    elif field.shape is Shape.SWITCH:
        said.add(field.flag)
    elif field.shape is Shape.LIST:
        for one in value:
            said.add(field.flag, one)
    elif field.shape is Shape.MAP:
        for key, one in value.items():
            said.add(field.flag, f"{key}={one}")
    else:
        said.add(field.flag, size_word(value) if name in _SIZES else value)


# -------------------------------------------------------------------------------------------------------------- one by one


def _mounts(said: _Said, path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for number, mount in enumerate(value):
        words, unsaid = _mount_words(mount)
        if unsaid:
            said.leave(f"{path}[{number}]", {name: mount[name] for name in unsaid})
        said.add("--mount", _csv(words))


def _mount_words(mount: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The parts of `--mount`, and the names of what it cannot say."""
    words, known = [f"type={mount.get('Type', 'volume')}"], {"Type", "Source", "Target", "ReadOnly", "Consistency"}
    words += [f"source={mount['Source']}"] if mount.get("Source") else []
    words += [f"target={mount.get('Target', '')}"]
    words += ["readonly"] if mount.get("ReadOnly") else []
    bind, volume, tmpfs = (mount.get(f"{kind}Options") or {} for kind in ("Bind", "Volume", "Tmpfs"))
    words += [f"bind-propagation={bind['Propagation']}"] if bind.get("Propagation") else []
    words += ["volume-nocopy"] if volume.get("NoCopy") else []
    words += [f"volume-subpath={volume['Subpath']}"] if volume.get("Subpath") else []
    words += [f"tmpfs-size={tmpfs['SizeBytes']}"] if tmpfs.get("SizeBytes") else []
    words += [f"tmpfs-mode={tmpfs['Mode']:o}"] if tmpfs.get("Mode") else []
    said = {
        "BindOptions": {"Propagation"},
        "VolumeOptions": {"NoCopy", "Subpath"},
        "TmpfsOptions": {"SizeBytes", "Mode"},
    }
    unsaid = [name for name in mount if name not in known and name not in said and mount[name]]
    unsaid += [
        name
        for name, parts in said.items()
        if any((mount.get(name) or {}).get(part) for part in _more(mount, name, parts))
    ]
    return words, unsaid


def _more(mount: Mapping[str, Any], name: str, parts: set[str]) -> set[str]:
    return set(mount.get(name) or {}) - parts


def _ports(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for port, bindings in value.items():
        for binding in bindings or [_ANY_PORT]:
            said.add("--publish", published(port, binding))


def published(port: str, binding: Mapping[str, Any]) -> str:
    """One port as `-p` takes it: `127.0.0.1:8080:80/tcp`.

    >>> published("80/tcp", {"HostIp": "::1", "HostPort": "8080"})
    '[::1]:8080:80/tcp'
    """
    address, number = str(binding.get("HostIp") or ""), str(binding.get("HostPort") or "")
    address = f"[{address}]" if ":" in address else address
    number = "" if number == "0" else number
    return ":".join([address, number, port] if address else [number, port] if number else [port])


def _exposed(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for port in value:
        said.add("--expose", port)


def _check(said: _Said, path: str, value: Any, _values: Mapping[str, Any]) -> None:
    test = [str(word) for word in value.get("Test") or ()]
    if test[:1] == ["NONE"]:
        said.add("--no-healthcheck")
        return
    if test[:1] == ["CMD"]:
        said.leave(f"{path}.Test", test, "recreate.check_through_shell")
        said.add("--health-cmd", shlex.join(test[1:]))
    elif test:
        said.add("--health-cmd", " ".join(test[1:]))
    for name, option in _CHECK_TIMES.items():
        if value.get(name):
            said.add(option, duration(int(value[name])))
    if value.get("Retries"):
        said.add("--health-retries", value["Retries"])


_CHECK_TIMES = {
    "Interval": "--health-interval",
    "Timeout": "--health-timeout",
    "StartPeriod": "--health-start-period",
    "StartInterval": "--health-start-interval",
}


def duration(nanoseconds: int) -> str:
    """As Go reads it.

    >>> duration(1_500_000_000), duration(30_000_000_000)
    ('1500ms', '30s')
    """
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    return f"{nanoseconds}ns"


def _gpus(said: _Said, path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for number, request in enumerate(value):
        if request.get("Driver") == "cdi":
            for name in request.get("DeviceIDs") or ():
                said.add("--device", name)
        elif (word := gpu_word(request)) is not None:
            said.add("--gpus", word)
        else:
            said.leave(f"{path}[{number}]", request)


def gpu_word(request: Mapping[str, Any]) -> str | None:
    """A request for GPUs as `--gpus` takes it; None where it cannot say it.

    >>> gpu_word({"Count": -1, "Capabilities": [["gpu"]]})
    'all'
    >>> gpu_word({"DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]})
    '"device=0,1"'
    """
    wanted = request.get("Capabilities") or []
    if len(wanted) != 1 or "gpu" not in wanted[0]:
        return None
    ids, count = request.get("DeviceIDs") or [], int(request.get("Count") or 0)
    words = [f"device={','.join(ids)}"] if ids else ["count=all" if count == -1 else f"count={count}"]
    words += [f"driver={request['Driver']}"] if request.get("Driver") else []
    others = [name for name in wanted[0] if name != "gpu"]
    words += [f"capabilities={','.join(others)}"] if others else []
    options = request.get("Options") or {}
    words += [f"options={_csv([f'{name}={value}' for name, value in options.items()])}"] if options else []
    return "all" if words == ["count=all"] else _csv(words)


def _devices(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for device in value:
        said.add("--device", device_word(device))


def device_word(device: Mapping[str, Any]) -> str:
    """One device as `--device` takes it: host:container:rights."""
    parts = (device.get("PathOnHost"), device.get("PathInContainer"), device.get("CgroupPermissions"))
    return ":".join(str(part) for part in parts if part)


def _limits(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for limit in value:
        said.add("--ulimit", f"{limit['Name']}={limit.get('Soft', limit['Hard'])}:{limit['Hard']}")


def _policy(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    said.add("--restart", policy_word(value))


def policy_word(policy: Mapping[str, Any]) -> str:
    """A restart policy in one word: `on-failure:3`."""
    most = policy.get("MaximumRetryCount")
    return f"{policy['Name']}:{most}" if most and policy["Name"] == "on-failure" else str(policy["Name"])


def _logging(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    said.add("--log-driver", value["Type"])
    for name, option in (value.get("Config") or {}).items():
        said.add("--log-opt", f"{name}={option}")


def _security(said: _Said, path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for option in value:
        if option.startswith("seccomp=") and "{" in option:
            said.leave(path, option[:60], "recreate.profile_in_a_file")
        else:
            said.add("--security-opt", option)


def _masked(said: _Said, path: str, value: Any, values: Mapping[str, Any]) -> None:
    if not value and not values.get("ReadonlyPaths"):
        said.add("--security-opt", "systempaths=unconfined")
    elif value and MASKED_BY_DEFAULT not in value:
        said.leave(path, value)


def _tmpfs(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
    for target, options in value.items():
        said.add("--tmpfs", f"{target}:{options}" if options else target)


def _block_io(option: str, figure: str) -> Callable[[_Said, str, Any, Mapping[str, Any]], None]:
    def say_it(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
        for device in value:
            said.add(option, f"{device['Path']}:{device[figure]}")

    return say_it


def _each(option: str) -> Callable[[_Said, str, Any, Mapping[str, Any]], None]:
    def say_it(said: _Said, _path: str, value: Any, _values: Mapping[str, Any]) -> None:
        for one in value:
            said.add(option, one)

    return say_it


def cpus_word(nano: int) -> str:
    """Cores as `--cpus` takes them.

    >>> cpus_word(1_500_000_000)
    '1.5'
    """
    return f"{(Decimal(nano) / 10**9).normalize():f}"


_OWN: dict[str, Callable[[_Said, str, Any, Mapping[str, Any]], None]] = {
    "Binds": _each("--volume"),
    "BlkioDeviceReadBps": _block_io("--device-read-bps", "Rate"),
    "BlkioDeviceReadIOps": _block_io("--device-read-iops", "Rate"),
    "BlkioDeviceWriteBps": _block_io("--device-write-bps", "Rate"),
    "BlkioDeviceWriteIOps": _block_io("--device-write-iops", "Rate"),
    "BlkioWeight": lambda said, _path, value, _values: said.add("--blkio-weight", value),
    "BlkioWeightDevice": _block_io("--blkio-weight-device", "Weight"),
    "DeviceRequests": _gpus,
    "Devices": _devices,
    "ExposedPorts": _exposed,
    "Healthcheck": _check,
    "Init": lambda said, _path, value, _values: said.add("--init" if value else "--init=false"),
    "Links": _each("--link"),
    "LogConfig": _logging,
    "MaskedPaths": _masked,
    "Mounts": _mounts,
    "NanoCpus": lambda said, _path, value, _values: said.add("--cpus", cpus_word(int(value))),
    "PortBindings": _ports,
    "RestartPolicy": _policy,
    "SecurityOpt": _security,
    "StopTimeout": lambda said, _path, value, _values: said.add("--stop-timeout", value),
    "Tmpfs": _tmpfs,
    "Ulimits": _limits,
    "VolumesFrom": _each("--volumes-from"),
}


# ---------------------------------------------------------------------------------------------------------------- networks


def _networks(said: _Said, spec: ContainerSpec) -> None:
    mode = network_mode(spec.host)
    if mode:
        said.add("--network", mode)
    if not spec.endpoints:
        return
    first, *others = spec.endpoints
    for option, value in _endpoint_words(said, first, "--network-alias"):
        said.add(option, value)
    if first.settings.get("MacAddress"):
        said.add("--mac-address", first.settings["MacAddress"])
    for endpoint in others:
        words = [word for pair in _endpoint_words(said, endpoint, "--alias") for word in pair]
        said.joins.append((*words, endpoint.network))


def _endpoint_words(said: _Said, endpoint: Endpoint, alias_option: str) -> Iterator[tuple[str, str]]:
    for alias in endpoint.aliases:
        yield alias_option, alias
    addresses = endpoint.addresses
    for name, option in (("IPv4Address", "--ip"), ("IPv6Address", "--ip6")):
        if addresses.get(name):
            yield option, str(addresses[name])
    for address in addresses.get("LinkLocalIPs") or ():
        yield "--link-local-ip", str(address)
    for name in ("DriverOpts", "GwPriority", "Links"):
        if endpoint.settings.get(name):
            said.leave(f"NetworkSettings.Networks.{endpoint.network}.{name}", endpoint.settings[name])


def _csv(words: list[str]) -> str:
    """One line of comma-separated values, as Docker's own parser takes it apart: quotes where a word holds a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()
