"""The GPU's idle time, on a fake CUDA that is as strict as the real one."""

from __future__ import annotations

from typing import Any

import pytest

from keepfed.loader.stall import MOST_PENDING, StallMeter


class FakeCuda:
    """One stream whose clock is set by hand; the GPU has passed everything recorded up to `passed_ms`."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.passed_ms = 1e9
        self.capturing = False
        self.fails = ""
        self.device = 0
        self.made = 0

    def is_current_stream_capturing(self) -> bool:
        self.may("capturing")
        return self.capturing

    def may(self, what: str) -> None:
        if self.fails == what:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def Event(self, *, enable_timing: bool) -> Any:  # noqa: N802  # torch's name
        assert enable_timing
        self.made += 1
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.at_ms = -1.0
        self.device = cuda.device

    def record(self) -> None:
        assert not self.cuda.capturing, "this would become a part of the graph"
        self.cuda.may("record")
        self.at_ms = self.cuda.now_ms

    def query(self) -> bool:
        assert not self.cuda.capturing, "this would end the capture with an error"
        self.cuda.may("query")
        return self.at_ms <= self.cuda.passed_ms

    def elapsed_time(self, other: FakeEvent) -> float:
        if self.device != other.device:
            raise RuntimeError("Both events must be created on the same device")
        assert self.query()
        assert other.query()
        return other.at_ms - self.at_ms


def wait(meter: StallMeter, cuda: FakeCuda, ms: float) -> None:
    meter.begin()
    cuda.now_ms += ms
    meter.end()


def test_each_wait_is_measured_in_seconds() -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    wait(meter, cuda, 30)
    cuda.now_ms += 500  # the step
    wait(meter, cuda, 0)
    assert meter.measured() == pytest.approx([0.03, 0.0])
    assert meter.measured() == []


def test_what_the_gpu_has_not_passed_is_read_later() -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    wait(meter, cuda, 10)
    cuda.passed_ms = cuda.now_ms
    wait(meter, cuda, 20)
    assert meter.measured() == pytest.approx([0.01])
    cuda.passed_ms = cuda.now_ms
    assert meter.measured() == pytest.approx([0.02])


def test_nothing_is_recorded_or_queried_during_a_capture() -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    wait(meter, cuda, 10)
    cuda.capturing = True
    made = cuda.made
    wait(meter, cuda, 10)
    assert meter.measured() == []
    assert cuda.made == made
    cuda.capturing = False
    assert meter.measured() == pytest.approx([0.01])


def test_a_capture_that_begins_during_the_wait_is_not_disturbed() -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    meter.begin()
    cuda.capturing = True
    meter.end()
    cuda.capturing = False
    assert meter.measured() == []
    meter.end()
    assert meter.measured() == []


def test_a_gpu_far_behind_holds_a_bounded_number_of_events() -> None:
    cuda = FakeCuda()
    cuda.passed_ms = -1
    meter = StallMeter(cuda)
    for _ in range(3 * MOST_PENDING):
        wait(meter, cuda, 1)
        assert meter.measured() == []
    assert cuda.made == 2 * MOST_PENDING
    cuda.passed_ms = 1e9
    assert len(meter.measured()) == MOST_PENDING
    wait(meter, cuda, 5)
    assert meter.measured() == pytest.approx([0.005])


@pytest.mark.parametrize("what", ["record", "query", "capturing"])
def test_an_error_of_cuda_is_left_to_the_program(what: str) -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    wait(meter, cuda, 10)
    cuda.fails = what
    wait(meter, cuda, 10)
    if what != "record":
        assert meter.measured() == []
    cuda.fails = ""
    meter.measured()
    wait(meter, cuda, 7)
    assert meter.measured() == pytest.approx([0.007])


def test_a_wait_in_which_the_device_was_changed_is_not_measured() -> None:
    cuda = FakeCuda()
    meter = StallMeter(cuda)
    meter.begin()
    cuda.device = 1
    meter.end()
    assert meter.measured() == []
    wait(meter, cuda, 3)
    assert meter.measured() == pytest.approx([0.003])
