"""May this dataset be given to workers? A crew kept ready beside a program that loads in its own process, and a comparison.

The crew is forked before the first access to the dataset; a file that the dataset opens at its first access is then opened
once per process, and not shared. `zero.py` describes the whole procedure.
"""

from __future__ import annotations

import copy
import dataclasses
import time
import weakref
from typing import TYPE_CHECKING, Any

from keepfed.errors import LoaderError
from keepfed.loader import torch_seam
from keepfed.loader.broken import wants_full_batches
from keepfed.loader.compare import first_difference
from keepfed.loader.crew import Crew
from keepfed.loader.draws import states
from keepfed.loader.epoch import loop_arguments
from keepfed.loader.watch import State, first_change, open_handle, state_of
from keepfed.plan import Plan
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.pilot import Pilot
    from keepfed.loader.zero import ZeroIter

CHECKED_BATCHES = 2
"""Batches that a child makes as well, for comparison."""
PATIENCE_S = 60.0
"""How long the child may take for them, or ten times as long as this process took."""
LOOKING_SHARE = 0.01
"""Once the comparison is over, looking at the dataset may take this share of the time."""


class Trial:
    """Whether one loader's dataset may be given to workers: the crew that would have it, and the comparison so far."""

    def __init__(self, iterator: ZeroIter, pilot: Pilot) -> None:
        """Fork, before the dataset is accessed in this process (unless the answer is known already)."""
        self.terms = dataclasses.replace(
            pilot.terms(),
            persistent=True,
            method=iterator._start_method,
            pin_memory=torch_seam.pins_for(iterator),
            full_batches=wants_full_batches(iterator),
            requests=iterator._requests,
        )
        self.refused = pilot.refused
        self.passed = False
        self.user: weakref.ref[ZeroIter] | None = None
        self.basis = _basis(iterator)
        self._crew: Crew | None = None
        self._ours: dict[int, Any] = {}
        self._void: set[int] = set()
        self._asked = 0
        self._wanted = CHECKED_BATCHES
        self._asked_s = self._took_s = self._rest_until_s = 0.0
        self._looked = True
        if not self.refused:
            try:
                self._begin(iterator, pilot)
            except Exception as error:  # no process, no memory: the program runs on as it is
                self.failed(error)

    def _begin(self, iterator: ZeroIter, pilot: Pilot) -> None:
        if (where := open_handle(*_roots(iterator))) is not None:
            self.refuse(say("loader.zero_open_file", what=where))
            return
        self._state: State = state_of(*_roots(iterator))
        checking = dataclasses.replace(self.terms, plan=Plan(1, CHECKED_BATCHES), lookahead=0)
        self._crew = Crew(checking, loop_arguments(iterator, checking), pilot.tally, pilot.shelf)
        self._crew.begin_epoch(iter(()), iterator._shared_seed)

    @property
    def crew(self) -> Crew:
        """The workers. Raises LoaderError when there are none any more."""
        if self._crew is None or self.refused:
            raise LoaderError(self.refused)
        return self._crew

    def refuse(self, reason: str) -> None:
        """The dataset may not be given to workers; those that are there end."""
        self.refused = self.refused or reason
        self.passed = False
        self._ours.clear()
        if self._crew is not None:
            self._crew.shut_down()

    def failed(self, error: BaseException) -> None:
        """Refuse because of this error."""
        lines = str(error).strip().splitlines() or [""]
        from_worker = "in DataLoader worker process" in lines[0]
        what = lines[-1] if from_worker else f"{type(error).__name__}: {lines[0]}"
        self.refuse(say("loader.zero_failed", what=what))

    def watch(self, iterator: ZeroIter, key: str, *, at_once: bool = False) -> None:
        """Refuse when the dataset has changed since the last look; `key` says who must have done it.

        Once the comparison is over, looks rest in between, unless `at_once`.
        """
        if self.refused or (self.passed and not at_once and time.perf_counter() < self._rest_until_s):
            self._looked = False
            return
        began_s = time.perf_counter()
        changed = first_change(self._state, state_of(*_roots(iterator)))
        if changed is not None:
            self.refuse(say(key if self._looked else "loader.zero_changed", what=changed))
        now_s = time.perf_counter()
        self._rest_until_s = now_s + (now_s - began_s) / LOOKING_SHARE
        self._looked = True

    def ask(self, index: Any) -> int | None:
        """Let the child make the batch of this index too, from this process's present random state, if one is wanted."""
        if self.refused or not self._wanted:
            return None
        number, self._asked = self._asked, self._asked + 1
        self._asked_s = time.monotonic()
        try:
            self.crew.ask(number, index, states())
        except Exception as error:  # an index that cannot be pickled, a child that died
            self.failed(error)
            return None
        return number

    def forget(self, number: int) -> None:
        """This process made nothing of it: an exception, which may be what the program lives with."""
        self._void.add(number)

    def compare(self, number: int, batch: Any, seconds: float) -> None:
        """This is what this process made of it, in `seconds` (a copy is kept: the program may edit its own)."""
        try:
            self._ours[number] = copy.deepcopy(batch)
        except Exception as error:  # a batch of generators, locks, parts of a graph
            self.failed(error)
        self._wanted -= 1
        self._took_s += seconds

    def look(self) -> None:
        """Take in what the child has made by now; decide when all is there."""
        if self.refused or self.passed:
            return
        try:
            self._take_in()
        except Exception as error:  # whatever the dataset or its batches raise in a child: that is the answer
            self.failed(error)

    def _take_in(self) -> None:
        self._void = {number for number in self._void if self.crew.answer(number) is None}
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
        patience_s = max(PATIENCE_S, 10 * self._took_s)
        if self._ours and time.monotonic() - self._asked_s > patience_s:
            raise TimeoutError(f"no answer within {patience_s:.0f} s")
        self.passed = not self._wanted and not self._ours

    def undelivered(self) -> list[Any]:
        """The indices that were drawn for the crew and whose batches the program has not got."""
        return [] if self._crew is None else self._crew.undelivered()


_trials: weakref.WeakKeyDictionary[Any, Trial] = weakref.WeakKeyDictionary()


def trial_of(loader: Any, iterator: ZeroIter, pilot: Pilot) -> Trial:
    """What is known of this loader's dataset, or a new trial."""
    trial = _trials.get(loader)
    if trial is None or (trial.basis != _basis(iterator) and not trial.refused):
        trial = _trials[loader] = Trial(iterator, pilot)
        pilot.trials.add(trial)
    return trial


def _roots(iterator: ZeroIter) -> tuple[Any, Any]:
    """What a worker would have a copy of."""
    return iterator._dataset, iterator._collate_fn


def _basis(iterator: ZeroIter) -> tuple[int, ...]:
    """Another one of these, and the crew is one for another loader."""
    return id(iterator._dataset), id(iterator._collate_fn), id(iterator._worker_init_fn)
