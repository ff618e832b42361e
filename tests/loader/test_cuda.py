"""The layer above NVIDIA's driver, against a driver in C that checks its arguments and records its calls."""

from __future__ import annotations

import ctypes
import gc
import mmap
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from keepfed.loader import device as device_file
from keepfed.loader import torch_seam
from keepfed.loader.cuda import Context, ContextMark, Driver, DriverError
from keepfed.loader.device import CudaDevice, StreamMark, pinning_device, streams_of

SOURCE = Path(__file__).with_name("fake_libcuda.c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the fake driver with")


def build(folder: Path, *options: str) -> Path:
    """The fake driver as a library; each has a name of its own, or the loader would hand out the first again."""
    library = folder / f"libcuda{'-'.join(options)}.so"
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", *options, "-o", library, SOURCE], check=True)
    return library


class Fake:
    """The driver, and what tests tell it."""

    def __init__(self, library: Path) -> None:
        self.driver = Driver(str(library))
        self.tell: Any = ctypes.CDLL(str(library))
        self.tell.fake_calls.restype = ctypes.c_char_p

    def calls(self) -> list[str]:
        said: bytes = self.tell.fake_calls()
        return said.decode().splitlines()

    def context(self, ordinal: int = 0) -> Context:
        context = self.driver.live_context(ordinal)
        assert context is not None
        return context


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(build(tmp_path))


@pytest.fixture
def memory() -> Iterator[tuple[int, int]]:
    """Pages that nobody else has: address and size."""
    pages = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    yield address, 1 << 20
    gc.collect()
    pages.close()


def test_only_contexts_that_somebody_made_are_found(fake: Fake) -> None:
    assert fake.driver.device_count() == 2
    assert fake.driver.live_context(1) is None
    assert fake.context(0).handle == 0x7F0111220000
    fake.tell.fake_activate(1)
    assert fake.context(1).handle == 0x7F0211220000, "all 64 bits of it"
    assert "made a context" not in fake.calls()


def test_a_device_that_does_not_exist_is_a_named_error(fake: Fake) -> None:
    with pytest.raises(DriverError, match="cuDeviceGet: CUresult 101") as caught:
        fake.driver.live_context(7)
    assert caught.value.code == 101


def test_memory_is_registered_for_all_contexts_and_unregistered(fake: Fake, memory: tuple[int, int]) -> None:
    context = fake.context()
    context.register(*memory)
    assert fake.tell.fake_registered() == 1
    context.unregister(memory[0])
    assert fake.tell.fake_registered() == 0


def test_a_thread_without_a_context_gets_one_for_the_call_only(fake: Fake, memory: tuple[int, int]) -> None:
    context = fake.context()
    context.register(*memory)
    assert fake.calls()[-3:] == ["push", f"register {memory[0]:#x} {memory[1]}", "pop"]
    assert fake.tell.fake_depth() == 0


def test_a_context_that_is_current_already_is_not_pushed(fake: Fake, memory: tuple[int, int]) -> None:
    fake.tell.fake_make_current(0)
    fake.context().register(*memory)
    assert "push" not in fake.calls()


def test_the_programs_own_context_is_current_again_after_a_call_that_fails(fake: Fake, memory: tuple[int, int]) -> None:
    fake.tell.fake_activate(1)
    fake.tell.fake_make_current(1)
    context = fake.context(0)
    context.register(*memory)
    with pytest.raises(DriverError, match="cuMemHostRegister_v2: CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"):
        context.register(*memory)
    with pytest.raises(DriverError, match="CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"):
        context.unregister(memory[0] + 4096)
    assert fake.calls().count("push") == fake.calls().count("pop") == 3
    assert fake.tell.fake_depth() == 1


def test_an_event_passes_when_the_work_before_it_is_done(fake: Fake) -> None:
    context = fake.context()
    event = context.record()
    assert event > 1 << 32
    assert not context.passed(event)
    fake.tell.fake_finish()
    assert context.passed(event)


def test_an_event_that_is_no_longer_asked_for_is_used_again(fake: Fake) -> None:
    context = fake.context()
    for _ in range(5):
        mark = ContextMark([(context, context.record())])
        assert not mark.passed()
        fake.tell.fake_finish()
        assert mark.passed()
        assert mark.passed(), "once passed, for ever"
    assert fake.tell.fake_events() == 1


def test_a_mark_that_is_dropped_gives_its_events_back_without_a_call(fake: Fake) -> None:
    context = fake.context()
    mark = ContextMark([(context, context.record())])
    before = fake.calls()
    del mark
    assert fake.calls() == before
    context.record()
    assert fake.tell.fake_events() == 1


def test_a_mark_asks_every_context(fake: Fake) -> None:
    fake.tell.fake_activate(1)
    first, second = fake.context(0), fake.context(1)
    old = second.record()
    fake.tell.fake_finish()
    mark = ContextMark([(first, first.record()), (second, old)])
    assert not mark.passed(), "the first one's work is not done"
    fake.tell.fake_finish()
    assert mark.passed()


def test_a_driver_without_a_function_that_is_needed_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="libnothing"):
        Driver("libnothing.so")
    with pytest.raises(AttributeError, match="cuDeviceGetCount"):
        Driver("libc.so.6")


# ------------------------------------------------------------------------------------------------------------ the device


