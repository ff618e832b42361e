"""Is the plan that was tried better than the incumbent? The judging half of the controller.

One per cent is the finest difference that is acted on: fewer workers may lose as much, more must bring as much. A window or
two cannot tell that for sure, and need not: what matters is that a mistake is small. So a case is doubtful only where it might
cost twice as much, and where slow samples come in bursts (windows then differ by ten per cent from luck alone) the model's
word is heard too, since it has seen how the times are distributed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from keepfed.policy.evidence import Estimate, Evidence
from keepfed.policy.outlook import WORTH

CLEAR = 1.25
"""Standard errors that the other side must be away for a case to be clear."""

MODEL_ERROR = 0.04
"""Relative error of the gain that the model predicts for a plan, as far as it knows the load at all."""

CONTRADICTION = 2.5
"""Standard errors between model and measurement from which on the model is not asked."""

FEWEST = 2
"""Windows that a plan must have for others to be compared with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What comes of comparing a plan with the incumbent."""

    ratio: float
    """Its throughput over the incumbent's, as measured."""

    kept: bool
    """Whether it should become the incumbent."""

    doubtful: bool
    """Whether more windows might well say otherwise, and it would matter."""


def judge(here: Estimate, incumbent: Estimate, evidence: Evidence, expected: float) -> Verdict:
    """Compare a plan with the incumbent; `expected` is the ratio that the model had predicted."""
    cheaper = here.plan < incumbent.plan
    measured, error = _against(here, incumbent, evidence) if cheaper else evidence.compare(here, incumbent)
    ratio, doubt = _believed(measured, error, expected)
    even = 1 - WORTH if cheaper else 1 + WORTH
    # The model may tip the scales. It may not turn a gain into a loss, or a loss into a gain.
    kept = measured >= 1 or ratio >= even if cheaper else measured > 1 and ratio >= even
    doubtful = abs(ratio - even) < CLEAR * doubt - WORTH
    return Verdict(measured, kept, doubtful or _surprising(measured, here, incumbent, evidence))


def _against(here: Estimate, incumbent: Estimate, evidence: Evidence) -> tuple[float, float]:
    """A cheaper plan against the best plan of this load, so that small losses do not add up."""
    worst = evidence.compare(here, incumbent)
    for plan in evidence.plans():
        other = evidence.of(plan)
        if other is not None and plan != here.plan and other.windows >= FEWEST:
            worst = min(worst, evidence.compare(here, other))
    return worst


def _believed(measured: float, error: float, expected: float) -> tuple[float, float]:
    """A measured ratio drawn towards the model's, as far as its own error allows, and the error that is left."""
    if abs(measured - expected) > CONTRADICTION * math.hypot(error, MODEL_ERROR):
        return measured, error
    trust = error**2 / (error**2 + MODEL_ERROR**2)
    return measured + trust * (expected - measured), error * math.sqrt(1 - trust)


def _surprising(measured: float, here: Estimate, incumbent: Estimate, evidence: Evidence) -> bool:
    """Fewer workers that are faster, or more that are slower: possible, but first suspect the measurement.

    On contended cores it is what one expects; and without workers nothing has to be taken over.
    """
    if incumbent.contended(evidence.cores) or here.plan.num_workers == 0:
        return False
    band = evidence.band()
    return measured > 1 + band if here.plan < incumbent.plan else measured < 1 - band
