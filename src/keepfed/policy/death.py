"""Why a process died: what its end looks like, and what the counters around it say.

    SIGKILL ──▶ OOM killer's counter moved? ──▶ of the job's own group: it was that; of the host: perhaps
            └─▶ it stands still ──▶ somebody sent it      no counter ──▶ one of the two
    SIGBUS ──▶ /dev/shm full, or a mapped file that lost its pages
    SIGSEGV, SIGABRT, SIGFPE, SIGILL ──▶ native code
    an exit code ──▶ os._exit or sys.exit

The most frequent death of a loader's worker is the OOM killer's, and it is the one that says least: "killed by signal:
Killed". Whoever reads that looks for a bug in the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SHM_FULL_BYTES = 1 << 20
"""With less left than this in /dev/shm, a SIGBUS is taken to come from there."""
BURST_S = 5.0
"""Processes that the OOM killer took together are heard of within this time."""


class Cause(StrEnum):
    """The likely cause. Each has a sentence in the locales ("loader.cause_...")."""

    ASKED = "asked"
    BUS = "bus"
    CPU_LIMIT = "cpu_limit"
    EXITED = "exited"
    FILE_LIMIT = "file_limit"
    ILLEGAL = "illegal"
    KILLED = "killed"
    KILLED_OR_OOM = "killed_or_oom"
    NATIVE = "native"
    OOM = "oom"
    OOM_ON_HOST = "oom_on_host"
    SHM_FULL = "shm_full"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one death."""

    signal: str
    """Name of the signal that killed it ("SIGKILL"); empty where none did, or nobody knows."""
    exit_code: int | None
    """What it exited with; None where a signal killed it, or nobody knows."""
    group_kills: int | None
    """OOM kills in the job's control group that no other death explains; None where nothing counts them."""
    host_kills: int | None
    """The same for the whole host, other containers included."""
    shm_left_bytes: int | None = None
    """Room in /dev/shm; None where it is not known."""


_BY_SIGNAL = {
    "SIGABRT": Cause.NATIVE,
    "SIGFPE": Cause.NATIVE,
    "SIGHUP": Cause.ASKED,
    "SIGILL": Cause.ILLEGAL,
    "SIGINT": Cause.ASKED,
    "SIGSEGV": Cause.NATIVE,
    "SIGTERM": Cause.ASKED,
    "SIGXCPU": Cause.CPU_LIMIT,
    "SIGXFSZ": Cause.FILE_LIMIT,
}


def likely_cause(evidence: Evidence) -> Cause:
    """The likely cause of this death."""
    if evidence.exit_code is not None:
        return Cause.EXITED
    if evidence.signal in ("SIGKILL", ""):
        return _killed(evidence)
    if evidence.signal == "SIGBUS":
        left = evidence.shm_left_bytes
        return Cause.SHM_FULL if left is not None and left < SHM_FULL_BYTES else Cause.BUS
    return _BY_SIGNAL.get(evidence.signal, Cause.UNKNOWN)


def _killed(evidence: Evidence) -> Cause:
    if evidence.group_kills:
        return Cause.OOM
    if not evidence.signal:
        return Cause.UNKNOWN
    if evidence.group_kills is not None:
        return Cause.KILLED
    return Cause.OOM_ON_HOST if evidence.host_kills else Cause.KILLED_OR_OOM


@dataclass(slots=True)
class Ledger:
    """OOM kills that no death explains so far, by one counter.

    Two workers that were killed together move the counter by two before the first of them is heard of; and a process of the
    job's that was killed an hour ago explains nothing.
    """

    seen: int | None
    """The counter when it was looked at last."""
    unexplained: int = 0
    """What was left then."""
    looked_s: float = 0.0
    """When that was."""

    def look(self, now: int | None, now_s: float) -> int | None:
        """How many kills may explain a death that is heard of now; None where nothing counts them."""
        if now is None or self.seen is None:
            self.seen = now
            return None
        left = self.unexplained if now_s - self.looked_s < BURST_S else 0
        self.unexplained = left + max(0, now - self.seen)
        self.seen, self.looked_s = now, now_s
        return self.unexplained

    def explains_one(self) -> None:
        """One of them was this death."""
        self.unexplained = max(0, self.unexplained - 1)
