"""The dozen calls of NVIDIA's driver that the loader makes, by ctypes: registering memory, and events over a whole context.

Why the driver and not the runtime that torch uses: a `cudaHostRegister` that is refused leaves its error behind, and the
program's next operation raises it as if it were its own. A driver call reports to its caller and to nobody else.

Why a context-wide event (`cuCtxRecordEvent`, driver 555 of CUDA 12.5 or newer): it covers every stream of the process, those
of CuPy, NCCL or DALI too. An event on the current stream misses the copy that a prefetcher started on a side stream.

Driver calls act on the *current context* of the calling thread, which a thread that never touched CUDA does not have. So
every call here that needs one makes the right one current for its own duration, unless it is already (the usual case).
Nothing here creates a context: only those that torch has made are looked for, and they are kept from then on.

Sources: the CUDA Driver API reference, sections 6.8 (primary contexts), 6.13 (memory), 6.19 (events).
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

SUCCESS = 0
NOT_REGISTERED = 713
_PORTABLE = 0x01  # CU_MEMHOSTREGISTER_PORTABLE: pinned for every context, not only for the current one
_DISABLE_TIMING = 0x02  # CU_EVENT_DISABLE_TIMING: cheaper to record and to ask
_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM = 91

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxGetState": (c_int, c_void_p, c_void_p),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxGetCurrent": (c_void_p,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (c_void_p,),
    "cuMemHostRegister_v2": (c_void_p, c_size_t, c_uint),
    "cuMemHostUnregister": (c_void_p,),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventQuery": (c_void_p,),
    "cuGetErrorName": (c_int, c_void_p),
}
_CONTEXT_EVENT = "cuCtxRecordEvent"


class DriverError(Exception):
    """The driver refused; `code` is its CUresult, the text its name."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name}")
        self.code = code


class Driver:
    """The driver's functions, with their arguments declared: an undeclared one would lose the upper half of a handle."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        """Raises OSError where there is no such library, AttributeError where it lacks a function that is needed."""
        self._library = ctypes.CDLL(library)
        for name, arguments in _SIGNATURES.items():
            self._declare(name, arguments)
        self.has_context_events = hasattr(self._library, _CONTEXT_EVENT)
        """Whether an event can cover a whole context."""
        if self.has_context_events:
            self._declare(_CONTEXT_EVENT, (c_void_p, c_void_p))

    def _declare(self, name: str, arguments: tuple[Any, ...]) -> None:
        function = getattr(self._library, name)
        function.argtypes, function.restype = arguments, c_int

    def call(self, name: str, *arguments: Any) -> int:
        """One call; its CUresult."""
        code: int = getattr(self._library, name)(*arguments)
        return code

    def must(self, name: str, *arguments: Any) -> None:
        """One call. Raises DriverError unless it succeeds."""
        code = self.call(name, *arguments)
        if code != SUCCESS:
            raise self.error(name, code)

    def error(self, call: str, code: int) -> DriverError:
        """What the driver calls this code."""
        name = c_char_p()
        known = self.call("cuGetErrorName", code, byref(name)) == SUCCESS and name.value
        return DriverError(call, code, name.value.decode() if known and name.value else f"CUresult {code}")

    def device_count(self) -> int:
        """How many devices this process may use, numbered as torch numbers them."""
        count = c_int()
        self.must("cuDeviceGetCount", byref(count))
        return count.value

    def live_context(self, ordinal: int) -> Context | None:
        """The primary context of a device, which is the one that torch uses; None where nobody has made it yet."""
        device, flags, active = c_int(), c_uint(), c_int()
        self.must("cuDeviceGet", byref(device), ordinal)
        self.must("cuDevicePrimaryCtxGetState", device, byref(flags), byref(active))
        if not active.value:
            return None
        handle = c_void_p()
        self.must("cuDevicePrimaryCtxRetain", byref(handle), device)
        return Context(self, device.value, handle.value or 0)


class Context:
    """The primary context of one device; it is kept until the process ends."""

    def __init__(self, driver: Driver, device: int, handle: int) -> None:
        self.handle = handle
        self._driver = driver
        self._device = device
        self._spare: list[int] = []

    def _call(self, name: str, *arguments: Any) -> int:
        """One call with this context current; the thread's own is current again afterwards."""
        current = c_void_p()
        if self._driver.call("cuCtxGetCurrent", byref(current)) == SUCCESS and current.value == self.handle:
            return self._driver.call(name, *arguments)
        code = self._driver.call("cuCtxPushCurrent_v2", self.handle)
        if code != SUCCESS:
            return code
        try:
            return self._driver.call(name, *arguments)
        finally:
            self._driver.call("cuCtxPopCurrent_v2", byref(current))

    def _must(self, name: str, *arguments: Any) -> None:
        code = self._call(name, *arguments)
        if code != SUCCESS:
            raise self._driver.error(name, code)

    def can_register(self) -> bool:
        """Whether registered memory can be used under its own address.

        Not under WSL2, where a kernel that is handed such a pointer faults.
        """
        can = c_int()
        self._driver.must("cuDeviceGetAttribute", byref(can), _CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, self._device)
        return bool(can.value)

    def register(self, address: int, nbytes: int) -> None:
        """Pin these bytes for every context. Raises DriverError."""
        self._must("cuMemHostRegister_v2", address, nbytes, _PORTABLE)

    def unregister(self, address: int) -> None:
        """Undo `register`. Raises DriverError."""
        self._must("cuMemHostUnregister", address)

    def record(self) -> int:
        """An event behind everything that was submitted to this context so far. Raises DriverError.

        Must not be called while any stream of the context is being captured: that would invalidate the capture.
        """
        try:
            event = self._spare.pop()
        except IndexError:
            event = self._new_event()
        try:
            self._must(_CONTEXT_EVENT, self.handle, event)
        except DriverError:
            self._spare.append(event)
            raise
        return event

    def _new_event(self) -> int:
        event = c_void_p()
        self._must("cuEventCreate", byref(event), _DISABLE_TIMING)
        return event.value or 0

    def passed(self, event: int) -> bool:
        """Whether everything before the event is done. A device that has failed has done nothing: False for ever."""
        return self._call("cuEventQuery", event) == SUCCESS

    def recycle(self, event: int) -> None:
        """Nobody asks for this event any more. No call to the driver: this may come from the garbage collector."""
        self._spare.append(event)


class ContextMark:
    """One event per live context: everything that this process has submitted to any GPU."""

    def __init__(self, events: list[tuple[Context, int]]) -> None:
        """It owns the events, and gives them back to their contexts."""
        self._events = events

    def passed(self) -> bool:
        """Whether all of it is done."""
        while self._events:
            context, event = self._events[-1]
            if not context.passed(event):
                return False
            self._events.pop()
            context.recycle(event)
        return True

    def __del__(self) -> None:
        """Give back events that nobody waited for."""
        while self._events:
            context, event = self._events.pop()
            context.recycle(event)
