"""Events → results: what was learned about each loader of the program.

Events come from several processes. Under a distributed launcher every rank reports the same loader, while one rank of the
host decides for all; adding them up would count one loader as many, and mixing their numbers would describe none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keepfed.events import Breakdown, Ended, Event, Joined, LoaderSeen, Moved, Note, Settled, Surveyed, Window
from keepfed.plan import LoaderId, Plan
from keepfed.profile import LIMITS, Measured
from keepfed.tuning.phases import Phases, mean_phases
from keepfed.tuning.points import Timed, points, share, timeline
from keepfed.tuning.results import LoaderResult, Move
from keepfed.tuning.whatif import what_if


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
        return Measured(plan, self.batches / self.elapsed_s, share(self.wait_s / self.elapsed_s))

    def stall_share(self) -> float | None:
        return None if self.stall_s is None else share(self.stall_s / self.elapsed_s)


@dataclass(slots=True)
class _Strand:
    """What one process reported about one loader."""

    first_s: float
    last_s: float
    seen: LoaderSeen | None = None
    sums: dict[Plan, _Sum] = field(default_factory=dict)
    windows: list[Timed] = field(default_factory=list)
    moves: list[tuple[float, Moved]] = field(default_factory=list)
    breakdowns: dict[Plan, list[Breakdown]] = field(default_factory=dict)
    surveyed: Surveyed | None = None
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
                self.windows.append(Timed(now_s - self.first_s, event))
            case Breakdown():
                self.breakdowns.setdefault(event.plan, []).append(event)
            case Surveyed():
                self.surveyed = event
            case Moved():
                # A plan may be reported when it is tried and again when it is judged: the judgement counts.
                if self.moves and self.moves[-1][1].plan == event.plan and not self.moves[-1][1].batches_per_s:
                    self.moves.pop()
                self.moves.append((now_s - self.first_s, event))
            case Settled():
                if self.settled is None:
                    self.before = Measured(event.before, event.before_batches_per_s, share(event.before_wait_share))
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
            return Measured(self.settled.plan, self.settled.batches_per_s, share(self.settled.wait_share))
        for _, move in reversed(self.moves):
            if move.kept and self.sums:
                return Measured(move.plan, move.batches_per_s, share(move.wait_share))
        return self.start()

    def _predicted(self) -> dict[Plan, float]:
        """What the model expected of each plan when it was first tried."""
        return {move.plan: move.predicted_batches_per_s for _, move in reversed(self.moves)}

    def phases(self, plan: Plan) -> Phases | None:
        """Where a batch's time goes inside a worker under this plan."""
        found = mean_phases(self.breakdowns.get(plan, ()))
        told = self.surveyed.probe if self.surveyed is not None else None
        return found.split(told) if found is not None and told else found

    def result(self, loader: LoaderId, processes: int) -> LoaderResult:
        before, after, seen, settled = self.start(), self.best(), self.seen, self.settled
        phases = self.phases(after.plan) if after else None
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
                Move(
                    Measured(move.plan, move.batches_per_s, share(move.wait_share)),
                    move.kept,
                    move.reason,
                    move.predicted_batches_per_s,
                    at_s,
                )
                for at_s, move in self.moves
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
            points=points(self.windows, self._predicted()),
            timeline=timeline(self.windows),
            phases=phases,
            what_if=what_if(settled, self.surveyed, phases) if settled else (),
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
        elif isinstance(event, LoaderSeen | Window | Breakdown | Surveyed | Moved | Settled | Ended):
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
