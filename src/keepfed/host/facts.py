"""HostFacts: everything that the rest of keepfed may know about the machine, read once, without torch, in milliseconds.

The machine that has to be described is often broken: `/proc` half hidden, a container without `/sys`, a driver that does not
answer. So no fact is needed for another one, "unknown" (None) is a value, and `read_host` never raises.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keepfed.host.container import read_container, read_wsl
from keepfed.host.gpu import Gpu, Gpus, read_gpus, skip_gpus
from keepfed.host.limits import Ceiling, read_cores, read_ulimits
from keepfed.host.memory import SharedMemory, read_memory, read_shm
from keepfed.host.probe import Limit, Probe, live_probe
from keepfed.host.ranks import Ranks, read_ranks
from keepfed.host.tree import Tree

_CPU_MODEL = re.compile(r"^(?:model name|Model|cpu model)\s*:\s*(\S.*)$", re.MULTILINE)
_SOME = re.compile(r"^some avg10=(\d{1,3}(?:\.\d+)?)\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is known of one machine, as one process sees it; None is "unknown"."""

    cores: Ceiling
    """Cores for this process, maybe fractional (a quota), divided among the ranks of this host."""
    cores_pool: Ceiling
    """Cores for all ranks of this host together."""
    cores_machine: int | None
    """Logical CPUs of the machine, whoever may use them."""
    ranks: Ranks
    """The ranks of the same job on this host."""
    memory: Ceiling
    """Bytes that the processes under the same limits can hold, swap not counted; not divided among ranks."""
    memory_available: Ceiling
    """Bytes of it that can be taken now."""
    shm: SharedMemory
    """The file system at /dev/shm."""
    ulimits: Mapping[str, Limit]
    """Limits of the process by name: nofile, nproc, as, fsize, memlock, stack; missing where unknown."""
    gpus: tuple[Gpu, ...]
    """The GPUs, as NVML shows them; CUDA_VISIBLE_DEVICES does not hide any."""
    gpus_reason: str
    """Why there is none; empty otherwise."""
    container: str | None
    """Kind of container around us: docker, podman, kubernetes, lxc, apptainer, other; None when none is seen."""
    kubernetes: bool
    """Whether this is a Kubernetes pod."""
    wsl: int | None
    """1 or 2 within the Windows Subsystem for Linux, else None."""
    slurm_job: str | None
    """Id of the SLURM job around us."""
    kernel: str | None
    """Release of the kernel, "6.8.0-51-generic"."""
    cpu_model: str | None
    """Name of the CPU as the kernel spells it."""
    shmem_enabled: str | None
    """Policy for huge pages in shared memory: never, advise, within_size, always, deny or force."""
    load_1m: float | None
    """Load average of the last minute; it counts the whole machine, also from inside a container."""
    cpu_pressure: float | None
    """Share (0 to 1) of the last 10 s in which some process waited for a core, machine-wide (PSI)."""
    io_pressure: float | None
    """The same for storage."""
    memory_pressure: float | None
    """The same for memory."""
    python: str
    """Version of the interpreter that reads, "3.11.7"."""

    @property
    def memory_bytes(self) -> int | None:
        """The memory ceiling as whole bytes."""
        return _bytes(self.memory)

    @property
    def memory_available_bytes(self) -> int | None:
        """The available memory as whole bytes."""
        return _bytes(self.memory_available)

    @property
    def fingerprint(self) -> str:
        """A short name of what a plan depends on: cores, memory (GiB), CPU model and GPUs; the same on every read.

        "8c-31g-9f2c01ab". Memory is rounded since MemTotal changes by some MB with every kernel; ranks are left out since
        they belong to the job.
        """
        cores = "?" if self.cores_pool.value is None else f"{self.cores_pool.value:g}"
        memory = "?" if self.memory.value is None else _rounded(self.memory.value / (1 << 30))
        named = "\n".join([self.cpu_model or "?", *(f"{gpu.name} {gpu.memory_bytes}" for gpu in self.gpus)])
        return f"{cores}c-{memory}g-{hashlib.sha256(named.encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """The object under "host" in every JSON output; its keys are listed in docs/design/facts.md and only ever added to."""
        return {
            "cores": self.cores.value,
            "cores_cause": self.cores.cause,
            "cores_source": self.cores.source,
            "cores_pool": self.cores_pool.value,
            "cores_machine": self.cores_machine,
            "ranks": self.ranks.count,
            "memory_bytes": self.memory_bytes,
            "memory_cause": self.memory.cause,
            "memory_source": self.memory.source,
            "memory_available_bytes": self.memory_available_bytes,
            "memory_available_cause": self.memory_available.cause,
            "shm_bytes": self.shm.size_bytes,
            "shm_used_bytes": self.shm.used_bytes,
            "shm_cause": self.shm.ceiling.cause,
            "ulimits": {name: asdict(limit) for name, limit in self.ulimits.items()},
            "gpus": [_gpu_json(gpu) for gpu in self.gpus],
            "gpus_reason": self.gpus_reason,
            "container": self.container,
            "kubernetes": self.kubernetes,
            "wsl": self.wsl,
            "slurm": self.slurm_job,
            "kernel": self.kernel,
            "cpu_model": self.cpu_model,
            "shmem_enabled": self.shmem_enabled,
            "load_1m": self.load_1m,
            "cpu_pressure": self.cpu_pressure,
            "io_pressure": self.io_pressure,
            "memory_pressure": self.memory_pressure,
            "python": self.python,
            "fingerprint": self.fingerprint,
        }


def read_host(
    root: Path | str = "/",
    environ: Mapping[str, str] | None = None,
    pid: int | str = "self",
    *,
    ranks: int | None = None,
    probe: Probe | None = None,
    gpus: Callable[[], Gpus] | None = None,
) -> HostFacts:
    """Read the machine as process `pid` sees it. Never raises.

    `root` is another folder for a recorded machine; then nothing is asked of this one: `probe` brings what its system calls
    answered, and `gpus` its GPUs. `ranks` overrides the number of ranks on this host that the environment tells; `gpus`
    replaces the reading of GPUs (`skip_gpus` leaves it out).
    """
    tree = Tree(os.fspath(root))
    environ = os.environ if environ is None else environ
    process = str(pid)
    asked = probe if probe is not None else live_probe(process) if tree.live else Probe()
    sharing = read_ranks(environ, ranks)
    cores = read_cores(tree, environ, asked, sharing, process)
    memory = read_memory(tree, asked, process)
    seen = (gpus or (read_gpus if tree.live else skip_gpus))()
    container = read_container(tree, environ, process)
    kernel = _line(tree, "/proc/sys/kernel/osrelease") or asked.kernel
    return HostFacts(
        cores=cores.share,
        cores_pool=cores.pool,
        cores_machine=None if cores.machine is None else int(cores.machine),
        ranks=sharing,
        memory=memory.total,
        memory_available=memory.available,
        shm=read_shm(tree, asked, memory),
        ulimits=read_ulimits(tree, asked, process),
        gpus=seen.gpus,
        gpus_reason=seen.reason,
        container=container.kind,
        kubernetes=container.kubernetes,
        wsl=read_wsl(kernel),
        slurm_job=environ.get("SLURM_JOB_ID") or None,
        kernel=kernel,
        cpu_model=_cpu_model(tree),
        shmem_enabled=_chosen(_line(tree, "/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        load_1m=_load(_line(tree, "/proc/loadavg")),
        cpu_pressure=_pressure(tree, "cpu"),
        io_pressure=_pressure(tree, "io"),
        memory_pressure=_pressure(tree, "memory"),
        python=platform.python_version(),
    )


def _bytes(ceiling: Ceiling) -> int | None:
    return None if ceiling.value is None else int(ceiling.value)


def _rounded(gibibytes: float) -> str:
    return f"{gibibytes:.0f}" if gibibytes >= 1 else f"{gibibytes:.1f}"


def _gpu_json(gpu: Gpu) -> dict[str, Any]:
    """One entry of "gpus"; whose processes hold the memory is left out, since it is other people's business."""
    return {
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "used_bytes": gpu.used_bytes,
        "utilisation": gpu.utilisation,
        "uuid": gpu.uuid,
    }


def _line(tree: Tree, path: str) -> str | None:
    return (tree.read(path, 4096) or "").partition("\n")[0].strip() or None


def _cpu_model(tree: Tree) -> str | None:
    """From the first CPU's entry alone: with hundreds of CPUs the kernel takes its time for the whole file."""
    found = _CPU_MODEL.search(tree.read("/proc/cpuinfo", 4096) or "")
    if found:
        return found.group(1).strip()
    return (platform.processor() or None) if tree.live and sys.platform != "linux" else None


def _chosen(text: str | None) -> str | None:
    """The word in brackets of "always advise [never]"."""
    found = re.search(r"\[([a-z_]+)\]", text or "")
    return found.group(1) if found else None


def _load(text: str | None) -> float | None:
    found = re.match(r"\d{1,6}\.\d{1,6}(?= )", text or "")
    return float(found.group()) if found else None


def _pressure(tree: Tree, resource: str) -> float | None:
    found = _SOME.search(tree.read(f"/proc/pressure/{resource}", 4096) or "")
    return min(1.0, float(found.group(1)) / 100) if found else None
