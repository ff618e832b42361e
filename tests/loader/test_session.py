"""What the loaders of one process share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepfed.events import Joined, Note
from keepfed.feed import RunConfig, RunFolder
from keepfed.host.facts import read_host
from keepfed.loader.session import Session
from keepfed.plan import LoaderId, Plan
from keepfed.profile import HostProfile, LoaderProfile, Profile, write_profile
from keepfed.text import say

ONE, MOVED = LoaderId("train.py:41", "data.Photos"), LoaderId("train.py:47", "data.Photos")


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = Session(None)
    session.emit(Note("anything"))
    session.close()
    assert list(tmp_path.iterdir()) == []
    assert session.config == RunConfig()
    assert session.plan_of(ONE) is None


@pytest.mark.parametrize(("rank", "local"), [(None, None), ("3", "1"), ("x", "-1")])
def test_a_session_joins_the_run_with_its_rank(
    tmp_path: Path, rank: str | None, local: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", local)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    folder = RunFolder.create(tmp_path, RunConfig())
    session = Session(folder)
    session.close()
    session.emit(Note("too late"))
    ((pid, joined),) = folder.reader().read_new()
    assert isinstance(joined, Joined)
    assert pid == os.getpid()
    assert (joined.rank, joined.local_rank) == ((3, 1) if rank == "3" else (0, 0))
    assert joined.torch
    assert joined.python.startswith("3.")


def test_the_language_is_the_launchers(tmp_path: Path) -> None:
    session = Session(RunFolder.create(tmp_path, RunConfig(lang="zh")))
    assert any("\u4e00" <= letter <= "\u9fff" for letter in say("loader.zero_closed"))
    session.close()


def session_with(tmp_path: Path, fingerprint: str = "", **config: object) -> Session:
    path = tmp_path / "keepfed.toml"
    write_profile(path, Profile(HostProfile("measured-there"), (LoaderProfile(ONE, Plan(5, 3)),)))
    folder = RunFolder.create(tmp_path, RunConfig(plan_file=str(path), fingerprint=fingerprint, **config))  # type: ignore[arg-type]  # fields by name
    return Session(folder)


def test_the_plan_is_trusted_where_it_was_measured_as_the_launcher_sees_the_host(tmp_path: Path) -> None:
    for fingerprint, trusted in (("measured-there", True), ("", False), (read_host().fingerprint, False)):
        session = session_with(tmp_path, fingerprint)
        match = session.plan_of(ONE)
        assert match is not None
        assert (match.plan, match.measured_here) == (Plan(5, 3), trusted)
        session.close()


def test_a_moved_line_takes_the_entry_over_unless_another_loader_has_it(tmp_path: Path) -> None:
    session = session_with(tmp_path)
    match = session.plan_of(MOVED)
    assert match is not None
    assert match.note
    session.close()
    session = session_with(tmp_path)
    assert session.plan_of(ONE) is not None
    assert session.plan_of(MOVED) is None
    session.close()


def test_tuning_looks_at_no_plan_file(tmp_path: Path) -> None:
    session = session_with(tmp_path, mode="tune")
    assert session.plan_of(ONE) is None
    session.close()


def test_a_plan_file_that_is_gone_is_none(tmp_path: Path) -> None:
    session = Session(RunFolder.create(tmp_path, RunConfig(plan_file=str(tmp_path / "gone.toml"))))
    assert session.plan_of(ONE) is None
    session.close()
