"""GPUs, their memory and who holds it, through NVML (the library behind nvidia-smi).

No GPU is a fact, not an error: every way in which NVML can be absent gives an empty list with the reason. NVML and not torch,
because a fact must not create a CUDA context (hundreds of MB, and no fork afterwards). NVML is shut down after each
reading, so that nothing of it is inherited by workers. Without persistence mode the driver wakes every GPU up for the
first reading, which may take seconds on a large machine.

Source: NVML API reference guide (nvmlInit, nvmlMemory_t, nvmlUtilization_t, nvmlProcessInfo_t).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

_NOT_AVAILABLE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE as pynvml before 11 passes it on

_REASONS = {
    "NVMLError_LibraryNotFound": "no_library",
    "NVMLError_DriverNotLoaded": "no_driver",
    "NVMLError_NoPermission": "no_permission",
    "NVMLError_LibRmVersionMismatch": "version_mismatch",
    "NVMLError_GpuIsLost": "gpu_lost",
}


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with memory on a GPU."""

    pid: int
    """Its process id as the driver counts: the host's, which inside a container names nobody or somebody else."""
    bytes: int | None
    """Memory that it holds there; None where the driver does not tell (Windows, some containers)."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int
    """Its number in NVML and nvidia-smi; CUDA may count in another order."""
    name: str | None
    """Product name, "NVIDIA H200"."""
    uuid: str | None
    """Its own name, also valid in CUDA_VISIBLE_DEVICES."""
    memory_bytes: int | None
    """Total memory; None where it shares the host's."""
    used_bytes: int | None
    """Memory in use by everybody."""
    utilisation: float | None
    """Share (0 to 1) of the last sample period (1/6 to 1 s) in which at least one kernel ran: not how busy it was."""
    processes: tuple[GpuProcess, ...] | None
    """Processes that hold memory; None where the driver does not tell."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs of the host, or why none can be seen."""

    gpus: tuple[Gpu, ...]
    """The GPUs by index."""
    reason: str = ""
    """Why there is none, also the last part of its key in the words: "no_pynvml", "no_library", "no_driver", ..."""


def read_gpus(nvml: Any | None = None) -> Gpus:
    """Read all GPUs. Never raises; `nvml` stands in for the module `pynvml`."""
    if nvml is None and (nvml := _load()) is None:
        return Gpus((), "no_pynvml")
    try:
        nvml.nvmlInit()
    except Exception as error:  # whatever the driver does here, the answer is "no GPU"
        return Gpus((), _REASONS.get(type(error).__name__, "failed"))
    try:
        count = _ask(nvml, "nvmlDeviceGetCount")
        if count is None:
            return Gpus((), "failed")
        found = tuple(gpu for gpu in (_read_gpu(nvml, index) for index in range(count)) if gpu is not None)
        return Gpus(found, "" if found else "failed" if count else "none")
    finally:
        _ask(nvml, "nvmlShutdown")


def skip_gpus() -> Gpus:
    """Read no GPU: for callers that need an answer at once, and for recorded machines."""
    return Gpus((), "not_read")


def _load() -> Any | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the abandoned package of the same name warns that it is abandoned
            import pynvml
    except Exception:  # a broken installation of it is as good as none
        return None
    return pynvml


def _ask(nvml: Any, question: str, *arguments: Any) -> Any:
    """The driver's answer; None where it has none (an old driver or library, a MIG slice, no permission)."""
    try:
        return getattr(nvml, question)(*arguments)
    except Exception:  # one unanswered question must not cost the other answers
        return None


def _read_gpu(nvml: Any, index: int) -> Gpu | None:
    handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return None
    memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    rates = _ask(nvml, "nvmlDeviceGetUtilizationRates", handle)
    return Gpu(
        index=index,
        name=_text(_ask(nvml, "nvmlDeviceGetName", handle)),
        uuid=_text(_ask(nvml, "nvmlDeviceGetUUID", handle)),
        memory_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        utilisation=None if rates is None else rates.gpu / 100,
        processes=_processes(nvml, handle),
    )


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Compute and graphics processes; one that does both is listed by NVML twice."""
    held: dict[int, int | None] = {}
    answers = [
        _ask(nvml, "nvmlDeviceGetComputeRunningProcesses", handle),
        _ask(nvml, "nvmlDeviceGetGraphicsRunningProcesses", handle),
    ]
    if answers == [None, None]:
        return None
    for process in (process for answer in answers for process in answer or ()):
        used = process.usedGpuMemory
        held[process.pid] = None if used in (None, _NOT_AVAILABLE) else int(used)
    return tuple(GpuProcess(pid, used) for pid, used in sorted(held.items()))


def _text(value: Any) -> str | None:
    """A string of NVML, which pynvml before 11.5 leaves as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return None if value is None else str(value)
