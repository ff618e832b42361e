"""The JSON document of `keepfed tune` → records, as far as it goes.

A document may be older than this page, of another kind of search, cut short, or edited by hand. Whatever is absent, of
another type or not finite is left out, so that the rest can still be shown: a report is made after minutes of measuring
and must not be lost to one odd number. Strings come from other people's programs (names of classes, reasons, commands).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from keepfed.plan import Plan
from keepfed.profile import LIMITS
from keepfed.tuning.report.records import Document, Factor, Loader, Moment, Move, Phases, Point, Sweep, Trial

LONGEST_TEXT = 2_000
"""Characters of one string that are shown; the document has the rest."""

_MOST_ITEMS = 200_000
"""Items of one list that are read: days of windows, and a bound all the same."""

_MOST_POINTS = 300
"""Plans that are drawn."""

_LONGEST_VALUE = 120
"""Characters of a value of a sweep."""

_MOST_FACTORS = 40
"""Finalists, or changes, that are drawn."""

_LONGEST_CHANGE = 300
"""Characters of a change."""

_LONGEST_UNIT = 24
"""Characters of what it counts per second."""

# Neither HTML nor XML can hold them: control characters, and the lone surrogates of file names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Facts:
    """A JSON object that is asked for values of a type, and answers None (or nothing) for whatever else is there."""

    raw: Mapping[str, Any]
    """The object."""

    def number(self, key: str) -> float | None:
        """A finite number; true and false are none."""
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return float(value) if isfinite(value) else None
        except OverflowError:
            return None

    def amount(self, key: str) -> float | None:
        """A finite number that is not negative."""
        value = self.number(key)
        return value if value is not None and value >= 0 else None

    def share(self, key: str) -> float | None:
        """A number from 0 to 1; measurements that stick out a little are cut."""
        value = self.number(key)
        return None if value is None else min(1.0, max(0.0, value))

    def text(self, key: str) -> str:
        """A string that can be printed; empty if there is none."""
        value = self.raw.get(key)
        return printable(value) if isinstance(value, str) else ""

    def flag(self, key: str) -> bool:
        """Whether true stands there."""
        return self.raw.get(key) is True

    def one(self, key: str) -> Facts | None:
        """An object."""
        value = self.raw.get(key)
        return Facts(value) if isinstance(value, Mapping) else None

    def many(self, key: str) -> list[Facts]:
        """The objects of a list."""
        value = self.raw.get(key)
        items = value[:_MOST_ITEMS] if isinstance(value, list) else []
        return [Facts(item) for item in items if isinstance(item, Mapping)]

    def plan(self) -> Plan | None:
        """The plan that this object speaks of."""
        workers, prefetch = self.number("num_workers"), self.number("prefetch_factor")
        try:
            return None if workers is None else Plan(int(workers), 2 if prefetch is None else int(prefetch))
        except ValueError:
            return None


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """The string without what a page cannot hold, and no longer than `longest`."""
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return _UNPRINTABLE.sub("\ufffd", cut)


def read_document(raw: Mapping[str, Any]) -> Document:
    """The records of a document. Never raises for what stands in it."""
    facts = Facts(raw)
    sweep = _sweep(facts.one("sweep"))
    loaders = [_loader(one, walked=facts.text("search") != "exhaustive") for one in facts.many("loaders")]
    return Document(
        alone=raw.get("step") is False,
        host=host.raw if (host := facts.one("host")) else {},
        loaders=tuple(sorted(loaders, key=lambda loader: -(loader.seconds or 0.0))),
        sweep=sweep,
    )


def _loader(facts: Facts, *, walked: bool) -> Loader:
    before, after = (_point(one) if one else None for one in (facts.one("before"), facts.one("after")))
    moves = tuple(move for one in facts.many("moves") if (move := _move(one)))
    points = tuple(point for one in facts.many("points") if (point := _point(one)))
    return Loader(
        dataset=facts.text("dataset"),
        site=facts.text("site"),
        ordinal=int(facts.amount("ordinal") or 0),
        batch_size=_whole(facts, "batch_size"),
        before=before,
        after=after,
        limited_by=word if (word := facts.text("limited_by")) in LIMITS else "unknown",
        reason=facts.text("reason"),
        settled=facts.flag("settled"),
        stall_share=facts.share("stall_share"),
        seconds=facts.amount("seconds"),
        points=_by_plan(points or _implied(before, after, moves)),
        timeline=_timeline(facts.many("timeline")),
        moves=moves if walked else (),
        why=next((move.reason for move in reversed(moves) if move.kept and move.reason), ""),
        phases=_phases(facts.one("phases")),
        finals=tuple(factor for one in facts.many("finals") if (factor := _factor(one)) and factor.plan)[
            :_MOST_FACTORS
        ],
        offers=tuple(factor for one in facts.many("offers") if (factor := _factor(one)))[:_MOST_FACTORS],
        lifts=tuple(text for one in facts.many("what_if") if (text := one.text("text"))),
    )


def _implied(before: Point | None, after: Point | None, moves: tuple[Move, ...]) -> tuple[Point, ...]:
    """What an older document knows of the plans: start, moves, end. The last word on a plan counts."""
    found = {
        point.plan: point for point in [before, *(move.point for move in moves), after] if point and point.per_s > 0
    }
    return tuple(found.values())


def _by_plan(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """One point per plan, fewest workers first; of too many, those that were measured longest."""
    each = {point.plan: point for point in points}.values()
    longest = sorted(each, key=lambda point: -(point.seconds or 0.0))[:_MOST_POINTS]
    return tuple(sorted(longest, key=lambda point: point.plan))


def _point(facts: Facts) -> Point | None:
    plan, per_s = facts.plan(), facts.amount("batches_per_s")
    if plan is None or per_s is None:
        return None
    low, high = facts.amount("low") or 0.0, facts.amount("high")
    whole = high is not None and low <= high  # an interval that begins at zero has no low
    return Point(
        plan,
        per_s,
        low if whole else None,
        high if whole else None,
        facts.share("wait_share"),
        _whole(facts, "windows"),
        facts.amount("seconds"),
        facts.amount("memory_bytes") or None,
        facts.amount("cpu_s_per_batch") or None,
        facts.amount("predicted_batches_per_s") or None,
    )


def _move(facts: Facts) -> Move | None:
    point = _point(facts)
    if point is None:
        return None
    return Move(point, facts.flag("kept"), facts.text("reason"), facts.amount("at_s"))


def _timeline(items: list[Facts]) -> tuple[Moment, ...]:
    found = []
    for facts in items:
        at_s, plan, per_s = facts.amount("at_s"), facts.plan(), facts.amount("batches_per_s")
        if at_s is not None and plan is not None and per_s is not None:
            found.append(Moment(at_s, plan, per_s, facts.share("wait_share")))
    return tuple(sorted(found, key=lambda moment: moment.at_s))


def _phases(facts: Facts | None) -> Phases | None:
    """`fetch_s` is the access to the dataset without its transform, which may be unknown; `decode_s` a part of it."""
    fetch_s = facts.amount("fetch_s") if facts else None
    if facts is None or fetch_s is None:
        return None
    decode_s, transform_s = facts.amount("decode_s"), facts.amount("transform_s")
    if decode_s is not None:
        decode_s = min(decode_s, fetch_s)
    rest = "rest" if decode_s is not None else "access" if transform_s is None else "fetch"
    parts = {
        rest: fetch_s - (decode_s or 0.0),
        "decode": decode_s,
        "transform": transform_s,
        "collate": facts.amount("collate_s"),
        "copy": facts.amount("copy_s"),
    }
    seconds = tuple((name, value) for name, value in parts.items() if value is not None)
    if not any(value > 0 for _, value in seconds):
        return None
    return Phases(seconds, facts.amount("cpu_s"), facts.amount("queued_s"), _whole(facts, "batches"))


def _factor(facts: Facts) -> Factor | None:
    factor, low, high = (facts.amount(key) for key in ("factor", "low", "high"))
    if not factor:
        return None
    whole = low is not None and high is not None and low <= high
    return Factor(
        factor,
        low if whole else None,
        high if whole else None,
        facts.plan(),
        facts.amount("batches_per_s"),
        facts.share("wait_share"),
        printable(facts.text("text"), _LONGEST_CHANGE),
        facts.flag("faster"),
    )


def _sweep(facts: Facts | None) -> Sweep | None:
    """Documents without a choice get the fastest value as one."""
    trials = tuple(_trial(one) for one in facts.many("values")) if facts else ()
    if facts is None or not trials:
        return None
    best = facts.text("best") if "best" in facts.raw else _fastest(trials)
    listed = facts.raw.get("equal")
    equal = tuple(_value(one) for one in listed) if isinstance(listed, list) else ()
    by = facts.text("compared_by")
    if by not in {"rate", "epoch", "seconds"}:
        by = "rate" if any(trial.rate for trial in trials) else "seconds"
    return Sweep(trials, printable(best, _LONGEST_VALUE), equal, by, facts.share("band"))


def _fastest(trials: tuple[Trial, ...]) -> str:
    told = [trial for trial in trials if trial.rate and not trial.failed]
    return max(told, key=lambda trial: trial.rate or 0.0).value if told else ""


def _trial(facts: Facts) -> Trial:
    code, low, high = facts.number("exit"), facts.amount("low"), facts.amount("high")
    return Trial(
        value=_value(facts.raw.get("value")),
        how=printable(facts.text("how"), _LONGEST_VALUE),
        exit_code=None if code is None else int(code),
        rate=facts.amount("batches_per_s"),
        low=low if high is not None else None,
        high=high if low is not None else None,
        unit=printable(facts.text("unit"), _LONGEST_UNIT),
        epoch_s=facts.amount("epoch_s"),
        seconds=facts.amount("seconds"),
        cpu_s=facts.amount("cpu_s"),
        cpu_s_per_batch=facts.amount("cpu_s_per_batch"),
        peak_pss_bytes=facts.amount("peak_pss_bytes"),
        gpu_busy=facts.share("gpu_busy"),
    )


def _value(raw: object) -> str:
    return printable(str(raw), _LONGEST_VALUE) if isinstance(raw, str | int | float) else "?"


def _whole(facts: Facts, key: str) -> int | None:
    value = facts.amount(key)
    return None if value is None else int(value)
