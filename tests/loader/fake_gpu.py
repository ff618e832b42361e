"""A GPU of several streams, on which a wrong gate corrupts: copies read the host's memory when their turn comes.

Time passes by `tick()`. A copy stands in the queue of the stream that was current when it was started, behind whatever
sleeps there, and takes its bytes from the *address* that it was given; nothing of it keeps the memory alive or still. A
question about an event, a new event and a registration during a capture break that capture, as the real thing does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from keepfed.loader import delivery, device, pinned
from keepfed.loader.cuda import NOT_REGISTERED, DriverError
from keepfed.policy.gate import Mark


@dataclass(eq=False)
class Job:
    """Work in a stream's queue."""

    run: Callable[[], None]
    ticks: int = 0
    source: int = 0
    """The address that a copy reads."""
    done: bool = False


class Stream:
    """Jobs that run one after the other."""

    def __init__(self) -> None:
        self.queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self.queue.append(job)

    def tick(self) -> None:
        while self.queue:
            job = self.queue[0]
            if job.ticks > 0:
                job.ticks -= 1
                return
            job.run()
            job.done = True
            self.queue.popleft()


@dataclass
class Event:
    """Passes when these jobs are done."""

    gpu: FakeGpu
    jobs: list[Job]

    def passed(self) -> bool:
        self.gpu.question()
        return all(job.done for job in self.jobs)

    query = passed


@dataclass
class FakeGpu:
    """The device that the loader sees, and the GPU that the program uses."""

    streams: list[Stream] = field(default_factory=lambda: [Stream()])
    ranges: dict[int, int] = field(default_factory=dict)
    log: list[tuple[str, int]] = field(default_factory=list)
    refuses: bool = False
    capture: bool = False
    capture_broken: bool = False
    torchs: list[torch.Tensor] = field(default_factory=list)
    marks: int = 0

    def __post_init__(self) -> None:
        self._thread = threading.local()
        self._lock = threading.Lock()

    # ---- what the loader asks ----

    def register(self, address: int, nbytes: int) -> None:
        self.question()
        if self.refuses:
            raise DriverError("cuMemHostRegister_v2", 2, "CUDA_ERROR_OUT_OF_MEMORY")
        assert address % 4096 == nbytes % 4096 == 0
        assert all(address + nbytes <= start or end <= address for start, end in self.ranges.items())
        assert mapped(address, nbytes)
        self.log.append(("register", address))
        self.ranges[address] = address + nbytes

    def unregister(self, address: int) -> None:
        self.question()
        if address not in self.ranges:
            raise DriverError("cuMemHostUnregister", NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED")
        end = self.ranges.pop(address)
        assert mapped(address, end - address), "unmapped while it was registered"
        assert not any(address <= job.source < end for job in self.waiting()), "a copy is in flight"
        self.log.append(("unregister", address))

    def quiet(self) -> bool:
        return self.capture

    def mark(self) -> Mark | None:
        self.question()
        self.marks += 1
        return Event(self, self.waiting())

    def question(self) -> None:
        """Anything that a capture does not survive."""
        self.capture_broken |= self.capture

    def waiting(self) -> list[Job]:
        with self._lock:
            return [job for stream in self.streams for job in stream.queue]

    # ---- what the program does ----

    def current(self) -> Stream:
        stream: Stream = getattr(self._thread, "stream", self.streams[0])
        return stream

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.current()
        self._thread.stream = stream
        try:
            yield
        finally:
            self._thread.stream = before

    def new_stream(self) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def sleep(self, ticks: int) -> None:
        """torch.cuda._sleep."""
        self.current().submit(Job(lambda: None, ticks))

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """tensor.to("cuda", non_blocking=True): at once for pageable memory, in its turn for pinned memory."""
        there = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        assert tensor.is_contiguous()
        source, size = tensor.data_ptr(), tensor.nbytes
        target = there.data_ptr()
        keeper = [there, tensor] if not self.registered(tensor) else [there]  # torch's own allocator keeps its blocks

        def run() -> None:
            assert keeper
            ctypes.memmove(target, source, size)

        if not tensor.is_pinned():
            run()
            return there
        with self._lock:
            self.current().submit(Job(run, source=source))
        return there

    def tick(self, ticks: int = 1) -> None:
        with self._lock:
            for _ in range(ticks):
                for stream in self.streams:
                    stream.tick()

    def finish(self) -> None:
        """torch.cuda.synchronize."""
        while self.waiting():
            self.tick()

    def registered(self, tensor: torch.Tensor) -> bool:
        address = tensor.data_ptr()
        return any(start <= address and address + tensor.nbytes <= end for start, end in self.ranges.items())

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        owned = any(tensor.untyped_storage().data_ptr() == own.untyped_storage().data_ptr() for own in self.torchs)
        return owned or self.registered(tensor)

    def room(self, nbytes: int) -> torch.Tensor:
        """torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)."""
        self.question()
        self.torchs.append(torch.empty(nbytes, dtype=torch.uint8))
        return self.torchs[-1]

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """tensor.pin_memory()."""
        if tensor.is_pinned() or tensor.numel() == 0:
            return tensor
        self.question()
        self.torchs.append(tensor.clone())
        return self.torchs[-1]


def mapped(address: int, nbytes: int) -> bool:
    """Whether this process has these addresses."""
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return address + nbytes <= end
    return False


class CurrentStreamOnly(FakeGpu):
    """Wrong: the event covers the stream that is current in `next()`, and a side stream's copy is still to come."""

    def mark(self) -> Mark | None:
        self.question()
        return Event(self, list(self.current().queue))


class NoEvent(FakeGpu):
    """Wrong: a slot that the program has dropped is taken for free."""

    def mark(self) -> Mark | None:
        return Event(self, [])


class NeverQuiet(FakeGpu):
    """Wrong: knows nothing of captures."""

    def quiet(self) -> bool:
        return False


def plug_in(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch and the loader find this GPU."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor, *_: gpu.is_pinned(tensor), raising=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: gpu.pin(tensor), raising=False)
    monkeypatch.setattr(delivery, "pinned", gpu.room)
    monkeypatch.setattr(device, "_found", {(os.getpid(), "cuda"): gpu})


def leave(gpu: FakeGpu) -> None:
    """The program is done with all its batches: everything that was registered is given back."""
    gpu.finish()
    pinned.settle()
    assert pinned.registered_bytes() == 0
    assert not gpu.ranges


class CopyingGpu:
    """The mover's view of a FakeGpu: it copies on a side stream, and the consumer's stream waits for that."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.fake = gpu
        self.side = gpu.new_stream()
        self.adopted: list[Any] = []

    def begin(self, copies: Callable[[], Any]) -> tuple[Any, Any]:
        with self.fake.stream(self.side):
            return copies(), Event(self.fake, list(self.side.queue))

    def copy(self, value: Any) -> Any:
        return self.fake.copy(value) if isinstance(value, torch.Tensor) else value.to("cuda")

    def adopt(self, tensors: list[torch.Tensor], done: Event) -> None:
        self.adopted += tensors

        def wait() -> None:
            while not all(job.done for job in done.jobs):
                self.side.tick()

        self.fake.current().submit(Job(wait))

    def quiet(self) -> bool:
        return self.fake.capture

    def capturing(self) -> bool:
        return self.fake.capture
