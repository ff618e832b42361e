"""Both ends of the transport in one process: a region that is mapped twice, as worker and trainer map it."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from typing import Any

import torch

from keepfed.loader.arena import Region, SlotWriter
from keepfed.loader.codec import BatchWriter, Encoded, encode
from keepfed.loader.decode import decode
from keepfed.loader.lease import LeaseBook
from keepfed.loader.pinned import Pinning, Pins


@dataclass
class Carrier:
    """Carries batches from a worker's side to a trainer's."""

    allowance_bytes: int = 1 << 30
    verify: bool = False
    copy_all: bool = False
    pinning: Pinning | None = None
    ended: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        region = Region.create(1 << 30)
        self.book = LeaseBook(Region(os.dup(region.fd), region.size_bytes))
        if self.pinning is not None:
            self.book.region.pins = Pins(self.pinning, self.book.region)
        unpin = None if self.pinning is None else self._unpin
        self.slots = SlotWriter(
            region, self.allowance_bytes, self._wait, self._released, unpin=unpin, poison=self.verify
        )
        self.out = BatchWriter(self.slots, checksums=self.verify)

    def __call__(self, batch: Any) -> Any:
        """The batch as it arrives."""
        return self.receive(self.send(batch))

    def send(self, batch: Any) -> bytes:
        """The worker's half: the message."""
        return pickle.dumps(tuple(encode(batch, self.out)))

    def receive(self, message: bytes) -> Any:
        """The trainer's half."""
        return decode(Encoded(*pickle.loads(message)), self.book, copy_all=self.copy_all)

    def leased(self) -> int:
        """Slots that the trainer's side holds now."""
        self.book.collect(self.ended.append)
        return len(self.book.leases)

    def _released(self) -> Any:
        self.book.collect(self.ended.append)
        uses = self.book.idle()
        self.book.told(uses)
        return uses

    def _unpin(self, slots: tuple[tuple[int, int], ...]) -> list[int]:
        return [offset for offset, nbytes in slots if self.book.unpin(offset, nbytes)]

    def _wait(self) -> bool:
        return False


def elements(tensor: torch.Tensor) -> bytes:
    """The bytes of a strided tensor's elements in order, for every dtype there is."""
    item = tensor.itemsize
    shape, stride = (*tensor.shape, item), (*(step * item for step in tensor.stride()), 1)
    raw = torch.empty(0, dtype=torch.uint8).set_(
        tensor.untyped_storage(), tensor.storage_offset() * item, shape, stride
    )
    return bytes(raw.contiguous().numpy().tobytes())
