"""Where a worker is, or was, in words: the phase, and which sample of its batch."""

from __future__ import annotations

from keepfed.heartbeat import Heartbeat, Phase
from keepfed.loader import blame
from keepfed.policy.order import Task
from keepfed.text import say

_PHASES = {
    Phase.STARTING: "loader.phase_starting",
    Phase.IDLE: "loader.phase_idle",
    Phase.FETCHING: "loader.phase_fetching",
    Phase.COLLATING: "loader.phase_collating",
    Phase.SENDING: "loader.phase_sending",
    Phase.WAITING_FOR_ROOM: "loader.phase_waiting_for_room",
}


def phase(beat: Heartbeat) -> str:
    """What it is doing."""
    return say(_PHASES[beat.phase])


def sample(task: Task | None, beat: Heartbeat) -> str:
    """Which sample it is at, where the heartbeat knows it; else nothing."""
    if task is None or beat.phase is not Phase.FETCHING or not isinstance(task.index, list):
        return ""
    if not 0 <= beat.sample < len(task.index) or task.index[beat.sample] is None:
        return ""
    return say("loader.at_sample", index=blame.shown(task.index[beat.sample]))
