"""`keepfed tune module:make_dataset`: the search without a training program, on a dataset and a step that stands for one.

The loop around the dataset is a program of ours, started and listened to like any program of a user's; what differs is what
can be said at the end. No line of the user's builds the loader, so there is nothing that keepfed.toml could be applied to,
and without a step the numbers are the loader's own maximum, which no training should be configured for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from rich.console import Group
from rich.text import Text

from keepfed.cli.tune.advice import by_hand, typed
from keepfed.cli.tune.fresh import finals_table, offers_table
from keepfed.cli.tune.program import Tuning
from keepfed.cli.tune.terminal import line, shell_line, show
from keepfed.errors import UnreachableError, UsageError
from keepfed.events import Event, LoaderSeen
from keepfed.offline.finals import Final, finalists, run_finals, winner
from keepfed.offline.offers import Offer, try_changes
from keepfed.text import language, say
from keepfed.tuning.numbers import seconds_text
from keepfed.tuning.results import LoaderResult
from keepfed.tuning.session import Ending, Outcome

PROGRAM = "keepfed.offline.program"


@dataclass(frozen=True, slots=True)
class Bench:
    """What stands for the program: the options of `keepfed tune` that speak of a dataset."""

    step_ms: float | None
    """Milliseconds that the step waits; None where nothing was said."""

    step: str
    """The function that is called with each batch; empty for none."""

    batch_size: int | None
    """Samples per batch; None for the default, and for a DataLoader."""

    collate: str
    """The collate function; empty for torch's."""

    offers: bool = False
    """Whether other settings are tried as well, once the plan is known."""

    def words(self) -> list[str]:
        """These options as they were given."""
        given = {
            "--step-ms": self.step_ms,
            "--step": self.step,
            "--batch-size": self.batch_size,
            "--collate": self.collate,
        }
        return [
            word
            for option, value in given.items()
            if value is not None and value != ""  # a step of 0 ms was said
            for word in (option, f"{value:g}" if isinstance(value, float) else str(value))
        ]

    @property
    def has_step(self) -> bool:
        """Whether anything happens to a batch."""
        return bool(self.step or self.step_ms)


def check_bench(bench: Bench, spec: str, rest: Sequence[str], *, goes_on: bool) -> None:
    """Refuse what cannot be meant. Raises UsageError."""
    if not spec:
        if bench.words() or bench.offers:
            message = say("offline.only_for_spec", option=[*bench.words(), "--offers"][0])
            raise UsageError(message, next_step=say("offline.only_for_spec_next"))
        return
    if find_spec("torch") is None:
        raise UsageError(say("offline.no_torch", python=sys.executable), next_step=say("offline.no_torch_next"))
    if rest:
        raise UsageError(say("offline.too_many_words", word=rest[0]), next_step=say("offline.too_many_words_next"))
    if goes_on:
        raise UsageError(say("offline.nothing_goes_on"), next_step=say("offline.nothing_goes_on_next"))
    if bench.step and bench.step_ms:
        raise UsageError(say("offline.two_steps"), next_step=say("offline.two_steps_next"))
    if bench.step_ms is not None and not 0 <= bench.step_ms < 3_600_000:
        raise UsageError(say("offline.bad_step_ms", value=f"{bench.step_ms:g}"), next_step=say("offline.bad_step_next"))


