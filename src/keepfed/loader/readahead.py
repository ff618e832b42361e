"""The program's sampler, read ahead of the batches that it gets: each index once, whatever interrupts.

    sampler ──one call in C──▶ drawn, not in the order yet ──▶ Order.draw

Ctrl-C may come between any two bytecodes. An index is in one of the three places whenever it does, and the next call moves it
on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from keepfed.policy.order import Order


class ReadAhead:
    """One epoch's indices, numbered as they are drawn."""

    def __init__(self, indices: Iterator[Any]) -> None:
        self._indices = indices
        self._numbers = itertools.count()
        self._drawn: deque[tuple[Any, int]] = deque()

    def draw(self, order: Order) -> None:
        """Read the sampler once, as torch does: by `next()` alone; some samplers return themselves from `__iter__`.

        Raises what the sampler raises, but for StopIteration: then there is nothing more.
        """
        once = map(next, itertools.repeat(self._indices))  # compares no index with a sentinel: it may be an array
        self._drawn.extend(itertools.islice(zip(once, self._numbers, strict=False), 1))
        while self._drawn:
            index, number = self._drawn[0]
            order.draw(number, index)
            self._drawn.popleft()

    def unordered(self, order: Order) -> list[Any]:
        """Indices that Ctrl-C kept from the order."""
        return [index for number, index in self._drawn if number >= order.drawn]


def raised_by_sampler(error: BaseException) -> bool:
    """Whether the program's own sampler raised this, while it was read ahead."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not ReadAhead.draw.__code__:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_next is not None
