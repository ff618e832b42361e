"""`keepfed.tune(dataset, step_s=…)`: the search of the online controller in a notebook or script, without a training loop.

    loader ──▶ Pilot ──events──▶ Tally ──▶ TuneResult
       └─ batch ─▶ step ─┘ until settled

The very controller that steers a training program steers here, so that what it finds is what it would find there, had the
program that step. Nothing is installed: the loader's iterators are made by a fleet of our own, which is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from keepfed._site.hook import construction_site
from keepfed.errors import UnreachableError, UsageError
from keepfed.events import Event, Settled
from keepfed.feed import RunConfig
from keepfed.loader import draws
from keepfed.loader.fleet import Fleet
from keepfed.loader.gpu_iter import where_asked
from keepfed.loader.session import Session
from keepfed.offline.loop import Step, loop, waiting_step
from keepfed.offline.spec import checked, loader_over
from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.results import LoaderResult, Move, Point
from keepfed.tuning.summary import Tally

MAX_SECONDS = 300.0
"""Longest search, unless told otherwise: thirteen windows of slow batches take three minutes."""


@dataclass(frozen=True, slots=True, repr=False)
class TuneResult:
    """What `keepfed.tune` found. Printing it says so in words."""

    dataset: str
    """Class of the dataset."""

    batch_size: int | None
    """Samples per batch; None without automatic batching."""

    plan: Plan
    """The settings found; the best so far where it has not settled."""

    batches_per_s: float
    """Throughput of the whole loop under them."""

    wait_share: float
    """Share of the time spent waiting for batches under them, 0 to 1."""

    before: Plan
    """The settings at the start."""

    before_batches_per_s: float
    """Throughput under those."""

    before_wait_share: float
    """Share of the time spent waiting under those."""

    limited_by: str
    """What limits the loop now: step, cores, memory, io, workers or unknown."""

    why: str
    """The same in words; empty where it has not settled."""

    settled: bool
    """Whether the search came to its end within `max_seconds`."""

    seconds: float
    """How long it took."""

    points: tuple[Point, ...]
    """Every plan that was measured, fewest workers first."""

    moves: tuple[Move, ...]
    """The plans that were tried, in order, each with its reason."""

    alone: bool
    """Whether there was no step at all, so that this is the loader's own maximum and not a training's need."""

    def __repr__(self) -> str:
        dataset = self.dataset.rpartition(".")[2]
        size = "" if self.batch_size is None else say("tune_report.batches_of", size=self.batch_size)
        state = "offline.settled" if self.settled else "offline.not_settled"
        lines = [
            say("offline.head", dataset=dataset, size=size, state=say(state, seconds=f"{self.seconds:.0f}")),
            f"  {_row(self.plan, self.batches_per_s, self.wait_share)}",
        ]
        if self.before != self.plan:
            row = _row(self.before, self.before_batches_per_s, self.before_wait_share)
            lines.append(f"  {say('offline.started_from', row=row)}")
        if self.why:
            lines.append(f"  {self.why}")
        if self.alone:
            lines.append(f"  {say('offline.alone')}")
        return "\n".join(lines)


def _row(plan: Plan, batches_per_s: float, wait_share: float) -> str:
    settings = f"num_workers={plan.num_workers}"
    if plan.num_workers:
        settings += f", prefetch_factor={plan.prefetch_factor}"
    return say("offline.row", settings=settings, rate=f"{batches_per_s:.3g}", wait=f"{wait_share:.0%}")


def tune(
    dataset: Any,
    *,
    step_s: float = 0.0,
    step: Step | None = None,
    batch_size: int | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    max_seconds: float = MAX_SECONDS,
    exhaustive: bool = False,
) -> TuneResult:
    """Find the number of workers and the prefetch factor for a dataset, or for a DataLoader that is ready.

    `step_s` is how long the training takes per batch, in seconds: the loop waits as long, as for a GPU. `step` is a function
    that is called with each batch instead. Without either the loader's own maximum is found, which a training does not
    need. A dataset is read shuffled, in batches of `batch_size` (32) made by `collate_fn`; a DataLoader keeps its settings,
    and its workers are what is changed. `exhaustive` measures a grid of plans over and over instead of a few.

    The dataset is read for real, in epochs that repeat, until the search has settled or `max_seconds` are over; how many
    these are is a matter of time, so afterwards the random states of Python, NumPy, torch's CPU and the loader's generator
    are what they were. Raises UsageError for what cannot be tuned, UnreachableError when nothing could be measured, and whatever the dataset raises.
    """
    if step is not None and step_s:
        raise UsageError(say("offline.two_steps"), next_step=say("offline.two_steps_next"))
    if not 0 < max_seconds < float("inf"):
        raise UsageError(say("offline.bad_max_seconds", value=max_seconds))
    name = type(dataset).__name__
    loader = loader_over(checked(dataset, name), name, batch_size=batch_size, collate_fn=collate_fn)
    if loader is not dataset:
        site = construction_site(loader, sys._getframe(1), os.getcwd())
        object.__setattr__(loader, "_keepfed_site", site)
    bench = _Bench(RunConfig(mode="tune", search="exhaustive" if exhaustive else "online"))
    with _random_states_kept(loader):
        bench.measure(loader, step or waiting_step(step_s), max_seconds, name)
    return bench.result(alone=step is None and not step_s)


@contextlib.contextmanager
def _random_states_kept(loader: DataLoader[Any]) -> Iterator[None]:
    """A program that draws after this draws what it would have drawn without it."""
    before, generator = draws.states(), loader.generator
    own = generator.get_state() if generator is not None else None
    try:
        yield
    finally:
        draws.restore(before)
        if generator is not None:
            generator.set_state(own)


class _Listening(Session):
    """A session whose events are counted here, and written nowhere."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(None)
        self.config = config
        self.tally = Tally()
        self.settled = False

    @property
    def reports(self) -> bool:
        """Somebody listens: nothing has to be logged."""
        return True

    def emit(self, event: Event) -> None:
        """Count it."""
        self.settled = self.settled or isinstance(event, Settled)
        self.tally.add(os.getpid(), event, time.monotonic())


