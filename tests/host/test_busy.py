"""How busy the usable cores are."""

from __future__ import annotations

from keepfed.host.busy import BusyMeter
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
