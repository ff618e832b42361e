"""What torch's multi-process iterator decides, without processes: `_try_put_index`, `_next_data` and `_process_data` of 2.13."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

END = "the dataset of this worker has no more"


@dataclass
class StreamWorker:
    """A worker over an iterable dataset as torch's loop is one: says once that there is no more, then answers nothing."""

    number: int
    length: int
    tasks: deque[int] = field(default_factory=deque)
    made: int = 0
    ended: bool = False

    def finish(self) -> tuple[int, Any] | None:
        """The first task's number with its batch (worker, place in its stream) or END; None where torch says nothing."""
        number = self.tasks.popleft()
        if self.ended:
            return None
        if self.made == self.length:
            self.ended = True
            return number, END
        self.made += 1
        return number, (self.number, self.made - 1)


class TorchModel:
    """torch's order over `indices`; with `lengths` over iterable datasets of so many batches per worker."""

    def __init__(
        self, workers: int, prefetch: int, indices: Any, *, in_order: bool, lengths: Sequence[int] | None = None
    ) -> None:
        self.in_order, self.prefetch = in_order, prefetch
        self.sampler = iter(indices)
        self.cycle = itertools.cycle(range(workers))
        self.status = [True] * workers
        self.load = [0] * workers
        self.task_info: dict[int, tuple[Any, ...]] = {}
        self.assigned: dict[int, int] = {}
        self.workers = [StreamWorker(number, lengths[number] if lengths else 1 << 30) for number in range(workers)]
        self.messages: deque[tuple[int, Any]] = deque()
        self.out: list[Any] = []
        self.send_number = self.received_number = self.reads = 0
        for _ in range(workers * prefetch):
            self.try_put_index()

    @property
    def queues(self) -> list[deque[int]]:
        return [worker.tasks for worker in self.workers]

    def try_put_index(self) -> None:
        self.reads += 1
        if next(self.sampler, END) is END:
            return
        for worker in itertools.islice(self.cycle, len(self.workers)):
            share = self.prefetch * len(self.workers) // max(1, sum(self.status))
            if self.status[worker] and (self.in_order or self.load[worker] < share):
                break
        else:
            return
        self.workers[worker].tasks.append(self.send_number)
        self.assigned[self.send_number] = worker
        self.task_info[self.send_number] = (worker,)
        self.load[worker] += 1
        self.send_number += 1

    def finish(self, worker: int) -> None:
        message = self.workers[worker].finish()
        if message is not None:
            self.messages.append(message)

    def next_data(self) -> Any:
        """The batch that comes out, END of the epoch, or None: torch waits for a message."""
        while True:
            while self.received_number < self.send_number:
                info = self.task_info.get(self.received_number)
                if info:
                    if len(info) == 2 or self.status[info[0]]:
                        break
                    del self.task_info[self.received_number]
                self.received_number += 1
            else:
                return END
            if len(self.task_info[self.received_number]) == 2:
                worker, data = self.task_info.pop(self.received_number)
                self.received_number += 1
                return self._process(data, worker)
            if not self.messages:
                return None
            number, data = self.messages.popleft()
            if data is END:
                self.status[self.assigned[number]] = False
                self.try_put_index()
            elif self.in_order and number != self.received_number:
                self.task_info[number] += (data,)
            else:
                self.received_number += number == self.received_number
                return self._process(data, self.task_info.pop(number)[0])

    def _process(self, data: Any, worker: int) -> Any:
        self.load[worker] -= 1
        self.try_put_index()
        self.out.append(data)
        return data
