"""Whatever step fails, the old container runs under its name, and nothing else is left."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from keepfed.recreate import swap as module
from keepfed.recreate.interrupts import Interrupts
from keepfed.recreate.spec import read_spec
from keepfed.recreate.swap import RolledBack, Stranded, Swap, Swapped
from keepfed.recreate.wait import Waiting
from tests.recreate.described import docker_like
from tests.recreate.engines import NEW, OLD, FakeApi, container

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _nothing_to_look_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake has no inside, and stays up at once."""
    monkeypatch.setattr(module, "shm_inside", lambda _container: None)
    monkeypatch.setattr("keepfed.recreate.wait.SETTLE_S", 0)


def exchange(api: FakeApi, interrupts: Interrupts | None = None) -> Swapped:
    old = container(api)
    spec = read_spec(old.detail, {}).with_shm(GIB)
    lines: list[str] = []
    return Swap(old, spec, {}, Waiting(timeout_s=1), lines.append, interrupts or Interrupts()).run()


def is_as_before(api: FakeApi) -> bool:
    return list(api.there) == [OLD] and api.there[OLD]["Name"] == "/plain" and api.there[OLD]["State"]["Running"]


def test_the_new_one_takes_the_place_of_the_old_one() -> None:
    api = FakeApi()
    swapped = exchange(api)
    assert list(api.there) == [NEW]
    assert api.there[NEW]["Name"] == "/plain"
    assert (swapped.identity, swapped.shm_bytes, swapped.left_aside) == (NEW, GIB, "")
    assert api.calls == ["create", "stop", "rename", "rename", "start", "remove"]


@pytest.mark.parametrize("fails", ["create 1", "stop 1", "rename 1", "rename 2", "start 1"])
def test_a_refusal_at_any_step_leaves_the_old_one_running(fails: str) -> None:
    api = FakeApi(fails)
    with pytest.raises(RolledBack, match="refused"):
        exchange(api)
    assert is_as_before(api)


def test_before_the_old_one_was_stopped_it_is_not_touched_at_all() -> None:
    api = FakeApi("create 1")
    with pytest.raises(RolledBack, match="Nothing was changed"):
        exchange(api)
    assert "stop" not in api.calls


def _lose_mounts(made: dict[str, Any]) -> None:
    made["HostConfig"]["ShmSize"] = 1


def test_an_engine_that_passes_over_what_matters_ends_the_attempt_before_anything_is_stopped() -> None:
    api = FakeApi(spoil=_lose_mounts)
    with pytest.raises(RolledBack, match=r"HostConfig\.ShmSize"):
        exchange(api)
    assert is_as_before(api)
    assert "stop" not in api.calls


def test_a_container_that_ends_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def ends(identity: str) -> None:
        FakeApi.start(api, identity)
        if identity == NEW:
            api.there[NEW]["State"] = {"Running": False, "ExitCode": 1}

    monkeypatch.setattr(api, "start", ends)
    with pytest.raises(RolledBack, match="last words"):
        exchange(api)
    assert is_as_before(api)


@pytest.mark.parametrize("step", ["create", "stop", "rename", "start"])
def test_a_signal_is_obeyed_after_the_step_in_which_it_came(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api, interrupts = FakeApi(), Interrupts()
    called = api._called

    def interrupted(name: str) -> None:
        called(name)
        if name == step:
            interrupts.number = signal.SIGINT

    monkeypatch.setattr(api, "_called", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange(api, interrupts)
    assert is_as_before(api)


def test_an_old_one_that_cannot_be_removed_stays_aside_and_is_named() -> None:
    api = FakeApi("remove 1")
    swapped = exchange(api)
    assert swapped.left_aside.startswith("plain.keepfed-old-")
    assert api.there[NEW]["Name"] == "/plain"


def test_a_way_back_that_is_blocked_says_what_to_do_by_hand() -> None:
    api = FakeApi("start 1")
    api.fails = "start 1"
    original = api.rename

    def refuse_back(identity: str, name: str) -> None:
        if identity == OLD and name == "plain":
            api.fails = "rename 3"
        original(identity, name)

    api.rename = refuse_back  # type: ignore[method-assign]  # the fake's own
    with pytest.raises(Stranded, match="Going back failed too") as caught:
        exchange(api)
    assert f"docker rename {OLD[:12]} plain" in caught.value.next_step


def test_a_new_one_that_cannot_be_removed_at_first_is_removed_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_EVERY_S", 0.0)
    api = FakeApi(spoil=_lose_mounts)
    api.fails = "remove 1"
    with pytest.raises(RolledBack):
        exchange(api)
    assert is_as_before(api)
    assert api.calls.count("remove") == 2


def test_of_two_that_begin_together_none_touches_the_old_one() -> None:
    def another(_made: dict[str, Any]) -> None:
        api.there["other"] = docker_like(Id="other", Name="/plain.keepfed-new-ffffff")

    api = FakeApi(spoil=another)
    with pytest.raises(RolledBack, match="another one is at work"):
        exchange(api)
    assert "stop" not in api.calls
    assert api.there.pop("other")
    assert is_as_before(api)


def test_signals_are_noted_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupts = Interrupts()
    with interrupts.noted():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            interrupts.obey()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """nohup ignores SIGHUP, and a closed terminal must then change nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().noted() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            interrupts.obey()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_before_the_stop_spares_the_old_one_even_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    api, interrupts = FakeApi(), Interrupts()
    created = api.create_container_from_config

    def interrupted(body: dict[str, Any], name: str) -> dict[str, Any]:
        interrupts.number = signal.SIGTERM
        return created(body, name)

    monkeypatch.setattr(api, "create_container_from_config", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange(api, interrupts)
    assert is_as_before(api)
    assert {"stop", "start"} & set(api.calls) == set()


def test_log_lines_of_strangers_cannot_speak_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    monkeypatch.setattr(api, "logs", lambda _identity, tail: b"\x1b]0;owned\x07 done")
    monkeypatch.setattr(api, "start", lambda identity: FakeApi.start(api, OLD) if identity == OLD else None)
    with pytest.raises(RolledBack) as caught:
        exchange(api)
    assert "\x1b" not in str(caught.value)
    assert "owned" in str(caught.value)
