"""How busy the usable cores are."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from keepfed.host.busy import BusyMeter, CoreClock
from keepfed.host.limits import Ceiling


def _ceiling(cause: str) -> Ceiling:
    return Ceiling(2.0, cause, "here", ())


def _meter(cause: str, shares: list[float], usable: set[int]) -> BusyMeter:
    return BusyMeter(_ceiling(cause), lambda: shares, lambda: frozenset(usable))


def test_only_the_cores_that_may_be_used_count() -> None:
    assert _meter("affinity", [100.0, 90.0, 0.0, 0.0], {0, 1}).share() == 0.95


def test_under_a_quota_the_answer_is_unknown() -> None:
    assert _meter("cgroup_v2_quota", [10.0, 10.0], {0, 1}).share() is None


def test_cores_that_are_not_listed_make_it_unknown() -> None:
    assert _meter("machine", [10.0, 10.0], {64, 65}).share() is None


def test_on_this_machine_it_is_a_share() -> None:
    share = BusyMeter(_ceiling("machine")).share()
    assert share is not None
    assert 0.0 <= share <= 1.0


class Times(NamedTuple):
    """As psutil has them on Linux, in seconds."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


@pytest.mark.parametrize(("niceness", "busy"), [(0, 40.0), (10, 90.0)])
def test_what_runs_at_a_lower_priority_than_this_program_is_no_neighbour(niceness: int, busy: float) -> None:
    times = iter([[Times(0, 0, 0, 0, 0, 0, 0)], [Times(30, 50, 10, 5, 5, 20, 0)]])
    clock = CoreClock(lambda: next(times), lambda: niceness)
    assert clock() == pytest.approx([busy])


def test_a_core_whose_clock_stood_still_or_went_back_is_idle() -> None:
    # The idle time of a core may go back by a tick (proc_stat(5)).
    times = iter([[Times(1, 0, 0, 9, 0, 0, 0)], [Times(1, 0, 0, 8, 0, 0, 0)]])
    assert CoreClock(lambda: next(times), lambda: 0)() == [0.0]
