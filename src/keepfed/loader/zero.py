"""A program that loads in its own process: when may it be given workers, and how.

`num_workers=0` is many people's default, and the slowest. But moving off it can change what a program means: workers see a
copy of the dataset, of the moment when they were forked. So, before anything else is touched:

    iter(loader)   fork a zygote and one worker: the dataset as it was before its first access in this process
    next() 1, 2    the program's own process makes the batch, from the random state that it has; the worker makes the
                   same one from the same state; they must be equal, byte for byte
    next() …       the dataset's attributes are looked at before and after every fetch: if the loop or a fetch changes
                   them, the program stays as it is, and is told why

Only when both held does the controller get windows to judge, and a Move takes the loader off 0: in mid-epoch, with workers
from that first zygote. Later epochs use the same crew, as long as the dataset stays the same object in the same state.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from keepfed.loader import torch_seam
from keepfed.loader.crew import Crew, Terms, samples_of
from keepfed.loader.epoch import loop_arguments
from keepfed.loader.shelf import Shelf
from keepfed.loader.stats import Tally
from keepfed.loader.watch import State, first_change, first_difference, state_of
from keepfed.plan import Plan
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.pilot import Pilot

CHECKED_BATCHES = 2
"""Batches that a child makes as well, for comparison."""
PATIENCE_S = 60.0
"""How long the child may take for them."""


class Trial:
    """Whether one dataset may be given to workers: the crew that would have it, and the comparison so far."""

    def __init__(self, iterator: ZeroIter, terms: Terms, tally: Tally, shelf: Shelf) -> None:
        """Fork, before the dataset is accessed in this process."""
        self.terms = dataclasses.replace(terms, persistent=True)
        self.dataset: Any = iterator._dataset
        self.refused = ""
        self.passed = False
        self._state: State = state_of(iterator._dataset)
        self._ours: dict[int, Any] = {}
        self._asked = 0
        self._began_s = time.monotonic()
        checking = dataclasses.replace(self.terms, plan=Plan(1, CHECKED_BATCHES), lookahead=0)
        self.crew = Crew(checking, loop_arguments(iterator, checking), tally, shelf)
        self.crew.begin_epoch(iter(()), iterator._shared_seed)

    def refuse(self, reason: str) -> None:
        """It may not; the crew ends."""
        self.refused = self.refused or reason
        self.passed = False
        self._ours.clear()
        self.crew.shut_down()

    def release(self) -> None:
        """The loader is gone: so are its workers, and our hold on its dataset."""
        self.crew.shut_down()
        self.dataset = None

    def watch(self, dataset: Any, key: str) -> None:
        """Refuse when the dataset has changed since the last look; `key` says who must have done it."""
        if not self.refused:
            changed = first_change(self._state, state_of(dataset))
            if changed is not None:
                self.refuse(say(key, what=changed))

    def ask(self, index: Any) -> bool:
        """Let the child make the batch of this index too, from this process's present random state, if one is wanted."""
        if self.refused or self._asked >= CHECKED_BATCHES:
            return False
        self.crew.ask(self._asked, index, random_states())
        return True

    def compare(self, batch: Any) -> None:
        """This is what this process made of the index that was last asked for (a copy: the program may edit its own)."""
        self._ours[self._asked] = copy.deepcopy(batch)
        self._asked += 1

    def look(self) -> None:
        """Take in what the child has made by now; decide when all is there."""
        if self.refused or self.passed:
            return
        try:
            self._take_in()
        except Exception as error:  # whatever the dataset or its batches raise in a child: that is the answer
            self.refuse(say("loader.zero_failed", what=f"{type(error).__name__}: {error}".splitlines()[0]))

    def _take_in(self) -> None:
        for number, batch in list(self._ours.items()):
            answer = self.crew.answer(number)
            if answer is None:
                break
            torch_seam.reraise_if_exception(answer[0])
            where = first_difference(batch, answer[0])
            if where is not None:
                self.refuse(say("loader.zero_differs", number=number, what=where))
                return
            del self._ours[number]
        if self._ours and time.monotonic() - self._began_s > PATIENCE_S:
            raise TimeoutError(f"no answer within {PATIENCE_S:.0f} s")
        self.passed = self._asked >= CHECKED_BATCHES and not self._ours


