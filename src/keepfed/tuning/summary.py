"""Events → results: what was learned about each loader of the program.

Events come from several processes. Under a distributed launcher every rank reports the same loader, while one rank of the
host decides for all; adding them up would count one loader as many, and mixing their numbers would describe none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keepfed.events import Ended, Event, Joined, LoaderSeen, Moved, Note, Settled, Window
from keepfed.plan import LoaderId, Plan
from keepfed.profile import LIMITS, Measured

MINOR_SHARE = 0.1
"""A loader that takes less than this part of the measured time (a short evaluation) decides nothing."""


@dataclass(frozen=True, slots=True)
class Move:
    """One plan that was tried on the running program."""

    tried: Measured
    """The plan, and what it brought."""

    kept: bool
    """Whether it was kept."""

    reason: str
    """Why it was tried and what came of it, in words."""

    def to_json(self) -> dict[str, Any]:
        """One flat object with the keys of `Measured`, and "kept" and "reason"."""
        return {**self.tried.to_json(), "kept": self.kept, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class LoaderResult:
    """What was learned about one loader."""

    loader: LoaderId
    """Which loader."""

    batch_size: int | None
    """Samples per batch; None without automatic batching."""

    asked: Plan | None
    """What the program asks for; None if the report of it was lost."""

    before: Measured | None
    """The plan at the start and what it brought; None if nothing was measured."""

    after: Measured | None
    """The best plan so far and what it brought; None if nothing was measured."""

    moves: tuple[Move, ...]
    """The plans tried, in order."""

    settled: bool
    """Whether the search is over."""

    limited_by: str
    """What limits the program now: step, cores, memory, io, workers or unknown."""

    reason: str
    """The same in words; empty when not settled."""

    stall_share_before: float | None
    """Share of the time that the GPU idled for want of data at the start; None off CUDA."""

    stall_share: float | None
    """The same now."""

    memory_before_bytes: int | None
    """Memory of workers and transport at the start; None if not measured."""

    memory_bytes: int | None
    """The same now."""

    seconds: float
    """How long the search took, or has taken so far."""

    measured_s: float
    """Time covered by measurements."""

    processes: int
    """Processes that iterate this loader (ranks of this host)."""

    ended: bool
    """Whether the loader will report no more."""

    handled: bool
    """False when torch's own iterator runs it."""

    left_because: str
    """Why torch's own iterator runs it, in words."""

    note: str
    """What else the program's side has to say about it."""

    @property
    def measured(self) -> bool:
        """Whether anything at all was measured."""
        return self.before is not None

    def to_json(self) -> dict[str, Any]:
        """The object that `tune --json` writes for a loader. Only for measured ones."""
        if self.before is None or self.after is None:
            raise ValueError(f"{self.loader} was not measured")
        return {
            "dataset": self.loader.dataset,
            "site": self.loader.site,
            "batch_size": self.batch_size,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "limited_by": self.limited_by,
            "moves": [move.to_json() for move in self.moves],
            "settled": self.settled,
            "stall_share": None if self.stall_share is None else round(self.stall_share, 4),
            "seconds": round(self.seconds, 1),
        }


@dataclass(slots=True)
class _Sum:
    """Windows of one plan, added up: means over whole windows, since single steps are bimodal under accumulation."""

    batches: int = 0
    elapsed_s: float = 0.0
    wait_s: float = 0.0
    stall_s: float | None = None
    rss_bytes: int = 0

    def add(self, window: Window) -> None:
        self.batches += window.batches
        self.elapsed_s += window.elapsed_s
        self.wait_s += window.wait_s
        if window.stall_s is not None:
            self.stall_s = (self.stall_s or 0.0) + window.stall_s
        self.rss_bytes = max(self.rss_bytes, window.rss_bytes)

    def measured(self, plan: Plan) -> Measured:
        return Measured(plan, self.batches / self.elapsed_s, _share(self.wait_s / self.elapsed_s))

    def stall_share(self) -> float | None:
        return None if self.stall_s is None else _share(self.stall_s / self.elapsed_s)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


