"""How far a loader holds back when memory runs short, and when it may go on as before.

Too large a prefetch used to be an error; in reused memory it is the OOM killer, who takes the fattest process first, the
trainer. So somebody has to look while there is still time:

    full plan ─▶ half the batches ─▶ a quarter ─▶ … one per worker ─▶ fewer workers ─▶ … one worker, one batch
        ◀──────────────── the same way back, one rung at a time, once memory has been free for a while

One reading in, at most one change out. Down as often as memory is tight, unless the last step is still taking effect, and half
of the way that is left where the limit itself is in sight; up only after CALM_S without want. A step up that had to be taken
back is not tried again before memory is freer *at the lower rung* than it was then, so that a load that stays the same comes to
rest after one try.

With a fixed number of workers (torch's contract) only the batches become fewer: which worker makes which batch stays.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

RESERVE_SHARE = 0.1
"""This share of the limit is kept free ..."""

MOST_RESERVE_BYTES = 1 << 30
"""... but no more than this: a machine of 1 TB with 90 % in use is not short of memory."""

MATTERS_SHARE = 0.02
"""A loader that takes less than this share of the limit gives nothing up that would help, and is left alone."""

HORIZON_S = 3.0
"""How far growth is looked ahead, at least: a step down takes effect when the batches that are there have been read."""

PRESSED = 20.0
"""`some avg10` of the kernel's pressure stall information, in per cent, that counts as want of memory: below, tasks waited
for memory for less than a fifth of the last 10 s (kernel documentation, accounting/psi)."""

RAMP_S = 5.0
"""Growth is not looked ahead for so long after workers were added by plan: they take at once what the others have, and then
stop. Looked ahead it is half as much again as there will ever be, and what was planned to fit was given up in the middle."""

CALM_S = 10.0
"""Memory must have been free for so long before a step up."""

PROBATION_S = 60.0
"""A step up that lasted so long did not fail; twice as long each time that it did all the same."""

KEPT_CHANGES = 64
"""Changes that are remembered."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment."""

    now_s: float
    """Monotonic clock."""

    used_bytes: int
    """What counts against the limit: of the loader (a limit that the program gave), of the control group, or of the machine."""

    limit_bytes: int
    """The most that may be used."""

    own_bytes: int
    """What this loader takes: its batches and its workers' private memory."""

    transport_bytes: int = 0
    """The part of it that batches take: bounded in bytes by `slots_bytes`, so its growth is nothing to be afraid of."""

    pressure: float | None = None
    """`some avg10` of memory, 0 to 100; None where it cannot be read or says nothing about this limit."""

    @property
    def reserve_bytes(self) -> int:
        """What is to stay free."""
        return min(int(RESERVE_SHARE * self.limit_bytes), MOST_RESERVE_BYTES)

    @property
    def high_bytes(self) -> int:
        """Use above this is too much."""
        return self.limit_bytes - self.reserve_bytes

    @property
    def low_bytes(self) -> int:
        """Below this memory is free."""
        return self.limit_bytes - 2 * self.reserve_bytes

    @property
    def matters(self) -> bool:
        """Whether it would help if this loader took less."""
        return self.own_bytes >= MATTERS_SHARE * self.limit_bytes

    @property
    def slots_bytes(self) -> int:
        """What batches may take so that use stays below the high mark."""
        return max(0, self.transport_bytes + self.high_bytes - self.used_bytes)


@dataclass(frozen=True, slots=True)
class Rung:
    """What a loader may do at once."""

    workers: int
    """Workers that take tasks."""

    batches: int
    """Batches that are being made or wait to be read."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step, and what it was taken for."""

    kind: Literal["shorten", "retire", "restore"]
    """Fewer batches, fewer workers, or a step back up."""

    rung: Rung
    """What is allowed from now on."""

    reading: Reading
    """Memory at that moment."""


