"""Who is killed when memory runs out: a worker, which can be replaced, and not the trainer, which cannot.

Where the kernel kills one process it takes the one with the highest badness: its share of the memory in thousandths, plus
oom_score_adj (proc(5)). The trainer is the fattest. Anybody may raise his own adjustment, so workers do; the zygote raises it
less, since without it no worker can be replaced. What a dataset starts (ffmpeg) inherits its worker's. Where the
control group has memory.oom.group=1, as containers of Kubernetes 1.28 and later have, all are killed together, and only
the governor's being early helps.
"""

from __future__ import annotations

import contextlib

WORKER_POINTS = 300
"""Above the trainer's: a worker is taken first unless the trainer has 30 % more of the memory than it."""
ZYGOTE_POINTS = 100
_MOST_POINTS = 1000
_PATH = "/proc/self/oom_score_adj"


def offer(points: int) -> None:
    """Raise this process's adjustment by so many points; silent where that cannot be done."""
    with contextlib.suppress(OSError, ValueError), open(_PATH, encoding="ascii") as now:
        before = int(now.read())
        with open(_PATH, "w", encoding="ascii") as file:
            file.write(str(max(before, min(_MOST_POINTS, before + points))))
