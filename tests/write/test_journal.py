"""Changes are noted, found again and taken back; the journal is the owner's alone, and survives what tears it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keepfed.edit.replacement import Edit
from keepfed.errors import UnreachableError
from keepfed.knobs.origin.journal import (
    Change,
    journal_in,
    journals_about,
    own_journal,
    project_folder,
    read_changes,
    standing,
)
from keepfed.knobs.site import Span
from keepfed.write.carrying_out import Done, FileEdits, carry_out
from keepfed.write.noting import JournalError, kept_copy
from keepfed.write.replacing import WriteError
from keepfed.write.taking_back import ChangedSince, select, take_back


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return tmp_path


def replacing(file: Path, *pairs: tuple[bytes, bytes]) -> FileEdits:
    data = file.read_bytes()
    edits = []
    for old, new in pairs:
        at = data.index(old)
        was, becomes = old.decode(), new.decode()
        span = Span(at, at + len(old))
        edits.append(Edit(str(file), span, old, new, 1, "num_workers", "num_workers", was, becomes))
    return FileEdits(file, data, tuple(edits), {})


def change(where: Path, *files: FileEdits) -> Done:
    return carry_out(files, where=where, command=["keepfed", "set"])


def known(where: Path) -> list[Change]:
    return read_changes(journals_about([where]))


def undo(where: Path, asked: str | None = None) -> None:
    changes = known(where)
    plan = take_back(select(changes, asked, where), changes, journals_about([where]))
    carry_out(plan.files, where=where, command=["keepfed", "undo"], verb="undo")


def test_every_change_is_a_line_with_hashes_and_offsets(project: Path) -> None:
    file = project / "sub" / "train.py"
    file.parent.mkdir()
    file.write_bytes(b"a=4, b=22\n")
    done = change(file.parent, replacing(file, (b"4", b"16"), (b"22", b"3")))
    assert file.read_bytes() == b"a=16, b=3\n"
    assert done.journal == journal_in(project)
    lines = [json.loads(line) for line in done.journal.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"{done.group}.1", f"{done.group}.2"]
    assert {line["file"] for line in lines} == {"sub/train.py"}
    assert [(line["from"], line["to"], line["start"], line["end"]) for line in lines] == [
        ("4", "16", 2, 3),
        ("22", "3", 7, 9),
    ]
    assert lines[0]["sha256_before"] != lines[0]["sha256_after"]
    assert lines[0]["command"] == ["keepfed", "set"]


def test_the_journal_is_private_and_hidden_from_git(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"4")
    done = change(project, replacing(file, (b"4", b"8")))
    assert stat.S_IMODE(done.journal.stat().st_mode) == 0o600
    assert stat.S_IMODE(done.journal.parent.stat().st_mode) == 0o700
    assert (done.journal.parent / ".gitignore").read_text().endswith("*\n")


def test_undo_takes_back_one_set_after_the_other(project: Path) -> None:
    one, other = project / "one", project / "other"
    one.write_bytes(b"a=4 b=2")
    other.write_bytes(b"c=7")
    change(project, replacing(one, (b"4", b"16"), (b"2", b"333")), replacing(other, (b"7", b"")))
    change(project, replacing(one, (b"16", b"8")))
    assert one.read_bytes() == b"a=8 b=333"
    undo(project)
    assert (one.read_bytes(), other.read_bytes()) == (b"a=16 b=333", b"c=")
    undo(project)
    assert (one.read_bytes(), other.read_bytes()) == (b"a=4 b=2", b"c=7")
    with pytest.raises(UnreachableError, match="nothing to take back"):
        undo(project)
    assert standing(known(project)) == []


def test_undo_of_a_file_leaves_the_others_of_that_set(project: Path) -> None:
    one, other = project / "one", project / "other"
    one.write_bytes(b"4")
    other.write_bytes(b"4")
    change(project, replacing(one, (b"4", b"8")), replacing(other, (b"4", b"8")))
    undo(project, "one")
    assert (one.read_bytes(), other.read_bytes()) == (b"4", b"8")
    undo(project)
    assert other.read_bytes() == b"4"


def test_an_insertion_is_taken_out_again(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"ab")
    change(project, FileEdits(file, b"ab", (Edit("x", Span(1, 1), b"", b"++", 1, "k", "k", "", "++"),), {}))
    assert file.read_bytes() == b"a++b"
    undo(project)
    assert file.read_bytes() == b"ab"


def test_undo_refuses_a_file_that_changed_since_and_shows_how(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"first\na=4\n")
    done = change(project, replacing(file, (b"4", b"8")))
    file.write_bytes(b"first\na=8\nmine\n")
    with pytest.raises(ChangedSince) as caught:
        undo(project)
    assert b"+mine\n" in caught.value.diff
    assert b"-a=4" not in caught.value.diff, "the change itself is no part of what happened since"
    assert done.group in caught.value.message
    assert file.read_bytes() == b"first\na=8\nmine\n"


def test_an_older_set_is_not_taken_back_under_a_newer_one(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"4")
    first = change(project, replacing(file, (b"4", b"8")))
    second = change(project, replacing(file, (b"8", b"2")))
    with pytest.raises(ChangedSince) as caught:
        undo(project, first.group)
    assert second.group in caught.value.next_step
    undo(project)
    undo(project, first.group)
    assert file.read_bytes() == b"4"


def test_a_change_that_was_noted_and_not_made_is_as_good_as_taken_back(project: Path) -> None:
    """The machine went down between the note and the rename."""
    file = project / "x"
    file.write_bytes(b"4")
    change(project, replacing(file, (b"4", b"8")))
    file.write_bytes(b"4")
    changes = known(project)
    plan = take_back(select(changes, None, project), changes, [])
    assert plan.files == []
    assert [one.new for one in plan.already] == ["8"]


def test_a_torn_line_harms_no_other(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"4")
    done = change(project, replacing(file, (b"4", b"8")))
    with done.journal.open("ab") as journal:
        journal.write(b'{"schema": "keepfed.journal/1", "id": "torn')
    change(project, replacing(file, (b"8", b"2")))
    assert [change.new for change in known(project)] == ["8", "2"]


def test_a_file_elsewhere_is_noted_here_and_there(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = elsewhere / "x"
    file.write_bytes(b"4")
    change(project, replacing(file, (b"4", b"8")))
    assert [one.file for one in known(project)] == [str(file)]
    assert [one.file for one in known(elsewhere)] == [str(file)]
    assert len(read_changes(journals_about([project, elsewhere]))) == 1
    undo(elsewhere)
    assert file.read_bytes() == b"4"


@pytest.mark.parametrize("way", ["absolute", "upwards", "link"])
def test_a_journal_that_came_with_a_repository_reaches_no_file_outside_of_it(
    project: Path, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    inside, outside = project / "x", tmp_path_factory.mktemp("home") / ".bashrc"
    inside.write_bytes(b"4")
    outside.write_bytes(b"8")
    change(project, replacing(inside, (b"4", b"8")))
    (project / "link").symlink_to(outside.parent)
    journal = journal_in(project)
    line = json.loads(journal.read_text())
    line["file"] = {
        "absolute": str(outside),
        "upwards": os.path.relpath(outside, project),
        "link": "link/.bashrc",
    }[way]
    journal.write_text(json.dumps(line) + "\n")
    assert known(project) == []


def test_a_file_elsewhere_whose_project_takes_no_journal_is_noted_in_the_users_own(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / ".keepfed").write_text("not a folder")
    file = elsewhere / "x"
    file.write_bytes(b"4")
    change(project, replacing(file, (b"4", b"8")))
    undo(project)
    assert file.read_bytes() == b"4"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are POSIX's")
def test_a_journal_that_others_may_write_is_not_read(project: Path) -> None:
    file = project / "x"
    file.write_bytes(b"4")
    change(project, replacing(file, (b"4", b"8")))
    journal_in(project).chmod(0o666)
    assert known(project) == []


def test_no_kept_copy_is_named_by_a_path(project: Path) -> None:
    (project / "secret").write_bytes(b"secret")
    (project / ".keepfed" / "before").mkdir(parents=True)
    assert kept_copy([journal_in(project)], "../../secret") is None
    assert kept_copy([journal_in(project)], str(project / "secret")) is None


def test_a_project_inside_another_has_its_own_note(project: Path) -> None:
    inner = project / "third_party" / "model"
    (inner / ".git").mkdir(parents=True)
    file = inner / "x"
    file.write_bytes(b"4")
    change(project, replacing(file, (b"4", b"8")))
    undo(inner)
    assert file.read_bytes() == b"4"
    changes = known(project)
    assert take_back(select(changes, None, project), changes, []).files == [], "seen from outside it is as before, too"


def test_where_the_project_takes_no_journal_the_users_own_is_written(project: Path) -> None:
    (project / ".keepfed").write_text("not a folder")
    file = project / "x"
    file.write_bytes(b"4")
    assert change(project, replacing(file, (b"4", b"8"))).journal == own_journal()
    undo(project)
    assert file.read_bytes() == b"4"


@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_journal_that_others_could_have_written_is_neither_written_nor_believed(
    project: Path, tmp_path_factory: pytest.TempPathFactory, trap: str
) -> None:
    folder = project / ".keepfed"
    if trap == "link":
        folder.symlink_to(tmp_path_factory.mktemp("theirs"))
    else:
        folder.mkdir()
        folder.chmod(0o777)
    file = project / "x"
    file.write_bytes(b"4")
    assert change(project, replacing(file, (b"4", b"8"))).journal == own_journal()


def test_without_any_journal_nothing_is_changed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".keepfed").write_text("not a folder")
    (project / "state").write_text("not a folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    file = project / "x"
    file.write_bytes(b"4")
    with pytest.raises(JournalError, match="nothing was changed"):
        change(project, replacing(file, (b"4", b"8")))
    assert file.read_bytes() == b"4"


WRITER = """
import sys
from pathlib import Path
from keepfed.edit.replacement import Edit
from keepfed.knobs.site import Span
from keepfed.write.carrying_out import FileEdits, carry_out
where = Path(sys.argv[1])
file = where / sys.argv[2]
for number in range(10):
    data = file.read_bytes()
    edit = Edit("x", Span(0, len(data)), data, str(number).encode() * 50, 1, "k", "k", "", "")
    carry_out([FileEdits(file, data, (edit,), {})], where=where, command=[])