def ladder(full: Rung, *, fixed: bool) -> tuple[Rung, ...]:
    """All rungs from the full plan down to one batch; `fixed`: with the same workers all the way."""
    rungs, workers, batches = [full], full.workers, full.batches
    while (workers > 1 and not fixed) or batches > 1:
        if batches > (1 if fixed else workers):
            batches = max(1 if fixed else workers, batches // 2)
        else:
            workers -= max(1, workers // 4)
            batches = workers
        rungs.append(Rung(workers, batches))
    return tuple(rungs)


class Governor:
    """Decides for one loader; `observe` is the only way in."""

    def __init__(self, full: Rung, *, fixed: bool) -> None:
        """`full` is what the plan in force wants; `fixed`: the number of workers stays."""
        self.log: deque[Change] = deque(maxlen=KEPT_CHANGES)
        """The last changes, oldest first."""
        self.near = False
        """Whether memory is tight, or will be soon: to be looked at more often."""
        self._fixed = fixed
        self._ladder = ladder(full, fixed=fixed)
        self._at = 0
        self._before: Reading | None = None
        self._grew = self._lasting = 0.0
        self._added = False  # workers, since the last reading
        self._ramp_until_s = 0.0
        self._want_s = 0.0
        self._tried: tuple[int, float, int] | None = None  # the rung that was climbed to, when, and the use before
        self._failed: dict[int, int] = {}  # rung: the use one below it before it was climbed to in vain
        self._falls: dict[int, int] = {}

    @property
    def allowed(self) -> Rung:
        """What the loader may do now."""
        return self._ladder[self._at]

    @property
    def limited(self) -> bool:
        """Whether that is less than its plan."""
        return self._at > 0

    @property
    def full(self) -> Rung:
        """What it could do without want of memory."""
        return self._ladder[0]

    def resize(self, full: Rung) -> None:
        """Another plan is in force. What is allowed becomes neither more by that, nor all there is because the plan is less."""
        allowed, limited, now = self.allowed, self.limited, self.full
        if limited:
            full = Rung(max(full.workers, now.workers), max(full.batches, now.batches))
        if full == now:
            return
        self._added = self._added or (full.workers > now.workers and not limited)
        self._ladder = ladder(full, fixed=self._fixed)
        fits = (at for at, rung in enumerate(self._ladder) if _within(rung, allowed))
        self._at = next(fits, len(self._ladder) - 1) if limited else 0
        self._tried = None
        self._failed.clear()
        self._falls.clear()

    def observe(self, reading: Reading) -> Change | None:
        """One look at memory; what changes by it, if anything."""
        if self._added:
            self._added, self._ramp_until_s = False, reading.now_s + RAMP_S
        falling = self._before is not None and reading.used_bytes < self._before.used_bytes
        coming = self._coming(reading)
        self._before = reading
        pressed = reading.used_bytes >= reading.low_bytes and self._pressed(reading, PRESSED)
        tight = coming >= reading.high_bytes or pressed
        self.near = tight or coming > reading.low_bytes
        if self.near or self._pressed(reading, PRESSED / 4):
            self._want_s = reading.now_s
        if tight and reading.matters:
            urgent = max(reading.used_bytes, self._lasting) >= reading.limit_bytes
            return None if falling and not urgent else self._down(reading, urgent=urgent)
        return self._up(reading) if self._may_rise(reading) else None

    def _coming(self, reading: Reading) -> float:
        """What will be in use at the next look if the last growth goes on; later, if it has been going on for two looks."""
        before, grows, elapsed_s = self._before, 0.0, 0.0
        if before is not None and reading.now_s > max(before.now_s, self._ramp_until_s):
            elapsed_s = reading.now_s - before.now_s
            rest = reading.used_bytes - reading.transport_bytes
            grows = max(0.0, (rest - before.used_bytes + before.transport_bytes) / elapsed_s)
        self._lasting = reading.used_bytes + min(grows, self._grew) * max(HORIZON_S, elapsed_s)
        self._grew = grows
        return max(reading.used_bytes + grows * elapsed_s, self._lasting)

    @staticmethod
    def _pressed(reading: Reading, pressure: float) -> bool:
        return reading.pressure is not None and reading.pressure >= pressure

    def _down(self, reading: Reading, *, urgent: bool) -> Change | None:
        left = len(self._ladder) - 1 - self._at
        if left == 0:
            return None
        at, self._at = self._at, self._at + (-(-left // 2) if urgent else 1)
        if self._tried is not None and self._tried[0] == at:
            _, since_s, used_bytes = self._tried
            if reading.now_s - since_s < PROBATION_S * 2 ** self._falls.get(at, 0):
                self._failed[at] = used_bytes
        self._falls[at] = self._falls.get(at, 0) + 1
        self._tried = None
        fewer = self._ladder[at].workers > self.allowed.workers
        return self._changed("retire" if fewer else "shorten", reading)

    def _may_rise(self, reading: Reading) -> bool:
        if not self.limited or reading.now_s - self._want_s < CALM_S:
            return False
        failed = self._failed.get(self._at - 1)
        return failed is None or reading.used_bytes <= failed - reading.reserve_bytes // 2

    def _up(self, reading: Reading) -> Change:
        self._at -= 1
        self._tried = self._at, reading.now_s, reading.used_bytes
        self._want_s = reading.now_s  # the next step up waits as long again
        return self._changed("restore", reading)

    def _changed(self, kind: Literal["shorten", "retire", "restore"], reading: Reading) -> Change:
        change = Change(kind, self.allowed, reading)
        self.log.append(change)
        return change


def _within(rung: Rung, other: Rung) -> bool:
    return rung.workers <= other.workers and rung.batches <= other.batches
