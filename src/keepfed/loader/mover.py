"""Batches on the GPU: copied there while the step before is still computed, and safe to use at once.

    next() k returns                      next() k+1
      │ batch k+1 is here: its copy         │ current stream waits for the copy (the host does not)
      ▼ is queued on a side stream          ▼ and is made known to the allocator as a user of the buffers
    ──compute k──────────────────────────▶──compute k+1──▶     current stream
       ──copy k+1──▶ done                                      side stream
                      └─ the slot goes back to its worker

The buffers of a copy that runs ahead must come from the side stream's part of torch's caching allocator: memory that the
current stream has just freed may still be read by the kernels that stand in its queue. From the hand-over on they are the
consumer's, so it is recorded as their user; otherwise they would be filled with the next batch as soon as the program
drops them, in the middle of its computation.

That can be done for plain tensors in dicts, lists and tuples. Whatever else has a `.to()` (a graph, a sparse tensor, a
subclass) keeps buffers that nobody here could name to the allocator: it is copied at the hand-over, on the consumer's
stream. Containers are rebuilt by the rules of torch's `pin_memory`.
"""

from __future__ import annotations

import collections.abc
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from keepfed.errors import LoaderError
from keepfed.loader import torch_seam
from keepfed.policy.gate import Mark
from keepfed.text import say

_cuda: Any = torch.cuda  # its classes have no types


class Gpu:
    """One GPU, as far as copying to it goes. Tests have another one, whose copies take as long as they say."""

    def __init__(self, device: str) -> None:
        """Without a number: the one that is current at the first batch."""
        self._device = torch.device(device)
        self._side: Any = None

    def begin(self, copies: Callable[[], Any]) -> tuple[Any, Any]:
        """Queue what `copies` copies on the side stream; its result, and an event after the last of them."""
        if self._side is None:
            torch_seam.watch_captures()
            if self._device.index is None:
                self._device = torch.device(self._device.type, torch.cuda.current_device())
            self._side = _cuda.Stream(self._device)
        with torch.cuda.stream(self._side):
            moved = copies()
            done = _cuda.Event()
            done.record(self._side)
        return moved, done

    def copy(self, value: Any) -> Any:
        """A tensor, or whatever has a `.to()`, on the GPU: queued on the present stream."""
        try:
            return value.to(self._device, non_blocking=True)
        except TypeError:
            if isinstance(value, torch.Tensor):
                raise
            return value.to(self._device)

    def adopt(self, tensors: list[torch.Tensor], done: Any) -> None:
        """From here on these belong to the current stream, which goes on when `done` has passed."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        for tensor in tensors:
            tensor.record_stream(current)

    def quiet(self) -> bool:
        """Whether any thread captures a graph: what need not be queued now is not."""
        return torch_seam.capturing()

    def capturing(self) -> bool:
        """Whether the current stream is being captured into a graph."""
        return bool(torch.cuda.is_current_stream_capturing())


class Copied:
    """The mark behind one batch's copies."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def passed(self) -> bool:
        """Whether the copies are done."""
        return bool(self._event.query())


@dataclass(frozen=True, slots=True)
class Moving:
    """A batch on its way to the GPU."""

    batch: Any
    """What is on its way, among what is not: that is copied at the hand-over, or stays."""
    tensors: list[torch.Tensor]
    """The tensors whose copies have begun."""
    left: bool
    """Whether anything is left to be copied at the hand-over."""
    done: Any
    """The event after their copies."""


class Mover:
    """Copies the batches of one iterator to one GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def start(self, batch: Any) -> Moving:
        """Queue the copies of this batch on the side stream. Nothing here waits for the GPU if the batch is pinned."""
        tensors: list[torch.Tensor] = []
        left: list[Any] = []

        def begin(value: Any) -> Any:
            if not _is_plain(value):
                left.append(hasattr(value, "to"))
                return value
            tensors.append(self._gpu.copy(value))
            return tensors[-1]

        moved, done = self._gpu.begin(lambda: rebuilt(batch, begin))
        return Moving(moved, tensors, any(left), done)

    def quiet(self) -> bool:
        """Whether this is no time to run ahead."""
        return self._gpu.quiet()

    def require_no_capture(self) -> None:
        """Raises LoaderError while the current stream is captured: a graph would copy from this slot at every replay."""
        if self._gpu.capturing():
            raise LoaderError(say("loader.next_in_capture"), next_step=say("loader.next_in_capture_next"))

    def mark(self, moving: Moving) -> Mark:
        """The point at which this batch's host memory is read no more, as far as `start` has read it."""
        return Copied(moving.done)

    def hand_over(self, moving: Moving) -> Any:
        """The batch, for use on the current stream from here on."""
        self._gpu.adopt(moving.tensors, moving.done)
        if not moving.left:
            return moving.batch
        there = {id(tensor) for tensor in moving.tensors}

        def finish(value: Any) -> Any:
            return self._gpu.copy(value) if hasattr(value, "to") and id(value) not in there else value

        return rebuilt(moving.batch, finish)

    def moved(self, batch: Any) -> Any:
        """The batch on the GPU, copied now."""
        return self.hand_over(self.start(batch))


def _is_plain(value: Any) -> bool:
    return type(value) is torch.Tensor and value.layout is torch.strided and not value.is_nested


def rebuilt(data: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same containers with other leaves. A leaf is a tensor, whatever has a `.to()`, or no container at all."""
    if isinstance(data, torch.Tensor) or hasattr(data, "to"):
        return leaf(data)
    if isinstance(data, str | bytes):
        return data
    if isinstance(data, collections.abc.Mapping):
        return _rebuilt_mapping(data, {key: rebuilt(value, leaf) for key, value in data.items()})
    if isinstance(data, tuple):
        parts = [rebuilt(value, leaf) for value in data]
        return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)
    if isinstance(data, collections.abc.Sequence):
        return _rebuilt_sequence(data, [rebuilt(value, leaf) for value in data])
    return leaf(data)


def _rebuilt_mapping(data: Any, parts: dict[Any, Any]) -> Any:
    try:
        if not isinstance(data, collections.abc.MutableMapping):
            return type(data)(parts)
        clone = copy.copy(data)  # it may have more to it than its items
        clone.update(parts)
    except TypeError:
        return parts
    return clone


def _rebuilt_sequence(data: Any, parts: list[Any]) -> Any:
    try:
        if not isinstance(data, collections.abc.MutableSequence):
            return type(data)(parts)
        clone = copy.copy(data)
        for number, part in enumerate(parts):
            clone[number] = part
    except TypeError:
        return parts
    return clone
