"""The cells of the zoo: every workload under three steps, the loads that change, and the seconds that all this means here.

A step is given by the *demand* that it makes: how many workers are at work, on average, when it never waits (seconds per
batch in a worker over seconds per step). So a cell asks the same question on every machine, whatever its cores can do.

    loader   more than can be had: twice the cores, or twice the most workers that are tried where samples wait
    balanced most of what can be had, so that one worker too few costs a quarter
    step     0.4 of one worker: one is enough, none costs a little under a third
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from zoo_workloads import WORKLOADS, Workload

STEPS = ("loader", "balanced", "step")
CHANGES = ("step-halves", "samples-double", "cores-halve")
MOST_WORKERS = 8
"""Counts from 0 to this are swept."""
ALL_COUNTS = tuple(range(MOST_WORKERS + 1))
LONGEST_STEP_S = 1.0
LEAST_STEP_S = {"loader": 0.0, "balanced": 0.0002, "step": 0.005}
"""Where samples cost nothing, a step is bound by itself from a few milliseconds on; without it there would be none."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One program of the zoo."""

    workload: str
    step: str

    @property
    def name(self) -> str:
        """As it is named on the command line and in the results."""
        return f"{self.workload}/{self.step}"


@dataclass(frozen=True, slots=True)
class Change:
    """One program whose load changes when the plan has settled."""

    workload: str
    what: str

    @property
    def name(self) -> str:
        """As it is named on the command line and in the results."""
        return f"{self.workload}/{self.what}"


CELLS = tuple(Cell(workload, step) for workload in WORKLOADS for step in STEPS)
CHANGED = tuple(Change(workload, what) for workload in ("photos", "reads") for what in CHANGES)
SETTLED = ("photos", "tokens", "rows")
"""Workloads on which the cost of a settled controller is measured: dear samples, and cheap ones."""
QUICK = ("reads/balanced", "free/step", "reads/step-halves", "photos/settled")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def demand(workload: Workload, step: str, usable: int) -> float:
    """Workers that this step keeps at work."""
    if step == "step":
        return 0.4
    if workload.waits:
        return MOST_WORKERS * {"loader": 2.0, "balanced": 0.44}[step]
    return usable * {"loader": 2.0, "balanced": 0.8}[step]


def step_seconds(workload: Workload, step: str, fetch_s: float, usable: int) -> float:
    """How long the step of a cell lasts where a batch takes `fetch_s` in a worker."""
    return min(LONGEST_STEP_S, max(LEAST_STEP_S[step], fetch_s / demand(workload, step, usable)))
