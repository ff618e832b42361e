"""What else might make loading faster, where it can matter: tried in fresh processes, and offered with what it brought.

Nothing here is ever switched on by keepfed. Each of these changes what a program is: another start method forgets what the
parent had set up, workers that persist keep the state of their first epoch, and threads of a library belong to whoever set
them. So each is measured and named, and the user decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keepfed.errors import UnreachableError
from keepfed.offline.pairs import ROUNDS, Ratio, ratio, to_and_fro
from keepfed.offline.trial import Facts, Trial, run
from keepfed.plan import Plan
from keepfed.text import say

START_SHARE = 0.02
"""From this share of an epoch on, starting the workers is worth a look."""

LONGEST_EPOCH_S = 6.0
"""Longer epochs are not measured as a whole: four rounds of two things, two epochs each, would take minutes."""

STARVING = 0.05
"""Share of waiting below which no faster worker could gain anything worth the change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that may be tried."""

    key: str
    """Its name."""

    code: str
    """What the user would write."""

    matters: Callable[[Facts, int, float], bool]
    """Whether it can matter, given the facts of a first trial, the workers (at least one) and the cores."""

    whole_epochs: bool = False
    """Whether it shows only over whole epochs."""


def _starts_show(facts: Facts) -> bool:
    return facts.epoch_s <= LONGEST_EPOCH_S and facts.start_s >= START_SHARE * facts.epoch_s


def _threads_show(facts: Facts, module: str) -> bool:
    return facts.wait_share > STARVING and facts.worker_threads > 1 and module in facts.modules


CHANGES: tuple[Change, ...] = (
    Change(
        "opencv_threads",
        "worker_init_fn=lambda _: cv2.setNumThreads(0)",
        lambda facts, _workers, _cores: _threads_show(facts, "cv2"),
    ),
    Change(
        "blas_threads",
        "env OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1",
        lambda facts, _workers, _cores: _threads_show(facts, "numpy"),
    ),
    Change(
        "torch_threads",
        "worker_init_fn=lambda _: torch.set_num_threads(cores // workers)",
        lambda facts, workers, cores: facts.wait_share > STARVING and 2 * workers <= cores,
    ),
    Change("pin_memory", "pin_memory=True", lambda facts, _workers, _cores: facts.cuda),
    Change(
        "persistent_workers",
        "persistent_workers=True",
        lambda facts, _workers, _cores: not facts.persistent and _starts_show(facts),
        whole_epochs=True,
    ),
    Change(
        "forkserver",
        'multiprocessing_context="forkserver"',
        lambda facts, _workers, _cores: facts.start_method == "spawn" and _starts_show(facts),
        whole_epochs=True,
    ),
    Change(
        "fork",  # beside CUDA a fork is not safe
        'multiprocessing_context="fork"',
        lambda facts, _workers, _cores: facts.start_method != "fork" and not facts.cuda and _starts_show(facts),
        whole_epochs=True,
    ),
)
"""In the order in which they are tried."""


def worth_trying(facts: Facts, workers: int, cores: float) -> list[Change]:
    """The changes that can matter here; none without workers."""
    return [change for change in CHANGES if workers and change.matters(facts, workers, cores)]


@dataclass(frozen=True, slots=True)
class Offer:
    """A change and what it brought."""

    change: Change
    """The change."""

    ratio: Ratio
    """How many times faster the loop was with it."""

    def to_json(self) -> dict[str, Any]:
        """One object of "offers"."""
        numbers = {"factor": self.ratio.factor, "low": self.ratio.low, "high": self.ratio.high}
        rounded = {name: round(number, 3) for name, number in numbers.items()}
        return {"key": self.change.key, **rounded, "faster": self.ratio.faster, "text": self.change.code}


def try_changes(
    words: Sequence[str], plan: Plan, cores: float, tell: Callable[[str], None], rounds: int = ROUNDS
) -> tuple[Offer, ...]:
    """Measure what can matter under this plan, each in pairs with the loader as it is. Raises UnreachableError.

    A change that fails where it is tried (no such library in a worker, a dataset that cannot be pickled) is no offer.
    """

    def trial(change: str = "", *, whole: bool = False) -> Trial:
        return Trial(plan.num_workers, plan.prefetch_factor, change, whole)

    changes = worth_trying(run(words, trial()), plan.num_workers, cores)
    offers = []
    for change in changes:
        tell(say("offline.trying", change=change.code))
        pair = (trial(whole=change.whole_epochs), trial(change.key, whole=change.whole_epochs))
        rates: dict[Trial, list[float]] = {one: [] for one in pair}
        try:
            for _, one in to_and_fro(pair, rounds):
                rates[one].append(run(words, one).batches_per_s)
        except UnreachableError as error:
            tell(str(error))
            continue
        offers.append(Offer(change, ratio(rates[pair[1]], rates[pair[0]])))
    return tuple(offers)


def apply(key: str, loader: Any) -> None:
    """Make the change to a loader that was not iterated yet."""
    match key:
        case "opencv_threads" | "torch_threads":
            object.__setattr__(loader, "worker_init_fn", Threads(key, loader.worker_init_fn, loader.num_workers))
        case "pin_memory" | "persistent_workers":
            object.__setattr__(loader, key, True)
        case "fork" | "forkserver":
            loader.multiprocessing_context = key


@dataclass(frozen=True, slots=True)
class Threads:
    """A worker_init_fn that sets how many threads a library keeps, and then does what the program's own does."""

    key: str
    """Which library."""

    own: Callable[[int], None] | None
    """The program's own worker_init_fn."""

    workers: int
    """Workers that share the cores."""

    def __call__(self, worker_id: int) -> None:
        """In the worker, before its first batch."""
        if self.key == "opencv_threads":
            import cv2

            cv2.setNumThreads(0)
        else:
            import torch

            from keepfed.host.facts import read_host
            from keepfed.host.gpu import skip_gpus

            torch.set_num_threads(max(1, int((read_host(gpus=skip_gpus).cores.value or 1) // self.workers)))
        if self.own is not None:
            self.own(worker_id)
