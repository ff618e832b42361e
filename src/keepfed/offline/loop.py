"""A training loop without a training: epochs over a loader, a step after every batch, until somebody has seen enough.

The step stands for what the program would do with a batch. Without one the loop takes batches as fast as they come, and what
is found is the loader's own maximum: more workers than a real step would need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from keepfed.errors import UsageError
from keepfed.offline.spec import FEWEST_BATCHES
from keepfed.text import say

Step = Callable[[Any], object]


def waiting_step(step_s: float) -> Step:
    """A GPU's step as the CPU sees it: nothing to compute, so many seconds to wait. Raises UsageError for no such time."""
    if not 0 <= step_s < 3600:
        raise UsageError(say("offline.bad_step", value=f"{step_s:g}"), next_step=say("offline.bad_step_next"))

    def step(_batch: Any) -> None:
        if step_s:
            time.sleep(step_s)

    return step


def loop(epoch: Callable[[], Iterator[Any]], step: Step, over: Callable[[], bool], name: str) -> None:
    """Epoch after epoch until `over()` says so after a step. Raises UsageError when an epoch is too short to be measured."""
    while True:
        batches = 0
        batch = None
        for batch in epoch():
            batches += 1
            step(batch)
            if over():
                return
        del batch  # it must not outlive its epoch: an iterator that ends wants its memory back
        if batches < FEWEST_BATCHES:
            facts = {"name": name, "batches": batches, "least": FEWEST_BATCHES}
            raise UsageError(say("offline.short_epoch", **facts), next_step=say("offline.too_short_next"))
