"""What a tree takes: the arithmetic."""

from __future__ import annotations

import pytest

from keepfed.host.gpu import Gpu, GpuProcess
from keepfed.tuning.sweep.usage import CpuSample, busy_share, cpu_between


def gpu(index: int, busy: float | None, *pids: int, known: bool = True) -> Gpu:
    processes = tuple(GpuProcess(pid, None) for pid in pids) if known else None
    return Gpu(index, "H200", None, None, None, busy, processes)


def test_cpu_seconds_between_two_moments_are_read_off_straight_lines() -> None:
    samples = [CpuSample(0.0, 0.0), CpuSample(10.0, 20.0), CpuSample(20.0, 30.0)]
    assert cpu_between(samples, 5.0, 15.0) == pytest.approx(15.0)
    assert cpu_between(samples, 0.0, 20.0) == pytest.approx(30.0)
    assert cpu_between(samples, 10.0, 25.0) == pytest.approx(15.0)
    assert cpu_between(samples, 15.0, 35.0) is None
    assert cpu_between(samples, 30.0, 40.0) is None
    assert cpu_between(samples[:1], 0.0, 0.0) is None


def test_the_gpus_of_the_program_count_and_not_those_of_others() -> None:
    gpus = [gpu(0, 0.9, 1), gpu(1, 0.4, 7), gpu(2, 0.2, 8, 9), gpu(3, None, 8)]
    assert busy_share(gpus, {7, 8}) == pytest.approx(0.3)


def test_where_nobody_knows_whose_a_gpu_is_the_busiest_counts() -> None:
    assert busy_share([gpu(0, 0.1, known=False), gpu(1, 0.6, 4711)], {7}) == 0.6
    assert busy_share([], {7}) is None
    assert busy_share([gpu(0, None)], {7}) is None
