"""Memory in which batches travel: one sparse memory file per worker, written by that worker alone.

torch makes, maps, faults in and unmaps a fresh shared-memory file for every tensor of every batch. Here each worker has
one *region*: an anonymous memory file (memfd) that is as large as the memory limit but sparse, mapped once by the worker
and once by the trainer. Inside it the worker carves *slots* and reuses them, so a page is faulted in once.

    worker                                   trainer
    ──────                                   ───────
    SlotWriter.take(n)  ── slot s, gen g ──▶  message "done: slot (offset, used, g)"
      writes                                  Region.lease(offset, …) → owner array → tensors of the batch
                                              … the program drops the last of them: the owner array dies,
                                              its weak reference lands in a deque (and nothing else happens there)
    SlotWriter.release  ◀── (offset, g) ────  the next task message carries it back

Who may write a slot when is therefore never shared state: the worker alone allocates in its region, and it reuses a slot
only when the trainer has given back exactly that use of it (the generation) *and* nothing inside the worker still refers
to it. A worker that died takes its region with it; what the program still holds of it stays mapped until dropped.

Three rules about the owner array, each learned from a way in which data was freed under its reader:
- it is made by `np.frombuffer(mmap, …)` and never sliced out of another array: NumPy collapses `.base` chains, and the
  finalizer of a slice fires while views of its base are alive;
- tensors are made by `torch.frombuffer(owner, …)`, one storage per tensor, exactly as long as the tensor: saving or
  pickling a batch then writes the batch, not the region, and `resize_` cannot grow into a neighbour;
- the weak reference is on the owner, not on a tensor: `t.detach()`, `t.untyped_storage()`, `t.numpy()`, DLPack capsules
  and memoryviews all keep the owner alive, none keeps the tensor object alive.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from keepfed.heartbeat import ROW_BYTES

if TYPE_CHECKING:
    from keepfed.loader.pinned import Pins

Owner = npt.NDArray[np.uint8]
Use = tuple[int, int]
"""One use of a slot: its offset in the region and the generation of that use."""

PAGE = 4096
HUGE_PAGE = 2 << 20
ALIGNMENT = 64
"""Tensors start on cache lines, as torch's own allocator does."""
SMALLEST_REGION = 1 << 30
NOTES_BYTES = 128 << 10
"""The beginning of a region is no slot: there the worker notes its random states and its place in its stream (notes.py), and
what it is doing. Pages of it that are never written take no memory."""
IDLE_TAKES = 64
"""A slot that was not used for so many takes gives up its pages: one outlier, or one epoch whose batches were all kept, must
not hold memory for the rest of a training. Batches in preparation go round in far fewer."""
_MFD_NOEXEC_SEAL = 0x0008  # since Linux 6.3; absent from Python 3.11's os module


def supported() -> bool:
    """Whether this platform has what a region needs: memory files that a child can map."""
    return hasattr(os, "memfd_create") and hasattr(mmap, "MAP_SHARED")