class Cuda:
    """torch.cuda as far as the device asks it: streams from pools of 32 per priority."""

    def __init__(self) -> None:
        self._handed_out = dict.fromkeys(range(-5, 1), 0)
        outer = self

        class Stream:
            def __init__(self, ordinal: int, priority: int = 0) -> None:
                pool = max(priority, -3)
                self.cuda_stream = 1000 * (1 - pool) + outer._handed_out[pool] % 32
                outer._handed_out[pool] += 1

            @staticmethod
            def priority_range() -> tuple[int, int]:
                return 0, -5

        self.Stream = Stream

    def default_stream(self, ordinal: int) -> Any:
        stream = self.Stream(ordinal)
        stream.cuda_stream = 0
        return stream


def test_streams_are_all_that_torch_can_hand_out_and_each_once() -> None:
    cuda = Cuda()
    handles = {stream.cuda_stream for stream in streams_of(cuda, 0)}
    assert len(handles) == 1 + 4 * 32
    assert all(cuda.Stream(0, priority=priority).cuda_stream in handles for priority in (0, -1, -5) for _ in range(40))


class Stream:
    def __init__(self) -> None:
        self.done = False

    def record_event(self) -> Stream:
        return self

    def query(self) -> bool:
        return self.done


def test_a_mark_of_streams_passes_with_the_last_of_them() -> None:
    streams = [Stream(), Stream(), Stream()]
    mark = StreamMark(streams)
    for stream in streams:
        assert not mark.passed()
        stream.done = True
    assert mark.passed()


@pytest.fixture
def cuda_device(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    monkeypatch.setattr(torch_seam, "watch_captures", lambda: None)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return CudaDevice(fake.driver)


def test_a_device_registers_where_torch_works_and_marks_every_context(
    cuda_device: CudaDevice, fake: Fake, memory: tuple[int, int]
) -> None:
    cuda_device.register(*memory)
    fake.tell.fake_activate(1)  # later, by the program
    mark = cuda_device.mark()
    assert mark is not None
    assert fake.calls().count("record") == 2
    assert not mark.passed()
    fake.tell.fake_finish()
    assert mark.passed()
    cuda_device.unregister(memory[0])
    assert fake.tell.fake_registered() == 0
    assert "made a context" not in fake.calls()


def test_memory_is_registered_in_another_context_when_the_current_device_has_none(
    cuda_device: CudaDevice, fake: Fake, memory: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    cuda_device.register(*memory)
    assert fake.tell.fake_registered() == 1


def test_where_registered_memory_has_another_address_on_the_gpu_none_is_registered(
    cuda_device: CudaDevice, fake: Fake, memory: tuple[int, int]
) -> None:
    fake.tell.fake_no_host_pointers(1)
    with pytest.raises(RuntimeError, match="WSL2"):
        cuda_device.register(*memory)


def test_a_capture_that_torch_does_not_know_of_yields_no_mark_and_loses_no_event(
    cuda_device: CudaDevice, fake: Fake
) -> None:
    fake.tell.fake_capture(1)
    assert cuda_device.mark() is None
    fake.tell.fake_capture(0)
    assert cuda_device.mark() is not None
    assert fake.tell.fake_events() == 1


def test_a_driver_without_context_events_marks_streams(
    tmp_path: Path, cuda_device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Fake(build(tmp_path, "-DOLD_DRIVER"))
    assert not old.driver.has_context_events
    stream = Stream()
    asked: list[int] = []

    def streams(_: Any, ordinal: int) -> list[Stream]:
        asked.append(ordinal)
        return [stream]

    monkeypatch.setattr(device_file, "streams_of", streams)
    device = CudaDevice(old.driver)
    for _ in range(2):
        mark = device.mark()
        assert isinstance(mark, StreamMark)
        assert not mark.passed()
    assert asked == [0], "the device without a context is left alone, and streams are made once"


def test_other_accelerators_and_machines_without_a_driver_have_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_file, "_found", {})
    assert pinning_device("xpu") is None
    monkeypatch.setattr(device_file, "Driver", lambda: Driver("libnothing.so"))
    assert pinning_device("cuda") is None


# ---------------------------------------------------------------------------------------------------------------- captures


class Graph:
    """torch.cuda.CUDAGraph as far as captures go."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.seen: list[bool] = []

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        if self.fails == "begin":
            raise RuntimeError("begin")

    def capture_end(self) -> None:
        self.seen.append(bool(torch_seam._open_captures))
        if self.fails == "end":
            raise RuntimeError("end")


def test_a_capture_is_known_from_its_begin_to_its_end_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.delattr(torch.accelerator, "Graph", raising=False)
    torch_seam.watch_captures.__wrapped__()
    graph, other = Graph(), Graph()
    graph.capture_begin(pool=None, capture_error_mode="relaxed")
    other.capture_begin()
    other.capture_end()
    assert torch_seam.capturing(), "the first one goes on"
    graph.capture_end()
    assert graph.seen == [True]
    assert not torch_seam.capturing()
    for fails in ("begin", "end"):
        broken = Graph(fails)
        if fails == "end":
            broken.capture_begin()
        with pytest.raises(RuntimeError, match=fails):
            getattr(broken, f"capture_{fails}")()
        assert not torch_seam.capturing()
