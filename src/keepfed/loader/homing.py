"""Iterators of a loader with "auto", whose batches may be made in the process that trains from one epoch to the next.

    iter()   pilot: stay with workers ─▶ a crew as ever
             pilot: try without ───────▶ a crew of one worker ── proven (home.py) ──▶ its zygote alone, batches made here
                                            │                                            │
                                            └── refused ──▶ workers, from that zygote ◀──┴── refused, or the load has changed

Once batches have been made here, no process is forked from this one for the loader any more, since the dataset may have
left something here that cannot be seen: the zygote is kept for as long as the loader lives, also without
`persistent_workers`, and each epoch's workers are forked from it. Only where the *program* has changed the dataset or the
loader (its collate function), its workers must have that: then the next epoch's are forked anew from here, unless the dataset holds an open file by now.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from keepfed.errors import LoaderError
from keepfed.loader.crew import Crew
from keepfed.loader.epoch import EpochIter
from keepfed.loader.home import Home, home_of, own_of
from keepfed.loader.listener import Listener
from keepfed.loader.shelf import Shelf
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.pilot import Pilot


class Kept:
    """The crew of a loader whose batches were made here, and the iterator that has it now."""

    def __init__(self, crew: Crew, home: Home) -> None:
        self.crew, self.home = crew, home
        self.user: weakref.ref[HomingIter] | None = None
        self._over = False

    def busy(self) -> bool:
        """Whether an iterator is in the middle of its epoch with it."""
        user = self.user() if self.user is not None else None
        return user is not None and not user._shutdown

    def let_go(self) -> None:
        """Nobody will begin another epoch with it: it ends now, or with the epoch that an iterator is in."""
        self._over = True
        if not self.busy():
            self.crew.shut_down()

    def epoch_ended(self) -> None:
        """Its iterator needs no more workers."""
        if self._over:
            self.crew.shut_down()
        else:
            self.crew.dismiss()

    def usable(self) -> bool:
        """Whether it still has something to fork workers from."""
        return not self._over and self.crew.shut_down.alive and not self.crew.roster.pool().barren()

    def is_as(self, home: Home, terms: Terms) -> bool:
        """Whether it would make the batches of this home, on these terms: a program may assign a loader's attributes."""
        alike = dataclasses.replace(terms, plan=self.crew.terms.plan, traced=self.crew.terms.traced)
        return home is self.home and alike == self.crew.terms


class HomingIter(EpochIter):
    """What `iter(loader)` returns for a loader whose batches may be made in this process."""

    def __init__(self, loader: Any, pilot: Pilot) -> None:
        """Begin an epoch, with the workers that the pilot wants, or without."""
        self._pilot = pilot
        self._kept: Kept | None = None
        self._stranded = False
        self._prepare(loader)
        super().__init__(loader, pilot.terms(), pilot.tally, shelf=pilot.shelf, listener=pilot)

    def _prepare(self, loader: Any) -> None:
        self._home = home_of(loader, self._pilot.tally)
        self._home.begin_epoch()
        self._pilot.begin_epoch(self._home)

    def _crew_for(self, loader: Any, terms: Terms, tally: Tally, shelf: Shelf, listener: Listener | None) -> Crew:
        if not terms.persistent and (kept := self._kept_for(loader, terms)) is not None:
            kept.user = weakref.ref(self)
            self._kept = kept
            return kept.crew
        self._home.begin_proof()
        return super()._crew_for(loader, with_one_at_least(terms), tally, shelf, listener)

    def _kept_for(self, loader: Any, terms: Terms) -> Kept | None:
        """What the workers of this epoch are to be forked from, if not from this process."""
        kept: Kept | None = own_of(loader).kept
        if kept is None or not kept.usable():
            return None
        if kept.busy():
            self._home.refuse(say("loader.home_two_iterators"))
            self._pilot.leave_home(self._home.refused)
            return None
        if not kept.is_as(self._home, terms) or (self._home.stale and not self._home.holds_file()):
            own_of(loader).kept = None
            return None
        return kept

    def _begin(self, loader: Any) -> None:
        plan = self._pilot.plan
        if plan.num_workers == 0:
            self._crew.home = self._home
            if not self._persistent_workers and self._kept is None:
                self._kept = own_of(loader).kept = Kept(self._crew, self._home)
                self._kept.user = weakref.ref(self)
                self._pilot.kept.add(self._kept)
            if not self._home.passed:
                plan = Plan(1, plan.prefetch_factor)
        # A crew that is kept stands for one that is made for each epoch: its batches have the same seeds.
        seeds = (None, None) if self._persistent_workers else (self._base_seed, 0)
        self._crew.begin_epoch(self._sampler_iter, self._shared_seed, seeds[0], plan=plan, seed_epoch=seeds[1])

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        if not first_iter and loader is not None:
            self._prepare(loader)
            crew = self._crew
            if crew.shut_down.alive and not crew.active_workers() and crew.roster.pool().barren():
                crew.shut_down()  # it could never have workers again: begin anew, as where they were lost
        super()._reset(loader, first_iter)

    def _next_data(self) -> Any:
        if self._kept is not None and self._shutdown:
            raise StopIteration  # the crew may be another iterator's by now
        if self._crew.home is not None and 0 in (self._pilot.plan.num_workers, self._crew.plan.num_workers):
            self._own()
            self._mind_home()
        return super()._next_data()

    def _mind_home(self) -> None:
        """Go there once it is proven, and leave when it may not be. Every step may be repeated."""
        if threading.get_ident() != threading.main_thread().ident:  # which meanwhile might draw from a batch's seed
            self._home.refuse(say("loader.home_thread"))
        if self._crew.plan.num_workers == 0:
            self._home.look()
        # The pilot may have left for another loader of the same line, while this one was in the middle of its epoch.
        left = bool(self._home.refused) or self._pilot.plan.num_workers > 0
        if left and not self._stranded:
            self._leave()
        elif self._home.passed and self._crew.plan.num_workers:
            self._pilot.arrived_home()
            self.change_plan(self._pilot.plan)

    def _leave(self) -> None:
        """To workers, in mid-epoch. Where no process can be had the program trains on here."""
        try:
            self.change_plan(self._pilot.crewed)
        except (LoaderError, OSError):
            self._stranded = True
        else:
            self._pilot.leave_home(self._home.refused)

    def undecided(self) -> bool:
        """Whether it is not known yet if this process may make the batches, as the pilot wants."""
        return self._pilot.plan.num_workers == 0 and self._crew.plan.num_workers > 0

    def _shutdown_workers(self) -> None:
        """End the workers; of a crew that is kept its zygote stays. In a forked child nothing is ended."""
        if self._kept is None:
            super()._shutdown_workers()
        elif not self._shutdown:
            self._shutdown = True
            if os.getpid() == self._owner_pid:
                self._kept.epoch_ended()


def with_one_at_least(terms: Terms) -> Terms:
    """These terms, with a worker to begin with: whoever makes batches here is compared with one."""
    return dataclasses.replace(terms, plan=Plan(max(1, terms.plan.num_workers), terms.plan.prefetch_factor))
