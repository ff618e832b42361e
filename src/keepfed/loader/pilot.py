"""The hands of the controller for one loader: measures windows, hands them to it, carries out what it says.

    EpochIter ──made, delivered──▶ Pilot ──window──▶ Controller ──Move──▶ Pilot ──change_plan──▶ EpochIter
                                     └──────────── events ──▶ run folder ──▶ launcher

A pilot belongs to a loader's identity, not to the object: a program that builds a new DataLoader every epoch keeps its
plan, its measurements and its memory. Everything happens inside `next()`, on the program's own thread.
"""

from __future__ import annotations

import logging
import time
import traceback
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keepfed.errors import LoaderError
from keepfed.host.busy import BusyMeter
from keepfed.loader.ceiling import Renewal, ceiling, nothing_but, within
from keepfed.loader.epoch import EpochIter, iterator_kind
from keepfed.loader.home import READ_EPOCHS, Home
from keepfed.loader.phases import Parts, PhaseSums
from keepfed.loader.reports import Reports
from keepfed.loader.session import Session
from keepfed.loader.shelf import Shelf
from keepfed.loader.stall import StallMeter
from keepfed.loader.stats import Tally
from keepfed.loader.survey import Survey, pids_of
from keepfed.loader.switches import with_switches
from keepfed.loader.terms import Terms
from keepfed.loader.trial import Trial
from keepfed.plan import LoaderId, Plan
from keepfed.policy import controller as policy
from keepfed.policy.controller import Controller, Decision
from keepfed.policy.search import Search
from keepfed.policy.window import Observation, WindowBuilder
from keepfed.profile import Match
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.homing import Kept

logger = logging.getLogger("keepfed")
WARM_BATCHES = 3
"""Batches after which a new worker counts as warm: the first ones fill its caches and map its memory."""