"""


def test_two_processes_at_once_tear_no_line(project: Path) -> None:
    for name in "ab":
        (project / name).write_bytes(b"4")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, project, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(known(project)) == 20
    assert os.path.getsize(journal_in(project)) == sum(
        len(line) + 1 for line in journal_in(project).read_bytes().split(b"\n") if line
    )


def test_two_people_who_edit_each_others_projects_do_not_wait_for_each_other(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for folder in (project, other):
        (folder / "x").write_bytes(b"4")
    crossed = [(project, other / "x"), (other, project / "x")]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, where, file]) for where, file in crossed]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(known(project)) == len(known(other)) == 20


def test_of_a_set_that_failed_halfway_undo_takes_back_what_is_left_of_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [project / name for name in "abc"]
    for file in files:
        file.write_bytes(b"4")
    put = os.replace
    puts: list[Path] = []

    def failing(source: Path, target: Path) -> None:
        puts.append(target)
        if len(puts) in {3, 4}:  # the third file, and the way back of the first
            raise OSError(errno.EIO, "broken disk")
        put(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match="could not be put back"):
        change(project, *(replacing(file, (b"4", b"8")) for file in files))
    assert [file.read_bytes() for file in files] == [b"8", b"4", b"4"]
    undo(project)
    assert [file.read_bytes() for file in files] == [b"4", b"4", b"4"]


def test_a_user_without_a_home_has_no_journal_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert own_journal() is None


def test_a_journal_that_takes_no_more_lines_stops_the_change(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "x"
    file.write_bytes(b"4")
    first = change(project, replacing(file, (b"4", b"8"))).journal
    before = first.read_bytes()
    write, room = os.write, [50]

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(JournalError, match="No space"):
        change(project, replacing(file, (b"8", b"2")))
    assert file.read_bytes() == b"8"
    assert first.read_bytes() == before, "no half line stays"


def test_a_change_in_a_folder_of_many_projects_makes_no_project_of_them_all(tmp_path: Path) -> None:
    many, one = tmp_path / "many", tmp_path / "one"
    for folder in (many, one):
        (folder / ".keepfed").mkdir(parents=True)
        (folder / "a").mkdir()
    many.chmod(0o1777)
    assert project_folder(many / "a") == many / "a"
    assert project_folder(one / "a") == one
