"""Why a loader has the workers that it has: the last decisions, as `why()` shows them.

A number that changes by itself is trusted only if it can be asked for its reasons, long after the log has scrolled away.
Reasons are kept as keys and facts, and become words when somebody reads them, in the language that is spoken then.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from keepfed.plan import LoaderId, Plan
from keepfed.policy.decision import JudgedMove, Move, Reason, Settled
from keepfed.text import say

KEPT = 64
"""Entries that are remembered; the first one besides."""


@dataclass(frozen=True, slots=True)
class WhyEntry:
    """One decision about one loader."""

    at_s: float
    """When, in seconds since the loader was first iterated."""
    plan: Plan
    """The plan that it is about."""
    reason: str
    """The decision and its reason, in words."""
    batches_per_s: float = 0.0
    """What was measured of that plan; 0 where nothing had been."""
    predicted_batches_per_s: float = 0.0
    """What the model had expected of it; 0 where it had said nothing."""

    def __str__(self) -> str:
        said = self.reason
        if self.batches_per_s:
            key = "loader.why_expected" if self.predicted_batches_per_s else "loader.why_measured"
            said = say(key, reason=said, rate=self.batches_per_s, expected=self.predicted_batches_per_s)
        return f"{self.at_s:8.1f} s  {said}"


@dataclass(frozen=True, slots=True)
class Why:
    """Why a loader has the plan that it has. `str()` of it is for people."""

    loader: str
    """The loader: where it is built, and its dataset."""
    plan: Plan | None
    """The plan in force; None before the first `iter()`."""
    entries: tuple[WhyEntry, ...]
    """The last decisions, oldest first; empty where keepfed decides nothing about this loader."""
    standing: str
    """How things stand, in words."""

    def __str__(self) -> str:
        return "\n".join([say("loader.why_title", loader=self.loader, standing=self.standing), *map(str, self.entries)])


@dataclass(frozen=True, slots=True)
class _Note:
    at_s: float
    plan: Plan
    reason: Reason | str
    batches_per_s: float = 0.0
    predicted_batches_per_s: float = 0.0

    def entry(self) -> WhyEntry:
        said = self.reason if isinstance(self.reason, str) else say(self.reason.key, **self.reason.facts)
        return WhyEntry(self.at_s, self.plan, said, self.batches_per_s, self.predicted_batches_per_s)


class Journal:
    """What was decided about one loader, by its pilot."""

    def __init__(self, loader: LoaderId, plan: Plan, source: str) -> None:
        """Begins with the first plan, which comes from the program, a plan file ("plan", "first-guess") or another "rank"."""
        self.loader = loader
        self._began_s = time.monotonic()
        self._first = _Note(0.0, plan, Reason(f"loader.why_from_{source.replace('-', '_')}", _counts(plan)))
        self._notes: deque[_Note] = deque(maxlen=KEPT)
        self._standing = Reason("loader.why_unmeasured", {})

    def measured(self) -> None:
        """A window of batches was measured."""
        if self._standing.key == "loader.why_unmeasured":
            self._standing = Reason("loader.why_searching", {})

    def moved(self, move: Move) -> None:
        """Another plan was put into force."""
        self._note(move.plan, move.reason)
        self._standing = Reason("loader.why_searching", {})

    def judged(self, move: JudgedMove) -> None:
        """A plan was measured and judged."""
        self._note(move.plan, move.reason, move.batches_per_s, move.predicted_batches_per_s)

    def settled(self, settled: Settled) -> None:
        """The search is over."""
        self._note(settled.plan, settled.reason)
        self._standing = Reason("loader.why_settled", _counts(settled.plan))

    def held(self, plan: Plan, reason: str) -> None:
        """This plan stays, whatever is measured."""
        self._note(plan, reason)
        self._standing = Reason("loader.why_held", _counts(plan))

    def refused(self, plan: Plan, reason: str) -> None:
        """This plan may not be used."""
        self._note(plan, reason)

    def _note(self, plan: Plan, reason: Reason | str, rate: float = 0.0, predicted: float = 0.0) -> None:
        self._notes.append(_Note(time.monotonic() - self._began_s, plan, reason, rate, predicted))

    def read(self, plan: Plan | None) -> Why:
        """The journal in words; `plan` is the one in force."""
        entries = tuple(note.entry() for note in (self._first, *self._notes))
        return Why(str(self.loader), plan, entries, say(self._standing.key, **self._standing.facts))


def _counts(plan: Plan) -> dict[str, object]:
    return {"workers": plan.num_workers, "prefetch": plan.prefetch_factor}


def without_journal(loader: object, plan: Plan | None, *, workers: int, fallback: str) -> Why:
    """What there is to say of a loader that nobody steers."""
    standing = say("loader.why_torch", reason=fallback) if fallback else say("loader.why_asked", workers=workers)
    return Why(type(getattr(loader, "dataset", loader)).__name__, plan, (), standing)