class Pilot:
    """Steers one loader."""

    def __init__(
        self,
        loader: LoaderId,
        batch_size: int | None,
        asked: Plan,
        session: Session,
        *,
        held: str = "",
        may_go_home: bool = False,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """Take over the loader; says so in the run folder. `held`: why it is measured and never moved, if so.

        `may_go_home`: whether 0 workers may be chosen for a program that asked for some.
        """
        self.loader = loader
        self.tally = Tally()
        self.shelf = Shelf()
        self.asked = asked
        self._session = session
        self._bounds = nothing_but(asked, session.facts) if held else ceiling(session.facts, asked, memory_limit_bytes)
        if may_go_home and not held:
            self._bounds = replace(self._bounds, min_workers=0, zero_allowed=True)
        self._use = session.cores.join()
        match = session.plan_of(loader) if not held else None
        self.plan = self._bounds.clamp(match.plan) if match is not None else asked
        self.crewed = self.plan if self.plan.num_workers else Plan(max(1, asked.num_workers), asked.prefetch_factor)
        """The last plan that had workers."""
        self.no_home = ""
        """Why the batches are not made in this process; empty while that is open, and where it was never asked for."""
        self._home: weakref.ref[Home] | None = None
        self._next: policy.Move | None = None  # back to no workers, when the next epoch begins
        trusted = match is not None and match.measured_here
        self._controller = self._first_controller(match if trusted else None)
        cuda = StallMeter.usable()
        self._stalls = StallMeter() if cuda else None
        self._windows = WindowBuilder(self.plan, min_s=3.0, min_batches=30) if cuda else WindowBuilder(self.plan)
        self._phases, self._tunes = PhaseSums(), session.config.mode == "tune"
        self._made: dict[int, int] = {}
        self._warm = False  # whether all workers are, as they were found since the plan is in force
        self._delivered = 0  # batches of this epoch
        self._unheard = 0
        self._batch_bytes = 0.0
        self._lost = self._surveyed = False
        self._survey: Survey | None = None
        self._renewal = Renewal()
        self._held, self.tally.held = bool(held), held
        self.refused = held
        """Why the worker count stays what the program asks for; empty while it may be changed."""
        self.trials: weakref.WeakSet[Trial] = weakref.WeakSet()
        """Crews that are kept ready for it; they belong to loaders and iterators."""
        self.kept: weakref.WeakSet[Kept] = weakref.WeakSet()
        """Crews that stay from one epoch to the next, since batches were made here."""
        self._busy = BusyMeter(session.facts.cores_pool)
        session.agreement.announce(loader, self.plan)
        source = "program" if match is None else "plan" if trusted else "first-guess"
        self._begin_reports(batch_size, source if session.agreement.decides else "rank", match)

    def _begin_reports(self, batch_size: int | None, source: str, match: Match | None) -> None:
        self._reports = Reports(self.loader, self.asked, self._session, self.plan, source)
        self.tally.journal = self._journal = self._reports.journal
        if self.refused:
            self._journal.held(self.asked, self.refused)
        note = self.refused or say("loader.own_draws" if self.asked.num_workers else "loader.zero_checking")
        if match is not None and match.note:
            note = f"{match.note}; {note}"
        self._reports.seen(batch_size, self.plan, source, note)

    def _first_controller(self, trusted: Match | None) -> Controller | Search:
        """One that only follows changes of load where the plan was settled on this host, else one that explores."""
        if trusted is None:
            exhaustive = self._session.config.search == "exhaustive"
            if exhaustive:
                fewest = min(1, self.asked.num_workers)
                return Search(self.plan, replace(self._bounds, min_workers=fewest, zero_allowed=False))
            return Controller(self.plan, self._bounds)
        evidence = trusted.entry.evidence
        waits = evidence.after.wait_share if evidence is not None else 0.0
        return Controller(self.plan, self._bounds, mode="follow", wait_share=waits)

    # ---- what the iterators need ------------------------------------------------------------------------------------

    def terms(self) -> Terms:
        """How the next iterator runs."""
        if self._held:
            return with_switches(Terms.fixed_count(self.plan.num_workers, self.plan.prefetch_factor))
        bounds = self._bounds
        most, ahead = bounds.max_workers, bounds.max_outstanding
        # What the first epoch's workers have shown need not be shown by those of every other one.
        traced = bounds.zero_allowed and (self.tally.epochs == 0 or self.plan.num_workers == 0)
        terms = Terms(self.plan, fixed=False, max_workers=most, lookahead=ahead, traced=traced)
        return with_switches(terms)

    def back_to_zero(self, reason: str) -> None:
        """The dataset may not be given to workers after all: the program's own process makes its batches from now on."""
        if self.refused:
            return
        tried, self.plan = self.plan, self.asked
        self._refuse(reason)
        self._begin_plan()
        if tried.num_workers:
            self._reports.given_up(tried, self._stays())
            self._session.agreement.announce(self.loader, self.plan)

    def _refuse(self, reason: str) -> None:
        self.refused = self.tally.held = reason
        self._journal.held(self.asked, reason)
        bounds = nothing_but(self.asked, self._session.facts)
        self._controller = Controller(self.asked, bounds)

    # ---- without workers, where the program asked for some -----------------------------------------------------------

    def begin_epoch(self, home: Home) -> None:
        """An epoch is about to begin of a loader whose batches may be made in this process: the moment to go there."""
        if home.refused:
            self.leave_home(home.refused)
        elif (self.plan.num_workers == 0 or self._next) and self._home is not None and self._home() is not home:
            self.leave_home(say("loader.home_built_anew"))
        elif self.plan.num_workers and home.epochs > READ_EPOCHS and self._bounds.zero_allowed and not self._lost:
            self._perhaps_go_home()
        if self.plan.num_workers == 0:
            self._home = weakref.ref(home)

    def _perhaps_go_home(self) -> None:
        agreement = self._session.agreement
        if isinstance(self._controller, Search):
            return  # goes through its grid in mid-epoch
        if agreement.decides:
            decision, self._next = self._next or self._controller.epoch_ended(), None
            plan = decision.plan if isinstance(decision, policy.Move) else None
            if isinstance(decision, policy.Move):
                self._journal.moved(decision)
        else:
            agreed = agreement.announced(self.loader)
            plan = agreed if agreed is not None and agreed.num_workers == 0 else None
        if plan is not None:
            self._in_force(plan)
            if agreement.decides:
                agreement.announce(self.loader, plan)

    def arrived_home(self) -> None:
        """From here on batches are made in this process: what was measured on the way belongs to no window."""
        self._begin_plan()

    def leave_home(self, reason: str) -> None:
        """Batches may not be made in this process after all: back to the last workers that there were, for good."""
        self._next = None
        if self._bounds.zero_allowed:
            self.no_home = say("loader.home_refused", reason=reason)
            self._journal.refused(Plan(0), self.no_home)
            self._bounds = replace(self._bounds, min_workers=1, zero_allowed=False)
            bounds = self._controller.bounds
            self._controller.bounds = replace(
                bounds, min_workers=1, max_workers=max(1, bounds.max_workers), zero_allowed=False
            )
        if self.plan.num_workers == 0 and self.asked.num_workers:
            tried = self.plan
            self._in_force(self.crewed)
            self._reports.given_up(tried, self.no_home)
            if self._session.agreement.decides:
                self._session.agreement.announce(self.loader, self.plan)

    def _in_force(self, plan: Plan) -> None:
        self.plan = plan
        self.crewed = plan if plan.num_workers else self.crewed
        self._begin_plan()

    # ---- windows ----------------------------------------------------------------------------------------------------

    def epoch_started(self) -> None:
        """An iterator was made, or begins anew: its first batch is in no window.

        But where epochs have one batch each, nothing else is ever measured: then what lies between them is a part of it.
        """
        if self._delivered != 1:
            self._windows.epoch_started()
        self._delivered = 0
        self._leave_survey()
        self._use.working(self.plan.num_workers)

    def epoch_ended(self) -> None:
        """There is nothing left to do for the workers."""
        self._use.stopped()

    def made(self, worker_id: int, seconds: float, cpu_s: float, nbytes: int, parts: Parts | None = None) -> None:
        """A worker finished a batch."""
        if not self._warm:
            self._made[worker_id] = self._made.get(worker_id, 0) + 1
        if worker_id >= 0:
            self._batch_bytes += 0.2 * (nbytes - self._batch_bytes)
        self._windows.fetched(seconds, cpu_s)
        if self._tunes and parts is not None:
            self._phases.add(seconds, cpu_s, parts)
        self._use.working(self.plan.num_workers)

    def waiting(self) -> None:
        """The program begins to wait for a batch."""
        if self._stalls is not None:
            self._stalls.begin()

    def delivered(self, iterator: Any, asked_s: float, now_s: float) -> None:
        """A batch is about to be returned: note it; at the end of a window decide.

        An error of ours must not end somebody's training: the plan then stays as it is.
        """
        if not self._lost:
            try:
                self._note(iterator, asked_s, now_s)
            except Exception:
                self._lost = True
                said = say("loader.pilot_lost", loader=self.loader, workers=self.plan.num_workers)
                # As text: a handler that keeps records would keep the iterator, and its workers, with the traceback.
                logger.error("%s\n%s", said, traceback.format_exc())  # noqa: TRY400  # see above

    def _note(self, iterator: Any, asked_s: float, now_s: float) -> None:
        if self._stalls is not None:
            self._stalls.end()
            for stall_s in self._stalls.measured():
                self._windows.stalled(stall_s)
        self._delivered += 1
        if self._survey is not None:
            if self._survey.delivered(now_s, now_s - asked_s):
                self._end_survey()
            return
        warm = self._warm or self._all_warm(iterator)
        if self._windows.delivered(now_s, now_s - asked_s, all_warm=warm):
            window = self._windows.close(
                time.monotonic(),
                batch_bytes=self._batch_bytes,
                worker_bytes=iterator.worker_bytes(),
                host_busy=self._busy.share(),
            )
            if window is not None:
                self._judge(window, iterator)

    def _all_warm(self, iterator: Any) -> bool:
        self._warm = all(self._made.get(worker_id, 0) >= WARM_BATCHES for worker_id in iterator.active_workers())
        return self._warm

    # ---- decisions --------------------------------------------------------------------------------------------------

    def _judge(self, window: Observation, iterator: Any) -> None:
        if iterator.undecided():
            return
        self._journal.measured()
        there = len(iterator.active_workers())
        allowed = iterator.memory_allowed()
        if 0 < there < window.plan.num_workers and not self._held and allowed is None:  # no more processes to be had
            window = replace(window, plan=replace(window.plan, num_workers=there))
        agreement = self._session.agreement
        heard = agreement.exchange(self.loader, window, self._unheard)
        self._unheard = self._unheard + 1 if heard is None else 0
        if heard is None:
            return
        window = heard
        self._use.measured(window.fetch_cpu_s / window.elapsed_s)
        self._reports.window(window, iterator.transport_bytes())
        if self._tunes and window.all_warm and window.fetched:
            self._reports.emit(self._phases.breakdown(self.loader, window, pids_of(iterator)))
        if iterator.refused() and not self.refused:
            self._refuse(iterator.refused())
        if not agreement.decides:
            self._follow(iterator)
            return
        if not self.refused:
            bounds = self._session.cores.bounds(self._bounds, self.asked, self._use)
            bounds = within(bounds, allowed, iterator.memory_room())
            if self._renewal.due(short=allowed is not None):
                self._controller = Controller(self.plan, bounds)
            self._controller.bounds = bounds
        if self._next is None:
            self._carry_out(self._controller.observe(window), window, iterator)

    def _follow(self, iterator: Any) -> None:
        agreed = self._session.agreement.announced(self.loader)
        if agreed is None or self.refused:
            return
        agreed = self._bounds.clamp(agreed)
        if agreed.num_workers == 0 and self.asked.num_workers:
            return  # when the next epoch begins
        if agreed != self.plan:
            self._change(agreed, iterator)

    def _carry_out(self, decision: Decision, window: Observation, iterator: Any) -> None:
        self._reports.judged(self._controller)
        if isinstance(decision, policy.Move):
            if decision.plan.num_workers == 0 and self._bounds.zero_allowed and self.asked.num_workers:
                self._next = decision  # when the next epoch begins; until then no plan is in force that is wanted
            elif self._change(decision.plan, iterator):
                self._journal.moved(decision)
                self._session.agreement.announce(self.loader, decision.plan)
        elif isinstance(decision, policy.Settled):
            self._report_settled(decision, window, iterator)

    def _change(self, plan: Plan, iterator: Any) -> bool:
        """Whether it could be done. Training goes on where no process can be had; the controller then gives that plan up."""
        if plan.num_workers == 0 and self.asked.num_workers:
            return False  # only from one epoch to the next
        try:
            iterator.change_plan(plan)
        except (LoaderError, OSError):
            return False
        self._in_force(plan)
        return True

    def _begin_plan(self) -> None:
        self._leave_survey()
        self._made.clear()
        self._warm = False
        self._windows.changed(self.plan)
        self._phases.start_over()

    def _report_settled(self, decision: policy.Settled, window: Observation, iterator: Any) -> None:
        settled = self._reports.settled(decision, self._controller, self._stays() if self.refused else "")
        if self._surveyed or not self._tunes:
            self._reports.emit(settled)
            return
        self._surveyed, self._survey = True, Survey(settled, window, self._bounds)
        goes_on = False
        try:
            goes_on = not self._session.agreement.others and self._survey.begin(iterator)
        finally:
            if not goes_on:
                self._end_survey()

    def _leave_survey(self) -> None:
        """Another epoch, or another plan: the steps that were being timed will not come."""
        if self._survey is not None:
            self._survey.broken_off()
            self._end_survey()

    def _end_survey(self) -> None:
        """Say what was found, and by that that the loader has settled."""
        survey, self._survey = self._survey, None
        if survey is not None:
            for event in survey.events():
                self._reports.emit(event)
            self._windows.changed(self.plan)
            self._phases.start_over()

    def _stays(self) -> str:
        return say("loader.stays", workers=self.asked.num_workers, reason=self.refused)

    def close(self) -> None:
        """Nobody steers this loader any more: its iterators go on with what they have."""
        self.ended()
        for trial in list(self.trials):
            trial.refuse(say("loader.zero_closed"))
        for kept in list(self.kept):
            kept.let_go()

    def ended(self) -> None:
        """The process ends."""
        self._end_survey()
        self._reports.ended(self.plan, self.tally)


def iterator_with(pilot: Pilot, loader: Any) -> EpochIter:
    """A new iterator over this loader, steered by its pilot."""
    return iterator_kind(loader)(loader, pilot.terms(), pilot.tally, shelf=pilot.shelf, listener=pilot)