@dataclass(slots=True)
class SpecTuning(Tuning):
    """A session over a dataset."""

    bench: Bench = field(kw_only=True)
    ours: bool = False
    """Whether the loader is built by us, around a dataset of the user's."""
    finals: tuple[Final, ...] = ()
    """The best plans in fresh processes."""
    offers: tuple[Offer, ...] = ()
    """What else was tried."""

    def argv(self) -> list[str]:
        """The program that is started."""
        return [sys.executable, "-m", PROGRAM, *self._words()]

    def _words(self) -> list[str]:
        return [self.request.command[0], *self.bench.words(), "--lang", language()]

    def conclude(self, results: tuple[LoaderResult, ...], code: int) -> None:
        """As for any program, after fresh processes have had the last word."""
        if len(results) == 1 and results[0].settled:
            results = (self._in_fresh_processes(results[0]),)
        Tuning.conclude(self, results, code)

    def _in_fresh_processes(self, result: LoaderResult) -> LoaderResult:
        """The result with the plan that won there. What fails, or is interrupted, leaves it as it is."""

        def tell(text: str) -> None:
            line(self.out, text)

        try:
            if self.request.search == "exhaustive" and len(result.points) > 1:
                result = self._final(result, tell)
            if self.bench.offers and result.after is not None:
                self.offers = try_changes(self._words(), result.after.plan, self.host.cores.value or 1.0, tell)
                if not self.offers:
                    tell(say("offline.nothing_to_offer"))
        except UnreachableError as error:
            tell(str(error))
        except KeyboardInterrupt:
            tell(say("offline.finals_interrupted"))
        return result

    def _final(self, result: LoaderResult, tell: Callable[[str], None]) -> LoaderResult:
        assert result.after is not None
        chosen = result.after.plan
        self.finals = run_finals(self._words(), finalists(result.points, chosen), chosen, tell)
        won = winner(self.finals).plan
        point = next((point for point in result.points if point.measured.plan == won), None)
        if won == chosen or point is None:
            return result
        return replace(result, after=point.measured, memory_bytes=point.memory_bytes)

    def document(self, results: tuple[LoaderResult, ...]) -> dict[str, Any]:
        """With what fresh processes have said."""
        found = {**Tuning.document(self, results), "step": self.bench.has_step}
        for loader in found["loaders"]:
            if self.finals:
                loader["finals"] = [final.to_json() for final in self.finals]
            if self.bench.offers:
                loader["offers"] = [offer.to_json() for offer in self.offers]
        return found

    def show(self, results: tuple[LoaderResult, ...]) -> None:
        """The table, and below it what fresh processes have said."""
        Tuning.show(self, results)
        if self.finals:
            chosen = results[0].after.plan if results[0].after is not None else None
            show(self.out, finals_table(self.finals, chosen))
        if self.offers:
            show(self.out, offers_table(self.offers))

    def search_name(self) -> str:
        """What the JSON document calls this search."""
        return "offline" if self.request.search == "online" else self.request.search

    def start_name(self) -> str:
        """Nobody asked for the first plan of a dataset."""
        return say("offline.first_guess" if self.ours else "tune_report.before")

    def announce(self) -> None:
        """Nothing yet: the name may lead nowhere, and then that is all that should be said."""

    def heard(self, event: Event) -> None:
        """As for any program, but for a loader of ours, which no program asked for."""
        if isinstance(event, LoaderSeen):
            self.ours = self.ours or event.loader.site == self.request.command[0]
            self._announce()
            if event.handled and event.note == say("loader.own_draws"):
                return
        Tuning.heard(self, event)

    def _announce(self) -> None:
        spec, limit = self.request.command[0], seconds_text(self.request.max_seconds)
        key = "offline.announce" if self.bench.has_step else "offline.announce_alone"
        line(self.out, say(key, spec=spec, step=self._step(), limit=limit), wrap=True)

    def _step(self) -> str:
        return self.bench.step or say("offline.step_ms", step_ms=f"{self.bench.step_ms or 0:g}")

    def enough(self, _results: tuple[LoaderResult, ...], ending: Ending) -> None:
        """The search is over; there is no program whose end would have to be explained."""
        if ending is Ending.TIME_UP:
            line(self.out, say("offline.time_up", limit=seconds_text(self.request.max_seconds)))

    def finish_failed(self, outcome: Outcome, *, measured: bool) -> None:
        """It has said why."""
        if measured:
            self.keep_json(outcome.results)
            self.keep_report(outcome.results)

    def keep_plan(self, results: tuple[LoaderResult, ...]) -> bool:
        """keepfed.toml is for loaders that a program of the user's builds and feeds to a step."""
        return not self.ours and self.bench.has_step and Tuning.keep_plan(self, results)

    def how_to_use(self, results: tuple[LoaderResult, ...], _planned: bool, /) -> str:
        """The call or the edits that set what was found: there is no program to run."""
        settled = [result for result in results if result.settled]
        edits = ([_call(result)] if self.ours else by_hand(result, ()) for result in settled)
        return "\n".join(edit for each in edits for edit in each if edit)

    def measured_command(self) -> str:
        """Its words are those of our own command line."""
        return shell_line(["keepfed", "tune", *self.request.command])

    def advise(self, results: tuple[LoaderResult, ...], plan_name: str, *, planned: bool) -> None:
        """How to set what was found."""
        edits = [edit for result in results if result.settled for edit in by_hand(result, ())]
        calls = [part for result in results for part in self._how_to_set(result)] if self.ours else []
        if calls:
            show(self.out, Group(Text(""), *calls))
        elif planned:
            show(
                self.out,
                Group(Text(""), Text(say("offline.written", file=plan_name)), *(typed(edit) for edit in edits)),
            )
        elif edits:
            show(self.out, Group(Text(""), Text(say("offline.in_the_source")), *(typed(edit) for edit in edits)))
        if not self.bench.has_step:
            show(self.out, Group(Text(""), Text(say("offline.alone"))))

    def _how_to_set(self, result: LoaderResult) -> list[Text]:
        if result.after is None or not result.settled:
            return []
        lines = [Text(say("offline.set_there")), Text(""), typed(_call(result), "bold")]
        if result.note == say("loader.own_draws"):  # it may be steered
            lines += [Text(""), Text(say("offline.or_auto"))]
        return lines

    def say_unsettled(self, loaders: str, _plan_name: str) -> None:
        """What more would help."""
        line(self.out, say("offline.give_time", loaders=loaders))


def _call(result: LoaderResult) -> str:
    """The DataLoader that has what was found."""
    if result.after is None:
        return ""
    plan, size = result.after.plan, result.batch_size
    words = [] if size is None else [f"batch_size={size}"]
    words.append(f"num_workers={plan.num_workers}")
    if plan.num_workers and plan.prefetch_factor != 2:
        words.append(f"prefetch_factor={plan.prefetch_factor}")
    return f"DataLoader(dataset, {', '.join(words)})"