class _Bench:
    """One search over one loader."""

    def __init__(self, config: RunConfig) -> None:
        self._session = _Listening(config)
        self._fleet = Fleet(self._session)
        self._iterator: Any = None

    def measure(self, loader: DataLoader[Any], step: Step, max_seconds: float, name: str) -> None:
        """Loop until the search has settled or the time is over."""
        end_s = time.monotonic() + max_seconds

        def over() -> bool:
            return self._session.settled or self._left_to_torch() or time.monotonic() >= end_s

        try:
            loop(lambda: self._epoch(loader), step, over, name)
        finally:
            self._iterator = None
            self._fleet.close()

    def _epoch(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """As `iter(loader)`, with our fleet behind it: workers that persist stay in one iterator."""
        if self._iterator is not None and loader.persistent_workers:
            self._iterator._reset(loader)
        else:
            self._iterator = None  # its workers end before the next ones start
            self._iterator = where_asked(loader, self._fleet.iterator(loader))
        iterator: Iterator[Any] = self._iterator
        return iterator

    def _left_to_torch(self) -> bool:
        return any(not result.handled for result in self._session.tally.results())

    def result(self, *, alone: bool) -> TuneResult:
        """What was found. Raises UnreachableError when nothing was measured."""
        (found,) = self._session.tally.results()
        if found.before is None or found.after is None:
            reason = found.left_because if not found.handled else say("offline.too_few_batches")
            raise UnreachableError(say("offline.nothing_measured", reason=reason))
        return _as_result(found, alone=alone)


def _as_result(found: LoaderResult, *, alone: bool) -> TuneResult:
    before, after = found.before, found.after
    assert before is not None
    assert after is not None
    return TuneResult(
        dataset=found.loader.dataset,
        batch_size=found.batch_size,
        plan=after.plan,
        batches_per_s=after.batches_per_s,
        wait_share=after.wait_share,
        before=before.plan,
        before_batches_per_s=before.batches_per_s,
        before_wait_share=before.wait_share,
        limited_by=found.limited_by,
        why=found.reason,
        settled=found.settled,
        seconds=found.seconds,
        points=found.points,
        moves=found.moves,
        alone=alone,
    )
