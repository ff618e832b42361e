"""What others would have chosen: torch, Lightning, and a climb such as Paddle's reader does.

- torch's default is 0. Its warning names a "suggested max number of worker": the CPUs that the process may use
  (torch/utils/data/dataloader.py, check_worker_number_rationality).
- Lightning suggests max(1, usable CPUs // processes on this host - 1) (lightning/fabric/utilities/data.py,
  suggested_max_num_workers).
- Paddle measures the loader alone, without the step: 0, 2, 4, ... workers as long as each takes a quarter off the seconds per
  batch of the best so far; at the first that does not, the counts next to the best are looked at, each of which has to take
  off 30 % and more (python/paddle/io/reader.py, AuToTune, 500 batches each). It stays below half the logical CPUs, so that on
  two of them it would look at 0 alone. Here it may climb as far as the sweep does, which is kinder.
"""

from __future__ import annotations

from collections.abc import Callable

CLIMB_GAIN = 0.25
BACK_GAIN = 0.30
BACK_SHRINKS = 0.80
BACK_LOOKS = 5


def torch_default() -> int:
    """What `DataLoader(dataset)` does."""
    return 0


def torch_suggested(usable: int) -> int:
    """The most that torch does not warn about."""
    return usable


def lightning(usable: int, local_world_size: int = 1) -> int:
    """What Lightning suggests."""
    return max(1, usable // local_world_size - 1)


def climb(batch_s: Callable[[int], float], most: int) -> int:
    """The count at which the climb ends; `batch_s` measures the seconds per batch of the bare loader at a count."""
    best, least_s = 0, float("inf")
    for count in range(0, most + 1, 2):
        taken_s = batch_s(count)
        if taken_s < (1 - CLIMB_GAIN) * least_s:
            best, least_s = count, taken_s
            continue
        beside = _beside(batch_s, best, least_s, most)
        if beside == best:
            break
        best = beside
    return best


def _beside(batch_s: Callable[[int], float], best: int, least_s: float, most: int) -> int:
    """The next count above the best one that is faster by a third, and more so from look to look."""
    asked = 1 - BACK_GAIN
    for count in range(best + 1, min(most, best + BACK_LOOKS) + 1):
        if batch_s(count) < asked * least_s:
            return count
        asked *= BACK_SHRINKS
    return best
