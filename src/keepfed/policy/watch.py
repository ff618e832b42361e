"""Notice, after settling, that the load is no longer the one that the plan was chosen for.

A single window proves nothing (a page that had to be read again, a neighbour's cron job), and a controller that answers
each of them never comes to rest. So a change must be seen several times in a row: fast where the step starves, slowly
where workers are merely idle, and more slowly each time that a search has changed nothing.
"""

from __future__ import annotations

import math
from collections import deque

from keepfed.plan import Plan
from keepfed.policy.evidence import Estimate, estimate
from keepfed.policy.window import Observation

CHANGED_WINDOWS = 3
"""Windows in a row that must starve before the controller acts on a changed load (fast up)."""

CALM_WINDOWS = 60
"""A search that begins sooner than this after the last one shows a load that flickers, to which no plan can be fitted."""

MOST_PATIENCE, MOST_PATIENCE_UP = 16, 4
"""How many times the windows above are multiplied at most: a step that starves is not left alone for as long."""

SPARE = 1.15
"""Workers up to so many times the mean demand are no more than is needed: at exactly the mean, any variation starves."""

IDLE_WINDOWS = 8
"""Windows in a row with too many workers before it acts on that (slow down); doubled each time it proved wrong."""


class Watch:
    """Notices a change of load: fast when the step starves, slow when workers are idle, slower each time it was wrong."""

    def __init__(self, wait_share: float = 0.0) -> None:
        self.plan: Plan | None = None
        self._wait_share = wait_share
        self._rate: float | None = None
        self._busy: float | None = None
        self._host_busy: float | None = None
        self._patience = 1
        self._calm = CALM_WINDOWS
        """Windows since the last search."""
        self._recent: deque[Observation] = deque(maxlen=CHANGED_WINDOWS)
        self._starving = self._shifted = self._idle = 0

    def restart(self, now: Estimate, *, same_plan: bool) -> None:
        """The controller has settled: from here on, this is normal. A search that changed nothing was not worth it."""
        self.plan = now.plan
        self._wait_share, self._rate, self._busy = now.starving, now.batches_per_s, now.busy_workers
        self._host_busy = now.host_busy
        restless = same_plan or self._calm < CALM_WINDOWS
        self._patience = min(MOST_PATIENCE, 2 * self._patience) if restless else 1
        self._calm = 0
        self._recent.clear()
        self._starving = self._shifted = self._idle = 0

    def see(self, window: Observation, band: float, *, wider: bool = False) -> list[Observation] | None:
        """The windows that show the new load, or None while all is as it was; `wider`: more is allowed than was."""
        now = estimate(window.plan, [window])
        self.plan = window.plan
        self._rate = self._rate or now.batches_per_s
        self._busy = self._busy if self._busy is not None else now.busy_workers
        self._recent.append(window)
        starving = now.starving > self._wait_share + 2 * band
        shift = abs(math.log(now.batches_per_s / self._rate))
        idle = now.starving <= band and now.busy_workers < 0.7 * self._busy and _spare(now) >= 1
        self._starving = self._starving + 1 if starving else 0
        freed = (self._host_busy or 0.0) - (1.0 if now.host_busy is None else now.host_busy)
        other = shift > max(0.15, 4 * band) or freed > 0.15 or wider
        self._shifted = self._shifted + 1 if other and now.starving > band else 0
        self._idle = self._idle + 1 if idle else 0
        self._calm += 1
        fast = max(self._starving, self._shifted) >= CHANGED_WINDOWS * min(self._patience, MOST_PATIENCE_UP)
        if fast or self._idle >= IDLE_WINDOWS * self._patience:
            return list(self._recent)
        return None


def _spare(now: Estimate) -> int:
    """Workers beyond those that the present load needs."""
    return now.plan.num_workers - max(1, math.ceil(SPARE * now.busy_workers))
