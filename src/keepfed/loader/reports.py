"""What a pilot tells of its loader: events for the launcher, in the run folder, and the journal that `why()` reads."""

from __future__ import annotations

import time

from keepfed.events import Ended, Event, LoaderSeen, Moved, Settled, Window
from keepfed.loader.journal import Journal
from keepfed.loader.session import Session
from keepfed.loader.stats import Tally
from keepfed.plan import LoaderId, Plan
from keepfed.policy import controller as policy
from keepfed.policy.controller import Controller
from keepfed.policy.search import Search
from keepfed.policy.window import Observation
from keepfed.text import say


class Reports:
    """Everything that is said of one loader; decides nothing."""

    def __init__(self, loader: LoaderId, asked: Plan, session: Session, plan: Plan, source: str) -> None:
        """`plan` is in force at the start and comes from `source`: "program", "plan", "first-guess" or "rank"."""
        self.journal = Journal(loader, plan, source)
        """What `why()` reads."""
        self._loader, self._asked, self._session = loader, asked, session
        self._began_s = time.monotonic()
        self._before: tuple[float, float] | None = None
        self.has_settled = False
        """Whether a search was over already."""
        self._controller: Controller | Search | None = None
        self._judged = 0

    def emit(self, event: Event) -> None:
        """One line in the run folder, if there is one."""
        self._session.emit(event)

    def seen(self, batch_size: int | None, plan: Plan, source: str, note: str) -> None:
        """The loader is iterated for the first time."""
        self.emit(LoaderSeen(self._loader, batch_size, self._asked, plan, source, handled=True, reason="", note=note))

    def window(self, window: Observation, transport_bytes: int) -> None:
        """A window was measured."""
        memory = int(window.worker_bytes * window.plan.num_workers) + transport_bytes
        times = (window.batches, window.elapsed_s, window.wait_s, window.stall_s)
        self.emit(Window(self._loader, window.plan, *times, memory, window.fetch_s, window.fetch_cpu_s))

    def given_up(self, plan: Plan, reason: str) -> None:
        """A plan could not stay in force, whatever it would have brought."""
        self.emit(Moved(self._loader, plan, 0.0, 0.0, kept=False, reason=reason))

    def judged(self, controller: Controller | Search) -> None:
        """What this controller has judged since it was asked last; a new one begins with nothing."""
        start = controller.estimate(self._asked)
        if start is not None and not self.has_settled:
            self._before = start.batches_per_s, start.starve_share
        if controller is not self._controller:
            self._controller, self._judged = controller, 0
        fresh = controller.judged - self._judged
        for move in list(controller.log)[-fresh:] if fresh else ():
            self.journal.judged(move)
            reason = say(move.reason.key, **move.reason.facts)
            brought = (move.batches_per_s, move.wait_share, move.kept, reason, move.predicted_batches_per_s)
            self.emit(Moved(self._loader, move.plan, *brought))
        self._judged = controller.judged

    def settled(self, decision: policy.Settled, controller: Controller | Search, stays: str) -> Settled:
        """The record of a search that is over, to be emitted when all that belongs to it is known.

        `stays`: why the program's own count stays, in words, where that is what the search came to.
        """
        self.has_settled = True
        if not stays:
            self.journal.settled(decision)
        now = controller.estimate(decision.plan)
        rate, share = (now.batches_per_s, now.starve_share) if now is not None else (0.0, 0.0)
        before_rate, before_share = self._before or (rate, share)
        return Settled(
            self._loader,
            decision.plan,
            rate,
            share,
            self._asked,
            before_rate,
            before_share,
            decision.limited_by,
            stays or say(decision.reason.key, **decision.reason.facts),
            now.stall_share if now is not None else None,
            time.monotonic() - self._began_s,
        )

    def ended(self, plan: Plan, tally: Tally) -> None:
        """The process ends."""
        if tally.batches:
            stats = tally.snapshot()
            self.emit(Ended(self._loader, plan, stats.batches, stats.elapsed_s, stats.wait_s))
