"""The first sentence of the page: what was found. The rest of the page is its evidence."""

from __future__ import annotations

from keepfed.text import say
from keepfed.tuning.numbers import plan_text, rate, seconds_text, unit_text, workers_text
from keepfed.tuning.report.records import Document, Loader, Point, Sweep

SAME_SPEED = 0.05
"""Rates that differ by less than this part are called equal, as in the terminal's table."""


def headline(document: Document) -> str:
    """One sentence about the whole document."""
    if document.sweep is not None:
        return sweep_sentence(document.sweep)
    if document.loaders:
        return loader_sentence(document.loaders[0])
    return say("report.head_nothing")


def loader_sentence(loader: Loader) -> str:
    """One sentence about one loader."""
    before, after = loader.before, loader.after
    if before is None or after is None:
        return say("report.head_nothing")
    found = _found(before, after) if loader.asked else _best(after)
    if loader.settled:
        return found
    return say("report.head_unsettled", seconds=seconds_text(loader.seconds or 0.0), found=found)


def _best(after: Point) -> str:
    return say("report.head_best", now=workers_text(after.plan), rate=rate(after.per_s))


def _found(before: Point, after: Point) -> str:
    same_prefetch = before.plan.prefetch_factor == after.plan.prefetch_factor
    words = workers_text if same_prefetch or not after.plan.num_workers else plan_text
    now, was, gain = words(after.plan), words(before.plan), gain_text(before, after)
    if before.plan == after.plan:
        return say("report.head_same", now=now, rate=rate(after.per_s))
    if gain:
        return say("report.head_gain", now=now, was=was, gain=gain)
    key = "report.head_cheaper" if after.plan.num_workers < before.plan.num_workers else "report.head_equal"
    return say(key, now=now, was=was)


def gain_text(before: Point, after: Point) -> str:
    """How many times as fast: "3.55"; empty where both are equal within SAME_SPEED, or nothing can be said."""
    if before.per_s <= 0:
        return ""
    gain = after.per_s / before.per_s
    return rate(gain) if abs(gain - 1) >= SAME_SPEED else ""


def sweep_sentence(found: Sweep) -> str:
    """Which value to take, and how much faster it is than the slowest."""
    best, count = found.chosen, len(found.trials)
    if best is None:
        return say("report.head_sweep_nothing", count=count)
    if not best.rate:
        return say(
            "report.head_sweep_seconds", value=best.value, count=count, seconds=seconds_text(best.seconds or 0.0)
        )
    told = [trial for trial in found.trials if trial.rate and not trial.failed]
    slowest = min(told, key=lambda trial: trial.rate or 0.0, default=best)
    facts = {"value": best.value, "rate": rate(best.rate), "unit": unit_text(best.unit), "count": count}
    if slowest is best or not slowest.rate:
        return say("report.head_sweep_one", **facts)
    key = "report.head_sweep_equal" if len(found.equal) > 1 else "report.head_sweep"
    return say(key, **facts, equal=len(found.equal), gain=rate(best.rate / slowest.rate), slowest=slowest.value)
