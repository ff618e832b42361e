"""How numbers are written for people: rates, shares, sizes, durations, plans."""

from __future__ import annotations

from keepfed.plan import Plan
from keepfed.text import say

NONE = "–"
"""Where there is no number."""


def arrow(was: str, now: str) -> str:
    """A change, or the one value that stayed: "2 → 5"."""
    return was if was == now else f"{was} → {now}"


def rate(per_s: float) -> str:
    """Three digits: 0.0421, 6.14, 21.0, 1840."""
    digits = 0 if per_s >= 100 else 1 if per_s >= 10 else 2
    return f"{per_s:.{digits}f}" if per_s >= 1 else f"{per_s:.3g}"


def per_s(measured: float, expected: float, key: str = "tune_report.per_s") -> str:
    """What was measured, and what the model had expected of it where it had said something: "21.0/s (22.5 expected)"."""
    if not expected:
        return say(key, rate=rate(measured))
    return say(f"{key}_expected", rate=rate(measured), expected=rate(expected))


def percent(share: float | None) -> str:
    """A share: "38%"."""
    return NONE if share is None else f"{share:.0%}"


def prefetch(plan: Plan) -> str:
    """The prefetch factor, where there are workers to prefetch."""
    return str(plan.prefetch_factor) if plan.num_workers else NONE


def size(size_bytes: int | None) -> str:
    """Bytes: "485 MiB"."""
    if not size_bytes:
        return NONE
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """A duration: "24 s", "10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return say("tune_report.minutes", minutes=f"{seconds / 60:.0f}")


def short_time(seconds: float) -> str:
    """The time that one thing takes, three digits: "152 ms", "1.20 s", "85.0 µs"."""
    value, unit = (
        (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms") if seconds >= 1e-3 else (seconds * 1e6, "µs")
    )
    return f"{rate(value)} {unit}"


def unit_text(unit: str) -> str:
    """What a sweep counts, per second: "it/s"."""
    return say("sweep.metric_unit") if unit in {"", "/s"} else f"{unit}/s"


def plan_text(plan: Plan) -> str:
    """A plan in words: "2 workers, prefetch 4"."""
    if plan.num_workers == 0:
        return say("tune_report.plan_none")
    key = "tune_report.plan_one" if plan.num_workers == 1 else "tune_report.plan"
    return say(key, workers=plan.num_workers, prefetch=plan.prefetch_factor)


def workers_text(plan: Plan) -> str:
    """Its workers in words: "2 workers"."""
    key = {0: "tune_report.plan_none", 1: "tune_report.one_worker"}.get(plan.num_workers, "tune_report.n_workers")
    return say(key, workers=plan.num_workers)
