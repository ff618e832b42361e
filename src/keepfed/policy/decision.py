"""What the controller may answer to a window: hold, move, or settled, each with a reason for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from keepfed.plan import Plan

Limit = Literal["step", "cores", "memory", "io", "workers", "unknown"]


class Reason(NamedTuple):
    """Why, for people: `say(reason.key, **reason.facts)`."""

    key: str
    """Key of the sentence in locales."""

    facts: dict[str, object]
    """Its placeholders."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Change nothing."""

    reason: Reason
    """What is being waited for."""


@dataclass(frozen=True, slots=True)
class Move:
    """Put another plan into force."""

    plan: Plan
    """The plan."""

    reason: Reason
    """Why."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The search is over: the plan stays until the load changes. Said once per search."""

    plan: Plan
    """The plan chosen, which is in force."""

    limited_by: Limit
    """What limits the loop now."""

    reason: Reason
    """The same in words."""


Decision = Hold | Move | Settled


@dataclass(frozen=True, slots=True)
class JudgedMove:
    """One plan that was tried, and what came of it."""

    plan: Plan
    """The plan."""

    batches_per_s: float
    """Throughput measured under it."""

    predicted_batches_per_s: float
    """What the model had expected."""

    wait_share: float
    """Share of the time spent in `next()` under it."""

    kept: bool
    """Whether it became the incumbent."""

    reason: Reason
    """Why it was tried and how it ended."""


def why(key: str, **facts: object) -> Reason:
    """Make the reason whose sentence is `tune.reason_<key>`."""
    return Reason(f"tune.reason_{key}", facts)


def hold(key: str, **facts: object) -> Hold:
    """Change nothing, for that reason."""
    return Hold(why(key, **facts))


def counts(plan: Plan) -> dict[str, object]:
    """The facts of a plan, as sentences name them."""
    return {"workers": plan.num_workers, "prefetch": plan.prefetch_factor}
