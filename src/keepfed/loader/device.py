"""What the loader asks of a GPU, and the one answer that there is so far: NVIDIA's, by driver calls.

    Device.register     these bytes are pinned from now on: copies from them run while the program goes on
    Device.mark         a point behind everything that was submitted so far, on any stream (`policy/gate.py` says what for)
    Device.quiet        a graph is being captured: ask nothing now, every question would break the capture

Two ways to set a mark. Drivers of CUDA 12.5 and newer have an event over a whole context (about 1 µs). Older ones get an
event on the default stream and on every stream of torch's pools (about 0.3 ms): torch hands out 32 streams per priority and
then begins anew, so these are all that `torch.cuda.Stream()` can ever return. Streams of other libraries are missed there,
as they are by torch's own pinned memory.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import torch

from keepfed.loader import torch_seam
from keepfed.loader.cuda import Context, ContextMark, Driver, DriverError
from keepfed.policy.gate import Mark

_STREAMS_PER_PRIORITY = 32  # c10/cuda/CUDAStream.cpp, kStreamsPerPool


class Device(Protocol):
    """All GPUs of this process."""

    def register(self, address: int, nbytes: int) -> None:
        """Pin these bytes. Raises DriverError or RuntimeError when that is refused."""

    def unregister(self, address: int) -> None:
        """Undo `register`. Raises DriverError."""

    def quiet(self) -> bool:
        """Whether nothing may be asked now."""

    def mark(self) -> Mark | None:
        """A point behind all that was submitted so far; None when none can be set now."""


class CudaDevice:
    """NVIDIA's GPUs."""

    def __init__(self, driver: Driver) -> None:
        """No call yet: CUDA is initialised when the first slot is registered, on the device that is current then."""
        self._driver = driver
        self._contexts: dict[int, Context] = {}
        self._home: Context | None = None
        self._pools: dict[int, list[Any]] = {}
        torch_seam.watch_captures()

    def register(self, address: int, nbytes: int) -> None:
        """Pin these bytes for all GPUs. Raises DriverError, and RuntimeError where CUDA cannot be used at all."""
        self._at_home().register(address, nbytes)

    def unregister(self, address: int) -> None:
        """Undo `register`. Raises DriverError."""
        self._at_home().unregister(address)

    def quiet(self) -> bool:
        """Whether a CUDA graph is being captured, by any thread, as far as torch knows."""
        return torch_seam.capturing()

    def mark(self) -> Mark | None:
        """A point behind all that was submitted to any GPU; None when the driver refuses."""
        try:
            contexts = self._live()
            if not self._driver.has_context_events:
                return StreamMark([stream for ordinal in contexts for stream in self._pool(ordinal)])
            events: list[tuple[Context, int]] = []
            mark = ContextMark(events)
            events.extend((context, context.record()) for context in contexts.values())
        except (DriverError, RuntimeError):  # a failed device, or a capture of which torch knows nothing
            return None
        return mark

    def _live(self) -> dict[int, Context]:
        for ordinal in range(self._driver.device_count()):
            if ordinal not in self._contexts and (context := self._driver.live_context(ordinal)) is not None:
                self._contexts[ordinal] = context
        return self._contexts

    def _at_home(self) -> Context:
        """The context to register in: of the current device if it has one, else of another, as torch's allocator does."""
        if self._home is None:
            torch.empty(
                1, dtype=torch.uint8, pin_memory=True
            )  # makes a context where torch would, should there be none
            contexts = self._live()
            home = contexts.get(torch.cuda.current_device()) or next(iter(contexts.values()), None)
            if home is None:
                raise RuntimeError("CUDA has no context")
            if not home.can_register():
                raise RuntimeError("CUDA cannot use registered memory here (WSL2)")
            self._home = home
        return self._home

    def _pool(self, ordinal: int) -> list[Any]:
        if ordinal not in self._pools:
            self._pools[ordinal] = streams_of(torch.cuda, ordinal)
        return self._pools[ordinal]


def streams_of(cuda: Any, ordinal: int) -> list[Any]:
    """The default stream of a device, and every one that `torch.cuda.Stream()` can return there."""
    _, greatest = cuda.Stream.priority_range()
    streams = [cuda.default_stream(ordinal)]
    for priority in range(0, greatest - 1, -1):
        streams += [cuda.Stream(ordinal, priority=priority) for _ in range(_STREAMS_PER_PRIORITY)]
    return list({stream.cuda_stream: stream for stream in streams}.values())


class StreamMark:
    """An event on each of these streams."""

    def __init__(self, streams: list[Any]) -> None:
        """Record them."""
        self._events = [stream.record_event() for stream in streams]

    def passed(self) -> bool:
        """Whether all of them have passed."""
        while self._events:
            if not self._events[-1].query():
                return False
            self._events.pop()
        return True


_found: dict[tuple[int, str], Device | None] = {}


def pinning_device(accelerator: str) -> Device | None:
    """What pins memory for this kind of accelerator; None where only torch can (ROCm, XPU, drivers that we do not know)."""
    key = os.getpid(), accelerator  # a forked child has no CUDA
    if key not in _found:
        _found[key] = _cuda_device() if accelerator == "cuda" else None
    return _found[key]


def _cuda_device() -> Device | None:
    if torch.version.hip is not None:
        return None
    try:
        return CudaDevice(Driver())
    except (OSError, AttributeError):
        return None
