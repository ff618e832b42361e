"""Every field in which an engine describes a container, and what becomes of it.

"Recreate it with the same settings" fails on the settings that nobody thought of. So this is a table of all of them, in the
three places where inspect shows them, and a field that stands in none of its rows is carried to the engine as it is, and named
where a command line or a compose file cannot say it. A test walks real answers of both engines through it.

Sources: Docker Engine API 1.51, "Inspect a container" and "Create a container" (one structure serves both ways); docker-run(1);
the Compose Specification, "services". Podman's compatible API answers with the same names and its own values for "nothing was
asked" (seen with 4.3: PidMode "private", Runtime "oci", MemorySwappiness -1, StopSignal "15").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of a field."""

    CARRIED = "carried"
    """The new container gets it, as it is or taken apart and put together again."""
    DERIVED = "derived"
    """It follows from others, from the image, or from the moment: the engine fills it in anew."""


class Shape(StrEnum):
    """How a command line and a compose file say a field."""

    WORD = "word"
    """One value: `--memory 4g`."""
    SWITCH = "switch"
    """There or not: `--privileged`."""
    LIST = "list"
    """Once for each value: `--cap-add A --cap-add B`."""
    MAP = "map"
    """Once for each pair: `--sysctl a=1`."""
    OWN = "own"
    """In a way of its own, which `flags` and `compose` know."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row."""

    fate: Fate = Fate.CARRIED
    """What becomes of it."""
    shape: Shape = Shape.WORD
    """How it is said, if it is carried."""
    flag: str = ""
    """The option of `docker run`; empty where it has none."""
    compose: str = ""
    """The key of a service in a compose file; empty where it has none."""
    unset: tuple[object, ...] = ()
    """Values that say "nothing was asked", besides null, 0, false and whatever is empty."""
    unset_in_podman: tuple[object, ...] = ()
    """The same, where only Podman means it so."""
    zero_counts: bool = False
    """Whether 0, false and an empty list are values of their own, so that only null says that nothing was asked."""


_DERIVED = Field(Fate.DERIVED)


def _word(flag: str = "", compose: str = "", *unset: object) -> Field:
    return Field(Fate.CARRIED, Shape.WORD, flag, compose, unset)


def _list(flag: str, compose: str) -> Field:
    return Field(Fate.CARRIED, Shape.LIST, flag, compose)


def _map(flag: str, compose: str) -> Field:
    return Field(Fate.CARRIED, Shape.MAP, flag, compose)


def _switch(flag: str, compose: str = "") -> Field:
    return Field(Fate.CARRIED, Shape.SWITCH, flag, compose)


_OWN = Field(Fate.CARRIED, Shape.OWN)
_LISTED = Field(Fate.CARRIED, Shape.OWN, zero_counts=True)  # an empty list takes the engine's own away

HOST: dict[str, Field] = {
    "Annotations": _map("--annotation", "annotations"),
    "AutoRemove": _switch("--rm"),
    "Binds": _OWN,
    "BlkioDeviceReadBps": _OWN,
    "BlkioDeviceReadIOps": _OWN,
    "BlkioDeviceWriteBps": _OWN,
    "BlkioDeviceWriteIOps": _OWN,
    "BlkioWeight": _OWN,
    "BlkioWeightDevice": _OWN,
    "CapAdd": _list("--cap-add", "cap_add"),
    "CapDrop": _list("--cap-drop", "cap_drop"),
    "Capabilities": _word(),
    "Cgroup": _word(),
    "CgroupParent": _word("--cgroup-parent", "cgroup_parent"),
    "CgroupnsMode": _word("--cgroupns", "cgroup"),
    "ConsoleSize": _DERIVED,  # of the terminal that was attached
    "ContainerIDFile": _DERIVED,  # where the client that made it noted its number
    "CpuCount": _word("--cpu-count", "cpu_count"),
    "CpuPercent": _word("--cpu-percent", "cpu_percent"),
    "CpuPeriod": _word("--cpu-period", "cpu_period"),
    "CpuQuota": _word("--cpu-quota", "cpu_quota"),
    "CpuRealtimePeriod": _word("--cpu-rt-period", "cpu_rt_period"),
    "CpuRealtimeRuntime": _word("--cpu-rt-runtime", "cpu_rt_runtime"),
    "CpuShares": _word("--cpu-shares", "cpu_shares"),
    "CpusetCpus": _word("--cpuset-cpus", "cpuset"),
    "CpusetMems": _word("--cpuset-mems"),
    "DeviceCgroupRules": _list("--device-cgroup-rule", "device_cgroup_rules"),
    "DeviceRequests": _OWN,
    "Devices": _OWN,
    "DiskQuota": _word(),
    "Dns": _list("--dns", "dns"),
    "DnsOptions": _list("--dns-option", "dns_opt"),
    "DnsSearch": _list("--dns-search", "dns_search"),
    "ExtraHosts": _list("--add-host", "extra_hosts"),
    "GroupAdd": _list("--group-add", "group_add"),
    "IOMaximumBandwidth": _word("--io-maxbandwidth"),
    "IOMaximumIOps": _word("--io-maxiops"),
    "Init": Field(Fate.CARRIED, Shape.OWN, zero_counts=True),  # null leaves it to the daemon's settings
    "IpcMode": _word("--ipc", "ipc"),
    "Isolation": _word("--isolation", "isolation", "default"),
    "KernelMemory": _word("--kernel-memory"),
    "KernelMemoryTCP": _word(),
    "Links": _OWN,
    "LogConfig": _OWN,
    "MaskedPaths": _LISTED,
    "Memory": _word("--memory", "mem_limit"),
    "MemoryReservation": _word("--memory-reservation", "mem_reservation"),
    "MemorySwap": _word("--memory-swap", "memswap_limit"),
    "MemorySwappiness": Field(
        flag="--memory-swappiness",
        compose="mem_swappiness",
        unset=(-1,),
        unset_in_podman=(0,),
        zero_counts=True,
    ),
    "Mounts": _OWN,
    "NanoCpus": _OWN,
    "NetworkMode": _OWN,
    "OomKillDisable": _switch("--oom-kill-disable", "oom_kill_disable"),
    "OomScoreAdj": _word("--oom-score-adj", "oom_score_adj"),
    "PidMode": Field(flag="--pid", compose="pid", unset_in_podman=("private",)),
    "PidsLimit": _word("--pids-limit", "pids_limit"),
    "PortBindings": _OWN,
    "Privileged": _switch("--privileged", "privileged"),
    "PublishAllPorts": _switch("--publish-all"),
    "ReadonlyPaths": _LISTED,
    "ReadonlyRootfs": _switch("--read-only", "read_only"),
    "RestartPolicy": _OWN,
    "Runtime": Field(flag="--runtime", compose="runtime", unset_in_podman=("oci",)),
    "SecurityOpt": _OWN,
    "ShmSize": _word("--shm-size", "shm_size"),
    "StorageOpt": _map("--storage-opt", "storage_opt"),
    "Sysctls": _map("--sysctl", "sysctls"),
    "Tmpfs": _OWN,
    "UTSMode": Field(flag="--uts", compose="uts", unset_in_podman=("private",)),
    "Ulimits": _OWN,
    "UsernsMode": _word("--userns", "userns_mode"),
    "VolumeDriver": _word("--volume-driver"),
    "VolumesFrom": _OWN,
}
"""What inspect shows under `HostConfig`."""