@dataclass(slots=True)
class _Strand:
    """What one process reported about one loader."""

    first_s: float
    last_s: float
    seen: LoaderSeen | None = None
    sums: dict[Plan, _Sum] = field(default_factory=dict)
    moves: list[Moved] = field(default_factory=list)
    settled: Settled | None = None
    before: Measured | None = None
    ended: bool = False

    def add(self, event: Event, now_s: float) -> None:
        self.last_s, self.ended = now_s, isinstance(event, Ended)
        match event:
            case LoaderSeen():
                self.seen = event
            case Window() if event.elapsed_s > 0:
                self.sums.setdefault(event.plan, _Sum()).add(event)
            case Moved():
                # A plan may be reported when it is tried and again when it is judged: the judgement counts.
                if self.moves and self.moves[-1].plan == event.plan and not self.moves[-1].batches_per_s:
                    self.moves.pop()
                self.moves.append(event)
            case Settled():
                if self.settled is None:
                    self.before = Measured(event.before, event.before_batches_per_s, _share(event.before_wait_share))
                self.settled = event

    def weight(self) -> tuple[bool, bool, float]:
        """Orders the processes of one loader: the one that decides, then the one that measured most."""
        follows = self.seen is not None and self.seen.source == "rank"
        return (self.settled is not None, not follows, self.measured_s())

    def measured_s(self) -> float:
        return sum(total.elapsed_s for total in self.sums.values())

    def start(self) -> Measured | None:
        if self.before is not None:
            return self.before
        if not self.sums:
            return None
        first = self.seen.used if self.seen is not None and self.seen.used in self.sums else next(iter(self.sums))
        return self.sums[first].measured(first)

    def best(self) -> Measured | None:
        if self.settled is not None:
            return Measured(self.settled.plan, self.settled.batches_per_s, _share(self.settled.wait_share))
        for move in reversed(self.moves):
            if move.kept and self.sums:
                return Measured(move.plan, move.batches_per_s, _share(move.wait_share))
        return self.start()

    def result(self, loader: LoaderId, processes: int) -> LoaderResult:
        before, after, seen, settled = self.start(), self.best(), self.seen, self.settled
        first = self.sums.get(before.plan) if before else None
        last = self.sums.get(after.plan) if after else None
        stall = last.stall_share() if last else None
        return LoaderResult(
            loader=loader,
            batch_size=seen.batch_size if seen else None,
            asked=seen.asked if seen else None,
            before=before,
            after=after,
            moves=tuple(
                Move(Measured(move.plan, move.batches_per_s, _share(move.wait_share)), move.kept, move.reason)
                for move in self.moves
            ),
            settled=settled is not None,
            limited_by=settled.limited_by if settled and settled.limited_by in LIMITS else "unknown",
            reason=settled.reason if settled else "",
            stall_share_before=first.stall_share() if first else None,
            stall_share=settled.stall_share if settled and settled.stall_share is not None else stall,
            memory_before_bytes=first.rss_bytes if first else None,
            memory_bytes=last.rss_bytes if last else None,
            seconds=settled.seconds if settled else self.last_s - self.first_s,
            measured_s=self.measured_s(),
            processes=processes,
            ended=self.ended,
            handled=seen.handled if seen else True,
            left_because=seen.reason if seen else "",
            note=seen.note if seen else "",
        )


class Tally:
    """Folds events as they come; `results()` is what is known so far."""

    def __init__(self) -> None:
        self._strands: dict[LoaderId, dict[int, _Strand]] = {}
        self.joined: dict[int, Joined] = {}
        """Processes that armed themselves, by pid."""
        self.notes: list[str] = []
        """Sentences for the user, each once."""

    def add(self, pid: int, event: Event, now_s: float) -> None:
        """Take in one event of process `pid`, heard at `now_s` on the launcher's clock."""
        if isinstance(event, Joined):
            self.joined[pid] = event
        elif isinstance(event, Note):
            if event.text not in self.notes:
                self.notes.append(event.text)
        elif isinstance(event, LoaderSeen | Window | Moved | Settled | Ended):
            strand = self._strands.setdefault(event.loader, {}).setdefault(pid, _Strand(now_s, now_s))
            strand.add(event, now_s)

    def decides(self, pid: int, loader: LoaderId) -> bool:
        """Whether the reports of `pid` are the ones that stand for `loader`."""
        strands = self._strands.get(loader, {})
        return pid in strands and max(strands, key=lambda other: strands[other].weight()) == pid

    def results(self) -> tuple[LoaderResult, ...]:
        """One result per loader, in the order in which the loaders appeared."""
        return tuple(
            max(strands.values(), key=_Strand.weight).result(loader, len(strands))
            for loader, strands in self._strands.items()
        )


def counting(results: tuple[LoaderResult, ...]) -> tuple[LoaderResult, ...]:
    """The measured loaders that decide about the end and the exit code: all but those with a minor share of the time."""
    measured = [result for result in results if result.measured]
    total_s = sum(result.measured_s for result in measured)
    return tuple(result for result in measured if result.settled or share_of(result, total_s) >= MINOR_SHARE)


def share_of(result: LoaderResult, total_s: float) -> float:
    """Part of the measured time that one loader takes; 1 while nothing can be said."""
    return result.measured_s / total_s if total_s > 0 else 1.0
