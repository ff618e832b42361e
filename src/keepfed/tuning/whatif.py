"""From a loader's reports to what would lift its limit, and the words for it.

Sentences are made here, in the reader's language; the judging is `policy/lift.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keepfed.events import Settled, Surveyed
from keepfed.policy.lift import Remedy, Sample, Standing, Timed, remedies
from keepfed.text import say
from keepfed.tuning.numbers import percent, rate, short_time
from keepfed.tuning.phases import Phases


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One sentence of the answer."""

    key: str
    """Which."""
    factor: float | None
    """How many times the present throughput, at most; None where nothing was timed."""
    derived: bool
    """Whether the factor follows from measured parts by a rule (cores), and was not timed itself."""
    text: str
    """For people."""

    def to_json(self) -> dict[str, Any]:
        """The object in "what_if" of `tune --json`."""
        factor = None if self.factor is None else round(self.factor, 3)
        return {"key": self.key, "factor": factor, "derived": self.derived, "text": self.text}


def what_if(settled: Settled, surveyed: Surveyed | None, phases: Phases | None) -> tuple[WhatIf, ...]:
    """The answer for a settled loader."""
    ceiling, replayed = _ceiling(settled, surveyed)
    standing = Standing(
        rate=settled.batches_per_s,
        limited_by=settled.limited_by,
        cores=surveyed.cores if surveyed else 0.0,
        workers=settled.plan.num_workers,
        ceiling=ceiling,
        replayed=replayed,
        fetch_s=phases.fetch_s if phases else 0.0,
        collate_s=phases.collate_s if phases else 0.0,
        copy_s=phases.copy_s if phases else 0.0,
        cpu_s=phases.cpu_s if phases else 0.0,
        queued_s=(phases.queued_s or 0.0) if phases else 0.0,
        trainer_cpu_s=phases.trainer_cpu_s if phases else 0.0,
        sample=_sample(surveyed.probe) if surveyed and surveyed.probe else None,
    )
    return tuple(_said(remedy) for remedy in remedies(standing))


def _ceiling(settled: Settled, surveyed: Surveyed | None) -> tuple[float, int]:
    """Rate of the steps alone, and on how many ready batches; without a replay, what the windows spent outside of waits."""
    if surveyed is not None and surveyed.ready_batches and surveyed.ready_s > 0:
        return surveyed.ready_batches / surveyed.ready_s, surveyed.ready_batches
    return settled.batches_per_s / max(1e-3, 1 - settled.wait_share), 0


def _sample(probe: dict[str, Any]) -> Sample | None:
    """What the child said; None where it is not understood."""
    try:
        return Sample(
            sample_s=float(probe["sample_s"]),
            decode_s=probe.get("decode_s"),
            decoder=str(probe.get("decoder", "")),
            transform_s=probe.get("transform_s"),
            draft=_timed(probe, "draft"),
            cold=_timed(probe, "cold"),
            storage_bytes_per_s=float(probe.get("read_bytes_per_s", 0.0)),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _timed(probe: dict[str, Any], name: str) -> Timed | None:
    samples = int(probe.get(f"{name}_samples", 0))
    return Timed(samples, float(probe[f"{name}_from_s"]), float(probe[f"{name}_s"])) if samples else None


def _said(remedy: Remedy) -> WhatIf:
    facts = {name: _written(name, value) for name, value in remedy.facts.items()}
    factor = "" if remedy.factor is None else f"{rate(remedy.factor)}×"
    one = "_one" if remedy.facts.get("more") == 1 else ""
    text = say(f"lift.{remedy.key}{one}", factor=factor, **facts)
    return WhatIf(remedy.key, remedy.factor, remedy.key in {"cores", "crowded"}, text)


def _written(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if name == "share":
        return percent(value)
    if name == "bytes_per_s":
        return f"{rate(value / 1e6)} MB/s" if value < 1e9 else f"{rate(value / 1e9)} GB/s"
    if name == "seconds" or name.endswith("_s"):
        return short_time(value)
    return f"{value:g}" if name in {"batches", "samples", "more", "cores", "workers"} else rate(value)
