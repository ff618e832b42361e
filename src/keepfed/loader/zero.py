"""A program that loads in its own process: when may it be given workers, and how.

`num_workers=0` is many people's default, and the slowest. But moving off it can change what a program means: workers see a
copy of the dataset, of the moment when they were forked. So, before anything else is touched:

    iter(loader)   fork a zygote and one worker: the dataset as it was before its first access in this process
    next() 1, 2    the program's own process makes the batch, from the random state that it has; the worker makes the
                   same one from the same state; they must be equal, byte for byte
    next() …       the dataset is looked at before and after every fetch: if the loop or a fetch changes it, the program
                   stays as it is, and is told why

Only when both held does the controller get windows to judge, and a Move takes the loader off 0: in mid-epoch, with workers
from that first zygote. Later epochs use the same crew. Whatever goes wrong with it then (the loop changes the dataset after
all, a worker is killed), the iterator comes home: it makes in its own process what was drawn and not yet delivered, and
goes on from there. An exception of the dataset's is raised from this process too, in the words that the program knows.

A trial belongs to the loader and to its iterators, and ends with the last of them: in `for batch in DataLoader(...)` the
loader is gone before its first batch.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keepfed.errors import EmptyBatch, LoaderError, SkippedTooMany
from keepfed.loader import blame, torch_seam
from keepfed.loader.broken import NOTHING
from keepfed.loader.crew import Crew, samples_of
from keepfed.loader.fallback import start_method
from keepfed.loader.single import SingleIter
from keepfed.loader.trial import trial_of
from keepfed.plan import Plan
from keepfed.policy.governor import Rung

if TYPE_CHECKING:
    from keepfed.loader.pilot import Pilot


class Reader:
    """The sampler's iterator, read ahead for workers: its errors come where the program would have met them."""

    def __init__(self, indices: Iterator[Any]) -> None:
        self.ahead = False
        """Whether an error is kept for later."""
        self.error: Exception | None = None
        """What the sampler raised while it was read ahead."""
        self._indices = indices

    def __iter__(self) -> Reader:
        """An iterator is its own."""
        return self

    def __next__(self) -> Any:
        """The next index."""
        if self.error is None:
            try:
                return next(self._indices)
            except StopIteration:
                raise
            except Exception as error:
                self.error = error
        if self.ahead:
            raise StopIteration
        kept, self.error = self.error, None
        raise kept


