"""GPUs through a stand-in for pynvml: the driver that answers, answers in part, or is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from keepfed.host.gpu import Gpu, GpuProcess, read_gpus


class NVMLError_DriverNotLoaded(Exception):  # noqa: N801  # pynvml's spelling, by which the reason is told
    pass


class FakeNvml:
    """Two GPUs; names in `mute` are calls that fail."""

    def __init__(self, *, mute: tuple[str, ...] = (), start: Exception | None = None) -> None:
        self.mute = mute
        self.start = start
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self.mute:
            raise RuntimeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802  # NVML's own name, as below
        if self.start:
            raise self.start
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802  # the name that NVML gives it
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  # the name that NVML gives it
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802  # the name that NVML gives it
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:  # noqa: N802  # the name that NVML gives it
        return b"NVIDIA H200" if handle else "NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802  # the name that NVML gives it
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802  # the name that NVML gives it
        return SimpleNamespace(total=150 << 30, used=3 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802  # the name that NVML gives it
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802  # the name that NVML gives it
        return [SimpleNamespace(pid=12, usedGpuMemory=1 << 30), SimpleNamespace(pid=13, usedGpuMemory=(1 << 64) - 1)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802  # the name that NVML gives it
        return [SimpleNamespace(pid=9, usedGpuMemory=None)]


def test_a_gpu_is_read_whole() -> None:
    found = read_gpus(FakeNvml())
    assert found.reason == ""
    assert found.gpus[1] == Gpu(
        index=1,
        name="NVIDIA H200",
        uuid="GPU-1",
        memory_bytes=150 << 30,
        used_bytes=3 << 30,
        utilisation=0.37,
        processes=(GpuProcess(9, None), GpuProcess(12, 1 << 30), GpuProcess(13, None)),
    )


@pytest.mark.parametrize("mute", [(), ("nvmlDeviceGetCount",), ("nvmlDeviceGetHandleByIndex",)])
def test_nvml_is_shut_down_after_every_reading(mute: tuple[str, ...]) -> None:
    nvml = FakeNvml(mute=mute)
    read_gpus(nvml)
    assert nvml.open == 0


def test_an_answer_that_is_refused_is_unknown_and_costs_no_other_answer() -> None:
    refused = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses")
    gpu = read_gpus(FakeNvml(mute=(*refused, "nvmlDeviceGetGraphicsRunningProcesses"))).gpus[0]
    assert (gpu.name, gpu.utilisation, gpu.memory_bytes, gpu.processes) == ("NVIDIA H200", None, None, None)


def test_no_driver_is_a_reason_and_no_error() -> None:
    assert read_gpus(FakeNvml(start=NVMLError_DriverNotLoaded())).reason == "no_driver"
    assert read_gpus(FakeNvml(start=OSError("a surprise"))).reason == "failed"


def test_this_machine_has_gpus_or_a_reason_for_none() -> None:
    found = read_gpus()
    assert bool(found.gpus) != bool(found.reason)