def memory_file() -> int:
    """A new anonymous memory file.

    MFD_NOEXEC_SEAL is asked for first: with vm.memfd_noexec=2 the kernel refuses a file without it, and from 6.3 on it
    logs a warning; kernels before 6.3 answer EINVAL (memfd_create(2)).
    """
    try:
        return os.memfd_create("keepfed", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("keepfed", os.MFD_CLOEXEC)


_mapped: set[weakref.ref[Region]] = set()


def leave_regions() -> None:
    """In a zygote: let go of all regions of the trainer's loaders. It needs none, and would keep them as long as it lives."""
    for reference in _mapped.copy():
        region = reference()
        if region is not None:
            region.leave()


class Region:
    """One worker's memory file, mapped in this process."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = -1
        self.memory = mmap.mmap(fd, size_bytes)
        self.fd = fd
        self.size_bytes = size_bytes
        self.address = np.frombuffer(self.memory, np.uint8, 1).ctypes.data
        self.pins: Pins | None = None
        """What of it the GPU knows; None where it will never know any of it."""
        _mapped.add(weakref.ref(self, _mapped.discard))

    @classmethod
    def create(cls, size_bytes: int) -> Region:
        """A new region of at least 1 GiB and at most `size_bytes` of address space; it takes memory only where written.

        Raises OSError when no memory file of 1 GiB can be made or mapped (ulimit -v, ulimit -f, some sandboxes).
        """
        while True:
            fd = memory_file()
            try:
                os.ftruncate(fd, size_bytes)
                return cls(fd, size_bytes)
            except (OSError, ValueError):
                os.close(fd)
                if size_bytes <= SMALLEST_REGION:
                    raise
                size_bytes = max(SMALLEST_REGION, size_bytes // 4)

    def owner(self, offset: int, nbytes: int) -> Owner:
        """An array over these bytes; everything made from it keeps exactly this array alive."""
        return np.frombuffer(self.memory, np.uint8, nbytes, offset)

    def notes(self) -> memoryview:
        """Its first NOTES_BYTES, but for the heartbeat."""
        return self.owner(0, NOTES_BYTES - ROW_BYTES).data

    def heartbeat(self) -> memoryview:
        """The row in which its worker says what it is doing, where no file has one for it."""
        return self.owner(NOTES_BYTES - ROW_BYTES, ROW_BYTES).data

    def bytes_in_use(self) -> int:
        """Memory that the file holds at present."""
        return os.fstat(self.fd).st_blocks * 512

    def may_be_punched(self) -> bool:
        """Whether its pages may be given back at all."""
        return self.fd >= 0

    def punch(self, offset: int, nbytes: int) -> None:
        """Give these pages back to the system; they read as zeros afterwards."""
        self.memory.madvise(mmap.MADV_REMOVE, offset, nbytes)

    def leave(self) -> None:
        """In a zygote: let go of it, so that its memory goes when the trainer lets go. Where something refers to it, stay."""
        with contextlib.suppress(BufferError):  # a batch that the dataset keeps, and that workers may read
            self.memory.close()
            self.__del__()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone when the interpreter ends
        """Close the file. The mapping goes with the last owner array, wherever that is."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1


def slot_capacity(nbytes: int) -> int:
    """Size class for `nbytes`: eight classes per doubling, so that growing batches reuse slots at ≤ 12.5 % of waste."""
    step = max(PAGE, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


@dataclass(slots=True)
class Slot:
    """A piece of a region, as the worker that owns the region sees it."""

    offset: int
    """Where it starts in the region."""
    capacity: int
    """Bytes that fit."""
    generation: int = 0
    """Number of the current use; a release for another use is ignored."""
    out: bool = False
    """Sent to the trainer and not yet given back."""
    cold: bool = False
    """Its pages were given back to the system."""
    last_take: int = 0
    """When it was last taken, counted in takes."""
    pinned: bool = False
    """Whether the trainer may have registered it with a GPU: its pages must not be given back then."""
    held: weakref.ref[Owner] | None = None
    """The owner array of the last use inside the worker: alive while dataset or collate code still refers to it."""

    def reusable(self) -> bool:
        """Whether nobody, here or in the trainer, can still read it."""
        return not self.out and (self.held is None or self.held() is None)


@dataclass(slots=True)
class SlotWriter:
    """The worker's side of its region: takes slots for results, and takes them back when the trainer is done."""

    region: Region
    """The region of this worker."""
    allowance_bytes: int
    """Memory that the slots may take together before reuse is waited for."""
    wait_for_release: Callable[[], bool]
    """Blocks until the trainer said something; False when it will say no more (it is ending)."""
    released: Callable[[], Iterable[Use]]
    """Uses that the trainer gave back since the last call."""
    unpin: Callable[[tuple[tuple[int, int], ...]], Iterable[int]] | None = None
    """Asks the trainer to unregister slots (offset, size) from the GPU; offsets of those that are; None without a GPU."""
    poison: bool = False
    """Overwrite given-back slots with 0xA5, so that a use after release shows."""
    slots: dict[int, Slot] = field(default_factory=dict)
    """All slots by offset."""
    _free: list[Slot] = field(default_factory=list)
    _end: int = NOTES_BYTES
    _takes: int = 0

    def allow(self, nbytes: int) -> None:
        """From now on the slots may take this much together; what is free beyond that gives up its pages."""
        self.allowance_bytes = nbytes
        while self._resident() > self.allowance_bytes and self._cool_one():
            pass

    def trim(self) -> None:
        """Give the pages of all free slots back to the system."""
        self.release(self.released())
        while self._cool_one():
            pass

    def take(self, nbytes: int) -> tuple[Slot, Owner]:
        """A slot for `nbytes`, most recently used first, and the owner array over it.

        Raises MemoryError when the region's address space is used up.
        """
        self.release(self.released())
        slot = self._reuse(nbytes) or self._within_allowance(nbytes)
        self._takes += 1
        if self._takes % IDLE_TAKES == 0:
            self._cool_idle()
        slot.cold, slot.last_take = False, self._takes
        slot.generation += 1
        owner = self.region.owner(slot.offset, slot.capacity)
        slot.held = weakref.ref(owner)
        return slot, owner

    def sent(self, slots: Iterable[Slot]) -> None:
        """These slots now belong to the trainer."""
        for slot in slots:
            slot.out = True
            slot.pinned = self.unpin is not None

    def unused(self, slot: Slot) -> None:
        """This slot was taken and not sent after all."""
        self._free.append(slot)

    def release(self, uses: Iterable[Use]) -> None:
        """The trainer gives back these (offset, generation) pairs; stale or repeated ones are ignored."""
        for offset, generation in uses:
            slot = self.slots.get(offset)
            if slot is None or not slot.out or slot.generation != generation:
                continue
            slot.out = False
            self._free.append(slot)
            if self.poison and slot.reusable():
                self.region.owner(offset, slot.capacity)[:] = 0xA5

    def _reuse(self, nbytes: int) -> Slot | None:
        for position in range(len(self._free) - 1, -1, -1):
            slot = self._free[position]
            if nbytes <= slot.capacity <= max(4 * nbytes, 64 * PAGE) and slot.reusable():
                return self._free.pop(position)
        return None

    def _within_allowance(self, nbytes: int) -> Slot:
        """A fresh slot; past the allowance first drops idle pages, then waits for the trainer to give something back."""
        capacity = slot_capacity(nbytes)
        while self._resident() + capacity > self.allowance_bytes:
            if self._cool_one() or self._unpin_some(capacity):
                continue
            if not any(slot.out for slot in self.slots.values()) or not self.wait_for_release():
                break
            self.release(self.released())
            if (slot := self._reuse(nbytes)) is not None:
                return slot
        return self._carve(capacity)

    def _resident(self) -> int:
        return sum(slot.capacity for slot in self.slots.values() if not slot.cold)

    def _cool_one(self) -> bool:
        slot = next(filter(self._may_cool, self._free), None)
        if slot is not None:
            self._cool(slot)
        return slot is not None

    def _cool_idle(self) -> None:
        for slot in self._free:
            if self._takes - slot.last_take >= IDLE_TAKES and self._may_cool(slot):
                self._cool(slot)

    def _may_cool(self, slot: Slot) -> bool:
        return not (slot.cold or slot.pinned) and slot.reusable()

    def _cool(self, slot: Slot) -> None:
        self.region.punch(slot.offset, slot.capacity)
        slot.cold = True

    def _cold_slot(self, smallest: int, largest: int) -> Slot | None:
        for position, slot in enumerate(self._free):
            if slot.cold and smallest <= slot.capacity <= largest:
                return self._free.pop(position)
        return None

    def _unpin_some(self, nbytes: int) -> bool:
        """Have free slots of this size together unregistered, those first that were free for longest; whether any was."""
        some: list[Slot] = []
        for slot in self._free:
            if slot.pinned and not slot.cold and slot.reusable() and sum(other.capacity for other in some) < nbytes:
                some.append(slot)
        if not some or self.unpin is None:
            return False
        done = set(self.unpin(tuple((slot.offset, slot.capacity) for slot in some)))
        for slot in some:
            slot.pinned = slot.offset not in done
        return bool(done)

    def _carve(self, capacity: int) -> Slot:
        if (cold := self._cold_slot(capacity, 4 * capacity)) is not None:
            return cold
        alignment = HUGE_PAGE if capacity >= HUGE_PAGE else PAGE
        offset = -(-self._end // alignment) * alignment
        if offset + capacity > self.region.size_bytes:
            if (cold := self._cold_slot(capacity, self.region.size_bytes)) is not None:
                return cold
            raise MemoryError(
                f"a batch needs {capacity} bytes, but the {self.region.size_bytes} bytes of address space of this "
                "worker's region are used up; use a smaller batch_size or prefetch_factor"
            )
        self._end = offset + capacity
        # An earlier worker's slots there may be registered still.
        slot = self.slots[offset] = Slot(offset, capacity, pinned=self.unpin is not None)
        return slot