class ZeroIter(SingleIter):
    """What `iter(loader)` returns for a loader of `num_workers=0` that a pilot steers."""

    def __init__(self, loader: Any, pilot: Pilot) -> None:
        """Begin an epoch: torch's own draws, then in this process, or with the crew that an earlier epoch moved to."""
        super().__init__(loader, pilot.tally)
        self._owner_pid = os.getpid()
        self._worker_init_fn = loader.worker_init_fn
        self._start_method = start_method(loader)
        self._pilot = pilot
        self._with_crew = False
        self._reader = Reader(self._sampler_iter)
        self._sampler_iter: Any = self._reader
        self._trial = trial_of(loader, self, pilot)
        pilot.tally.begin_epoch(time.perf_counter())
        pilot.epoch_started()
        self._trial.watch(self, "loader.zero_changed_by_loop", at_once=True)
        self._wants_crew = pilot.plan.num_workers > 0
        self._rejoin()

    def _rejoin(self) -> None:
        """The plan is another than 0 since an earlier epoch: back to workers, as soon as it is known that they may."""
        if self._wants_crew and not self.undecided():
            self._wants_crew = False
            try:
                self._hire(self._pilot.plan)
                self._pilot.epoch_started()  # what was measured of this plan stays; what was made here is none of it
            except (LoaderError, OSError) as error:
                self._give_up(error)

    def _next_batch(self) -> Any:
        if (
            os.getpid() != self._owner_pid
        ):  # forked by the program: the crew is the parent's, this epoch is ours as well
            self._come_home()
            return self._make(self._next())
        asked_s = time.perf_counter()
        if self._with_crew:
            self._trial.watch(self, "loader.zero_changed_by_loop")
            if not self._trial.refused:
                return self._from_crew(asked_s)
            self._give_up()
        return self._in_process(asked_s)

    def _from_crew(self, asked_s: float) -> Any:
        crew = self._trial.crew
        before = crew.last_out
        try:
            return crew.deliver(asked_s, self)
        except (EmptyBatch, SkippedTooMany):
            raise
        except Exception as error:
            broken = crew.last_out is not before  # the dataset's own: here it has its own words
            if isinstance(error, StopIteration) and not broken:
                self._come_home()
                if self._reader.error is None:
                    raise
            elif not broken:
                self._give_up(error)
        return self._make(crew.last_out[1]) if broken else self._in_process(asked_s)

    def _in_process(self, asked_s: float) -> Any:
        trial = self._trial
        trial.watch(self, "loader.zero_changed_by_loop")
        self._pilot.waiting()
        index = self._next()
        asked = trial.ask(index)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            batch = self._make(index)
        except BaseException as error:
            if isinstance(error, StopIteration):
                self._epoch_over()
            if asked is not None:
                trial.forget(asked)
            raise
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        if asked is not None and batch is NOTHING:
            trial.forget(asked)
        elif asked is not None:
            trial.compare(asked, batch, seconds)
        trial.watch(self, "loader.zero_changed_by_fetch")
        trial.look()
        waits = self._wants_crew
        self._rejoin()
        if batch is NOTHING:
            return batch
        now_s = time.perf_counter()
        self._pilot.tally.delivered(asked_s, now_s, samples_of(index))
        if not waits:
            self._pilot.made(-1, seconds, cpu_s, 0)
            self._pilot.delivered(self, asked_s, now_s)
        return batch

    def _next(self) -> Any:
        try:
            return self._next_index()
        except StopIteration:
            self._epoch_over()
            raise

    def _epoch_over(self) -> None:
        tally = self._pilot.tally
        tally.epoch_s = time.perf_counter() - tally.epoch_began_s

    def _make(self, index: Any) -> Any:
        try:
            batch = self._dataset_fetcher.fetch(index)
            if self._pin_memory:
                batch = torch_seam.pin_memory(batch, self._pin_memory_device)
        except Exception as error:
            self._blame(error, index)
        self._count_skipped(batch)
        if batch is None:
            blame.tell_of_nothing(self._pilot.tally, self._dataset, self._number(), index)
        return batch

    # ---- to workers and back ----------------------------------------------------------------------------------------

    def _hire(self, plan: Plan) -> None:
        """Raises LoaderError or OSError when there can be no workers; nothing has been drawn then."""
        self._trial.watch(self, "loader.zero_changed_by_loop", at_once=True)
        crew = self._trial.crew
        user = self._trial.user() if self._trial.user is not None else None
        if user is not None:  # two iterators at once: the newer one has the workers
            user._come_home()
        crew.terms = self._trial.terms
        crew.change_plan(plan)
        crew.listener = self._pilot
        self._trial.user = weakref.ref(self)
        self._with_crew = self._reader.ahead = True
        crew.begin_epoch(self._sampler_iter, self._shared_seed, self._base_seed)

    def _come_home(self) -> None:
        """Make here what was drawn for the workers and not delivered; then go on with the sampler."""
        if self._with_crew:
            self._with_crew = self._reader.ahead = False
            self._sampler_iter = itertools.chain(self._trial.undelivered(), self._sampler_iter)

    def _give_up(self, error: Exception | None = None) -> None:
        """No workers for this loader, from here on."""
        if error is not None:
            self._trial.failed(error)
        self._come_home()
        self._pilot.back_to_zero(self._trial.refused)

    # ---- what a pilot asks of an iterator ---------------------------------------------------------------------------

    @property
    def working_crew(self) -> Crew | None:
        """The workers that make its batches; None while this process makes them."""
        return self._trial.crew if self._with_crew else None

    def undecided(self) -> bool:
        """Whether it is not known yet if this loader may have workers."""
        return not (self._trial.passed or self._trial.refused)

    def refused(self) -> str:
        """Why this loader may have no workers; empty when it may."""
        return self._trial.refused

    def change_plan(self, plan: Plan) -> None:
        """Go to workers, change their number, or come home. Raises LoaderError or OSError when there can be none."""
        if plan.num_workers and self._with_crew:
            self._trial.crew.change_plan(plan)
        elif plan.num_workers:
            self._hire(plan)
        elif self._with_crew:
            self._come_home()
            self._trial.crew.change_plan(Plan(1))  # the one that stays is for the way back

    def active_workers(self) -> list[int]:
        """Ids of the workers that take tasks."""
        return self._trial.crew.active_workers() if self._with_crew else []

    def worker_bytes(self) -> float:
        """Private memory of one worker."""
        return self._trial.crew.roster.worker_bytes() if self._with_crew else 0.0

    def memory_allowed(self) -> Rung | None:
        """What is left of the plan, since memory is short; None while that is all of it."""
        return self._trial.crew.memory.allowed if self._with_crew else None

    def memory_room(self) -> int | None:
        """What workers and batches may take together, at present; None where nothing binds them."""
        return self._trial.crew.memory.room_bytes if self._with_crew else None

    def transport_bytes(self) -> int:
        """Memory that the batches in preparation and in the program's hands take."""
        return self._trial.crew.roster.transport_bytes() if self._with_crew else 0