class ZeroIter(torch_seam.SingleProcessDataLoaderIter):  # type: ignore[misc]  # private base, typed as Any
    """What `iter(loader)` returns for a loader of `num_workers=0` that a pilot steers."""

    def __init__(self, loader: Any, pilot: Pilot) -> None:
        """Begin an epoch: torch's own draws, then in this process, or with the crew that an earlier epoch moved to."""
        super().__init__(loader)
        self._worker_init_fn = loader.worker_init_fn
        self._pilot = pilot
        self._trial = pilot.trial_for(self, loader)
        self._with_crew = self._leaving = False
        pilot.tally.begin_epoch(time.perf_counter())
        pilot.epoch_started()
        self._trial.watch(self._dataset, "loader.zero_changed_by_loop")
        if pilot.plan.num_workers:
            if self._trial.passed:
                self._hire(pilot.plan)
            else:
                pilot.back_to_zero()

    def _next_data(self) -> Any:
        asked_s = time.perf_counter()
        if self._with_crew:
            try:
                return self._trial.crew.deliver(asked_s, self)
            except StopIteration:
                if not self._leaving:
                    raise
                self._with_crew = self._leaving = False
        return self._in_process(asked_s)

    def _in_process(self, asked_s: float) -> Any:
        trial = self._trial
        trial.watch(self._dataset, "loader.zero_changed_by_loop")
        self._pilot.waiting()
        index = self._next_index()
        asked = trial.ask(index)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        batch = self._dataset_fetcher.fetch(index)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        if asked:
            trial.compare(batch)
        trial.watch(self._dataset, "loader.zero_changed_by_fetch")
        trial.look()
        if self._pin_memory:
            batch = torch_seam.pin_memory(batch, self._pin_memory_device)
        now_s = time.perf_counter()
        self._pilot.tally.delivered(asked_s, now_s, samples_of(index))
        self._pilot.made(-1, seconds, cpu_s, 0)
        self._pilot.delivered(self, asked_s, now_s)
        return batch

    # ---- what a pilot asks of an iterator ---------------------------------------------------------------------------

    def undecided(self) -> bool:
        """Whether it is not known yet if this loader may have workers."""
        return not (self._trial.passed or self._trial.refused)

    def refused(self) -> str:
        """Why this loader may have no workers; empty when it may."""
        return self._trial.refused

    def change_plan(self, plan: Plan) -> None:
        """Go to workers, change their number, or come back to this process once what is drawn has been delivered."""
        if plan.num_workers == 0:
            if self._with_crew and not self._leaving:
                self._leaving = True
                self._trial.crew.stop_drawing()
                self._trial.crew.listener = None
        elif self._with_crew and not self._leaving:
            self._trial.crew.change_plan(plan)
        elif not self._leaving:
            self._hire(plan)

    def _hire(self, plan: Plan) -> None:
        crew = self._trial.crew
        crew.terms = self._trial.terms
        crew.listener = self._pilot
        crew.change_plan(plan)
        crew.begin_epoch(self._sampler_iter, self._shared_seed, self._base_seed)
        self._with_crew = True

    def active_workers(self) -> list[int]:
        """Ids of the workers that take tasks."""
        return self._trial.crew.active_workers() if self._with_crew else []

    def worker_bytes(self) -> float:
        """Private memory of one worker."""
        return self._trial.crew.worker_bytes() if self._with_crew else 0.0

    def transport_bytes(self) -> int:
        """Memory that the batches in preparation and in the program's hands take."""
        return self._trial.crew.transport_bytes() if self._with_crew else 0


def random_states() -> tuple[Any, Any, Any]:
    """The global generators of this process, as `worker.reseed` takes them."""
    numpy_state = np.random.get_state()  # noqa: NPY002  # the generator that datasets draw from
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy_state