CONFIG: dict[str, Field] = {
    "ArgsEscaped": _DERIVED,  # of images for Windows
    "AttachStderr": _DERIVED,  # whether the client that made it looked on
    "AttachStdin": _DERIVED,
    "AttachStdout": _DERIVED,
    "Cmd": _OWN,
    "Domainname": _word("--domainname", "domainname"),
    "Entrypoint": _OWN,
    "Env": _OWN,
    "ExposedPorts": _OWN,
    "Healthcheck": _OWN,
    "Hostname": _word("--hostname", "hostname"),
    "Image": _OWN,
    "Labels": _map("--label", "labels"),
    "MacAddress": _OWN,
    "NetworkDisabled": _word(),
    "OnBuild": _DERIVED,  # the image's, for builds
    "OpenStdin": _switch("--interactive", "stdin_open"),
    "Shell": _DERIVED,  # the image's, for builds
    "StdinOnce": _word(),
    "StopSignal": Field(flag="--stop-signal", compose="stop_signal", unset_in_podman=("15", "SIGTERM")),
    "StopTimeout": Field(shape=Shape.OWN, zero_counts=True),  # Podman takes none for 0: killed at once
    "Tty": _switch("--tty", "tty"),
    "User": _word("--user", "user"),
    "Volumes": _DERIVED,  # each of them is among the mounts, with the volume that it got
    "WorkingDir": _word("--workdir", "working_dir"),
}
"""What inspect shows under `Config`."""

ENDPOINT: dict[str, Field] = {
    "Aliases": _OWN,
    "DNSNames": _DERIVED,
    "DriverOpts": _OWN,
    "EndpointID": _DERIVED,
    "Gateway": _DERIVED,
    "GlobalIPv6Address": _DERIVED,
    "GlobalIPv6PrefixLen": _DERIVED,
    "GwPriority": _OWN,
    "IPAMConfig": _OWN,
    "IPAddress": _DERIVED,
    "IPPrefixLen": _DERIVED,
    "IPv6Gateway": _DERIVED,
    "Links": _OWN,
    "MacAddress": _OWN,  # only where one was asked for
    "NetworkID": _DERIVED,
}
"""What inspect shows for each network under `NetworkSettings.Networks`."""

TOP: dict[str, Field] = {
    "Config": _OWN,
    "HostConfig": _OWN,
    "Image": _OWN,
    "Mounts": _OWN,  # which volumes the anonymous ones are
    "Name": _OWN,
    "NetworkSettings": _OWN,
    "Id": _DERIVED,
} | dict.fromkeys(
    # What it was doing, and where the engine keeps its things.
    (
        "AppArmorProfile",
        "Args",
        "Created",
        "Driver",
        "ExecIDs",
        "GraphDriver",
        "HostnamePath",
        "HostsPath",
        "ImageManifestDescriptor",
        "LogPath",
        "MountLabel",
        "Path",
        "Platform",
        "ProcessLabel",
        "ResolvConfPath",
        "RestartCount",
        "SizeRootFs",
        "SizeRw",
        "State",
        "Storage",
    ),
    _DERIVED,
)
"""What inspect shows at its top."""


def asked(field: Field, value: object, *, podman: bool) -> bool:
    """Whether a value says that somebody, or the engine for all containers, wanted something.

    >>> asked(HOST["Memory"], 0, podman=False), asked(HOST["Runtime"], "oci", podman=True)
    (False, False)
    """
    if value is None or value in field.unset or (podman and value in field.unset_in_podman):
        return False
    return bool(value) or field.zero_counts
