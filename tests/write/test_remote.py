"""Files that somebody else writes: with the others or not at all, and the journal says which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from keepfed.edit.replacement import Edit
from keepfed.errors import KeepfedError
from keepfed.knobs.site import Span
from keepfed.write.carrying_out import FileEdits, carry_out
from keepfed.write.replacing import ChangedMeanwhile, WriteError

BEFORE, AFTER = b"num_workers: 4\n", b"num_workers: 8\n"


class InMemory:
    """A file of a container that a test plays."""

    container = "c" * 64
    container_name = "trainer"
    image = "image"

    def __init__(self, data: bytes = BEFORE, fails: Callable[[bytes], bool] = lambda _data: False) -> None:
        self.data = data
        self.fails = fails

    def check(self, before: bytes) -> None:
        if self.data != before:
            raise ChangedMeanwhile("it has changed")

    def put(self, data: bytes) -> None:
        if self.fails(data):
            raise KeepfedError("the engine would not")
        self.data = data

    def put_back(self, before: bytes, after: bytes) -> None:
        if self.data != before:
            self.put(before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / ".git").mkdir()
    (tmp_path / "own.yaml").write_bytes(BEFORE)
    return tmp_path


def edits(path: Path, remote: InMemory | None = None) -> FileEdits:
    edit = Edit(str(path), Span(13, 14), b"4", b"8", 1, "num_workers", "num_workers", "4", "8")
    return FileEdits(path, BEFORE, (edit,), {}, remote)


def verbs(project: Path) -> list[str]:
    journal = project / ".keepfed" / "journal.jsonl"
    return [json.loads(line)["verb"] for line in journal.read_text(encoding="utf-8").splitlines()]


def test_both_are_written_and_noted_with_the_container(project: Path) -> None:
    remote = InMemory()
    carry_out([edits(project / "own.yaml"), edits(Path("/app/a.yaml"), remote)], where=project, command=[])
    assert (project / "own.yaml").read_bytes() == remote.data == AFTER
    lines = [json.loads(line) for line in (project / ".keepfed" / "journal.jsonl").read_text().splitlines()]
    assert [(line["file"], line["container"], line["container_name"], line["image"]) for line in lines] == [
        ("own.yaml", "", "", ""),
        ("/app/a.yaml", "c" * 64, "trainer", "image"),
    ]
    assert len({line["set"] for line in lines}) == 1


def test_a_remote_file_that_changed_stops_everything_before_it_begins(project: Path) -> None:
    remote = InMemory(b"something else\n")
    with pytest.raises(ChangedMeanwhile):
        carry_out([edits(project / "own.yaml"), edits(Path("/app/a.yaml"), remote)], where=project, command=[])
    assert (project / "own.yaml").read_bytes() == BEFORE
    assert verbs(project) == []


def test_what_an_engine_refuses_leaves_all_others_as_they_were(project: Path) -> None:
    first, second = InMemory(), InMemory(fails=lambda data: data == AFTER)
    files = [edits(project / "own.yaml"), edits(Path("/app/a.yaml"), first), edits(Path("/app/b.yaml"), second)]
    with pytest.raises(KeepfedError, match="would not"):
        carry_out(files, where=project, command=[])
    assert (project / "own.yaml").read_bytes() == first.data == second.data == BEFORE
    assert verbs(project) == ["set"] * 3 + ["void"] * 3
    assert sorted(path.name for path in project.iterdir()) == [".git", ".keepfed", "own.yaml"]


def test_a_file_that_cannot_be_led_back_is_named_and_not_noted_as_void(project: Path) -> None:
    stays = InMemory(fails=lambda data: data == BEFORE)
    second = InMemory(fails=lambda data: data == AFTER)
    files = [edits(Path("/app/a.yaml"), stays), edits(Path("/app/b.yaml"), second)]
    with pytest.raises(WriteError, match=r"/app/a\.yaml"):
        carry_out(files, where=project, command=[])
    assert (stays.data, second.data) == (AFTER, BEFORE)
    assert verbs(project) == ["set", "set", "void"]


def test_a_rename_that_fails_leads_the_remote_files_back(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = InMemory()

    def refuse(*_paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keepfed.write.replacing.os.replace", refuse)
    with pytest.raises(WriteError, match="No space left"):
        carry_out([edits(project / "own.yaml"), edits(Path("/app/a.yaml"), remote)], where=project, command=[])
    assert (project / "own.yaml").read_bytes() == remote.data == BEFORE
    assert verbs(project) == ["set"] * 2 + ["void"] * 2
