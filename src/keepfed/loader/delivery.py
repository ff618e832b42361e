"""The last step of `next()`: slots become the batch that the program asked for, where it asked for it.

    slots ─decode─▶ on the CPU                                      pin_memory=False
                    └─▶ pinned, where it lies (or copied, if the    pin_memory=True
                        driver would not register the slot)
                    └─▶ on its way to the GPU ─hand over─▶          device="cuda"
                             └ for the next batch already, if it has arrived

While a graph is being captured nothing is pinned that is not pinned already: allocating pinned memory would break the
capture. The few batches that come out then are right, and in ordinary memory where a new slot or a copy was needed.
"""

from __future__ import annotations

from typing import Any

from keepfed.loader import torch_seam
from keepfed.loader.budget import Account
from keepfed.loader.codec import Encoded
from keepfed.loader.decode import decode, ordinary, pinned
from keepfed.loader.home import Made
from keepfed.loader.lease import LeaseBook
from keepfed.loader.mover import Gpu, Mover, Moving
from keepfed.loader.pinned import Pinning
from keepfed.loader.releases import wait_for_gpu
from keepfed.loader.terms import Terms
from keepfed.policy.order import Order, Task

AHEAD_BATCHES = 1
"""How many batches may be on their way to the GPU before they are asked for.

One is enough: its copy runs while the step before it is computed, and where copying takes longer than that, the bus is busy
all the time. Each more would take one more batch of GPU memory."""
FAR_BEHIND = 2
"""With so many batches of one worker waiting for the GPU, another slot is registered only after a moment's wait."""


class Delivery:
    """How the batches of one iterator are delivered."""

    def __init__(self, terms: Terms, account: Account, pinning: Pinning | None) -> None:
        """Past the account's `held_bytes` in the hands of the program or the GPU, a worker's batches are copied."""
        self._terms = terms
        self._account = account
        self._pinning = pinning
        self._mover = Mover(Gpu(terms.requests.device)) if terms.requests.device else None
        self._ahead: dict[int, Moving] = {}

    def begin_epoch(self) -> None:
        """What was on its way belongs to an epoch that was left."""
        self._ahead.clear()

    def require_possible(self) -> None:
        """Raises LoaderError while no batch can be delivered where it was asked for."""
        if self._mover is not None:
            self._mover.require_no_capture()

    def batch(self, task: Task) -> Any:
        """The batch of this task, which is ready. May be called again after Ctrl-C."""
        if self._mover is None:
            batch = self._decoded(*task.result)
            return torch_seam.pin_memory(batch, self._terms.pin_memory) if self._pins_now() else batch
        moving = self._ahead.get(task.number) or self._moving(*task.result)
        return self._mover.hand_over(moving)

    def look_ahead(self, order: Order) -> None:
        """Begin to copy the batch that comes next, if it is here. Whatever goes wrong goes wrong again at its turn."""
        if self._mover is None:
            return
        for number in [number for number in self._ahead if number not in order.tasks]:
            del self._ahead[number]
        task = order.next_ready()
        if task is None or task.number in self._ahead or len(self._ahead) >= AHEAD_BATCHES or self._mover.quiet():
            return
        try:
            self._ahead[task.number] = self._moving(*task.result)
        except Exception:
            self._ahead.pop(task.number, None)

    def _moving(self, encoded: Encoded | Made, book: LeaseBook) -> Moving:
        assert self._mover is not None
        moving = self._mover.start(self._decoded(encoded, book))
        if encoded.kind != "pickle":  # plain tensors only: the program will never see the host's memory
            for use in encoded.slots:
                book.covered(use[:2], self._mover.mark(moving))
        return moving

    def _decoded(self, encoded: Encoded | Made, book: LeaseBook) -> Any:
        if isinstance(encoded, Made):
            return encoded.batch
        _slow_down(encoded, book)
        copy_all = self._terms.copy_all or book.taken_bytes() > self._account.held_bytes
        if self._mover is not None and book.region.pins is None:
            copy_all = True  # no gate: who knows how other accelerators read memory that is not pinned
        return decode(encoded, book, copy_all=copy_all, room=pinned if self._pins_now() else ordinary)

    def _pins_now(self) -> bool:
        return bool(self._terms.pin_memory) and not (self._pinning is not None and self._pinning.device.quiet())


def _slow_down(encoded: Encoded, book: LeaseBook) -> None:
    """Let a GPU that is far behind come closer before one more slot is registered for it.

    Without a synchronisation in its loop the host may be 40 steps ahead, and each would have its own slot in the end. What
    is waited for is the oldest of several batches: the GPU has the others to go on with.
    """
    pins = book.region.pins
    new = [use[0] for use in encoded.slots if pins.meet(use[0])] if pins is not None else []
    if new and book.waits_for_gpu() >= FAR_BEHIND:
        wait_for_gpu(book)
