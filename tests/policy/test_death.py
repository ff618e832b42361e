"""What a death is put down to: the evidence decides, and a counter that nobody could read decides nothing."""

from __future__ import annotations

import pytest

from keepfed.policy.death import BURST_S, SHM_FULL_BYTES, Cause, Evidence, Ledger, likely_cause


def cause(signal: str = "", exit_code: int | None = None, **known: int | None) -> Cause:
    return likely_cause(Evidence(signal, exit_code, known.get("group"), known.get("host"), known.get("shm")))


@pytest.mark.parametrize(
    ("group", "host", "found"),
    [
        (1, 1, Cause.OOM),
        (1, None, Cause.OOM),
        (0, 5, Cause.KILLED),
        (0, 0, Cause.KILLED),
        (None, 1, Cause.OOM_ON_HOST),
        (None, 0, Cause.KILLED_OR_OOM),
        (None, None, Cause.KILLED_OR_OOM),
    ],
)
def test_a_sigkill_is_the_oom_killers_when_its_counter_says_so(
    group: int | None, host: int | None, found: Cause
) -> None:
    """Other containers' kills move the host's counter as well: where the group has one, it alone counts."""
    assert cause("SIGKILL", group=group, host=host) is found


def test_a_death_of_which_nothing_is_known_is_put_down_to_the_oom_killer_only_if_it_was_seen_here() -> None:
    assert cause(group=1, host=1) is Cause.OOM
    assert cause(group=0, host=1) is Cause.UNKNOWN
    assert cause(group=None, host=1) is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("signal", "found"),
    [
        ("SIGSEGV", Cause.NATIVE),
        ("SIGABRT", Cause.NATIVE),
        ("SIGFPE", Cause.NATIVE),
        ("SIGILL", Cause.ILLEGAL),
        ("SIGTERM", Cause.ASKED),
        ("SIGXCPU", Cause.CPU_LIMIT),
        ("SIGXFSZ", Cause.FILE_LIMIT),
        ("SIG42", Cause.UNKNOWN),
    ],
)
def test_other_signals_speak_for_themselves(signal: str, found: Cause) -> None:
    assert cause(signal, group=1, host=1) is found


def test_an_exit_code_is_the_programs_own_doing() -> None:
    assert cause(exit_code=3, group=1) is Cause.EXITED
    assert cause(exit_code=0, group=1) is Cause.EXITED


@pytest.mark.parametrize(
    ("left", "found"), [(0, Cause.SHM_FULL), (SHM_FULL_BYTES, Cause.BUS), (None, Cause.BUS), (1 << 40, Cause.BUS)]
)
def test_a_bus_error_with_a_full_dev_shm_is_its_doing(left: int | None, found: Cause) -> None:
    assert cause("SIGBUS", shm=left) is found


def test_two_that_were_killed_together_are_both_explained() -> None:
    ledger = Ledger(seen=7)
    for now_s in (100.0, 100.5):
        assert ledger.look(9, now_s)
        ledger.explains_one()
    assert ledger.look(9, 101.0) == 0


def test_a_kill_long_ago_explains_nothing() -> None:
    ledger = Ledger(seen=7)
    assert ledger.look(9, 100.0) == 2
    assert ledger.look(9, 100.0 + BURST_S) == 0
    assert ledger.look(10, 200.0) == 1


def test_a_counter_that_appears_or_disappears_counts_from_there() -> None:
    ledger = Ledger(seen=None)
    assert ledger.look(5, 1.0) is None
    assert ledger.look(6, 2.0) == 1
    assert ledger.look(None, 3.0) is None
    assert ledger.look(9, 4.0) is None
    assert Ledger(seen=5).look(3, 1.0) == 0, "a group that was made anew"
