"""The run folder: private, line-atomic, and never in the way of training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keepfed.errors import UnreachableError
from keepfed.events import Ended, Event, Joined, Note
from keepfed.feed import KEPT_RUNS, Reader, RunConfig, RunFolder, Writer
from keepfed.plan import LoaderId, Plan

posix = pytest.mark.skipif(os.name != "posix", reason="owners, modes and links are POSIX's")


def test_a_run_folder_is_private_and_lies_in_the_start_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig(mode="tune"))
    assert folder.path.parent == tmp_path / ".keepfed" / "runs"
    assert folder.path.name.endswith(f"-{os.getpid()}")
    assert folder.elsewhere == ""
    if os.name == "posix":
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "config.json").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / ".keepfed" / ".gitignore").read_text().endswith("*\n")


def test_what_the_launcher_asks_arrives_in_the_program(tmp_path: Path) -> None:
    asked = RunConfig(mode="tune", exact=True, plan_file="/a/plan.toml", lang="zh")
    made = RunFolder.create(tmp_path, asked)
    opened = RunFolder.from_environment({"KEEPFED_RUN": str(made.path)})
    assert opened == made
    assert opened is not None
    assert opened.config.start_folder == str(tmp_path)


def test_a_program_outside_any_run_has_no_folder() -> None:
    assert RunFolder.from_environment({}) is None


def test_a_config_of_a_newer_version_may_hold_more(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    config = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps(config | {"a_later_key": 1}))
    assert RunFolder.open(folder.path) == folder


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "keepfed.run/9"}', '{"mode": "run"}'])
def test_a_config_that_is_none_is_unreachable(tmp_path: Path, text: str) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    (folder.path / "config.json").write_text(text)
    with pytest.raises(UnreachableError, match="not a usable run folder"):
        RunFolder.open(folder.path)


def test_a_missing_folder_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="gone"):
        RunFolder.from_environment({"KEEPFED_RUN": str(tmp_path / "gone")})


@posix
def test_a_folder_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    folder.path.chmod(0o770)
    with pytest.raises(UnreachableError, match="open to other users"):
        RunFolder.open(folder.path)


@posix
def test_a_folder_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    monkeypatch.setattr(os, "geteuid", lambda: folder.path.stat().st_uid + 1)
    with pytest.raises(UnreachableError, match="belongs to another user"):
        RunFolder.open(folder.path)


@posix
@pytest.mark.parametrize("link", [".keepfed", ".keepfed/runs"])
def test_a_symbolic_link_in_the_way_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    elsewhere = tmp_path / "temporary"
    target = tmp_path / "target"
    elsewhere.mkdir()
    target.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(target)
    folder = RunFolder.create(tmp_path, RunConfig())
    assert folder.path.parent == elsewhere
    assert "symbolic link" in folder.elsewhere
    assert str(folder.path) in folder.elsewhere
    assert list(target.iterdir()) == []
    assert RunFolder.open(folder.path).config == folder.config


@posix
def test_a_foreign_keepfed_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / ".keepfed").mkdir()
    own = os.geteuid()
    answers = iter([own + 1])
    monkeypatch.setattr(os, "geteuid", lambda: next(answers, own))
    folder = RunFolder.create(tmp_path, RunConfig())
    assert folder.path.parent == temporary
    assert "another user" in folder.elsewhere
    assert list((tmp_path / ".keepfed").iterdir()) == []


@posix
def test_a_folder_that_cannot_be_written_sends_the_run_to_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file named .keepfed stands for every reason: root, who runs these tests in containers, may write anywhere."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / ".keepfed").write_text("a file")
    folder = RunFolder.create(tmp_path, RunConfig())
    assert folder.path.parent == temporary
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".keepfed").read_text() == "a file"


def test_two_runs_in_one_second_have_two_folders(tmp_path: Path) -> None:
    assert len({RunFolder.create(tmp_path, RunConfig()).path for _ in range(5)}) == 5


@posix
def test_old_runs_go_and_nothing_else_does(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    runs = RunFolder.create(tmp_path, RunConfig()).path.parent
    for number in range(KEPT_RUNS + 5):
        (runs / f"20200101-{number:06d}-{ended.pid}").mkdir()
    (runs / f"20190101-000000-{os.getpid()}").mkdir()
    (runs / "mine").mkdir()
    RunFolder.create(tmp_path, RunConfig())
    left = sorted(path.name for path in runs.iterdir())
    assert f"20190101-000000-{os.getpid()}" in left
    assert "mine" in left
    assert f"20200101-000000-{ended.pid}" not in left
    assert f"20200101-{KEPT_RUNS + 4:06d}-{ended.pid}" in left
    assert len(left) <= KEPT_RUNS + 2


LOADER = LoaderId("train.py:4", "photos.Folder", 1)
RECORDS: list[Event] = [
    Joined("/usr/bin/python3", "3.11.7", "2.13.0", 1, 1, True),
    Note("两个字 and a\nline break"),
    Ended(LOADER, Plan(3, 4), 10, 2.5, 0.5),
]


def test_what_was_written_is_read_once_and_in_order(tmp_path: Path) -> None:
    writer, reader = Writer(tmp_path), Reader(tmp_path)
    for record in RECORDS:
        writer.write(record)
    assert reader.read_new() == [(os.getpid(), record) for record in RECORDS]
    assert reader.read_new() == []
    writer.write(RECORDS[0])
    assert reader.read_new() == [(os.getpid(), RECORDS[0])]
    writer.close()


def test_each_line_names_its_event_time_and_process(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(RECORDS[0], time_s=12.5)
    writer.close()
    (line,) = (tmp_path / f"events-{os.getpid()}.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["event"], told["time_s"], told["pid"], told["torch"]) == ("joined", 12.5, os.getpid(), "2.13.0")


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    writer, reader = Writer(tmp_path), Reader(tmp_path)
    writer.write(Note("one"))
    file = tmp_path / f"events-{os.getpid()}.jsonl"
    line = file.read_bytes()
    for cut in range(1, len(line)):
        file.write_bytes(line + line[:cut])
        reader = Reader(tmp_path)
        assert len(reader.read_new()) == 1
        file.write_bytes(line + line)
        assert len(reader.read_new()) == 1
    writer.close()


@pytest.mark.parametrize(
    "line", ["", "not json", "[1]", "null", '{"event": "from_the_future", "time_s": 1, "pid": 2}', '{"event": "note"}']
)
def test_what_a_reader_does_not_understand_is_skipped(tmp_path: Path, line: str) -> None:
    good = '{"event": "note", "text": "here", "time_s": 1, "pid": 2, "a_later_field": 3}\n'
    (tmp_path / "events-2.jsonl").write_text(line + "\n" + good)
    (tmp_path / "events-3.jsonl").write_bytes(b"\xff\xfe\n")
    assert Reader(tmp_path).read_new() == [(2, Note("here"))]


def test_events_of_several_processes_come_in_order_of_time(tmp_path: Path) -> None:
    for pid, time_s in ((1, 3.0), (2, 2.0), (3, 1.0)):
        line = json.dumps({"event": "note", "text": str(pid), "time_s": time_s, "pid": pid})
        (tmp_path / f"events-{pid}.jsonl").write_text(line + "\n")
    assert [pid for pid, _ in Reader(tmp_path).read_new()] == [3, 2, 1]


@posix
def test_a_forked_child_writes_into_a_file_of_its_own(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(Note("parent"))
    child = os.fork()
    if child == 0:
        writer.write(Note("child"))
        os._exit(0)
    os.waitpid(child, 0)
    writer.close()
    assert dict(Reader(tmp_path).read_new()) == {os.getpid(): Note("parent"), child: Note("child")}


def test_many_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Also where two share a pid, as in containers that share a folder: one write, one line."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom keepfed.feed import Writer\nfrom keepfed.events import Note\n"
        "os.getpid = lambda: 77\nwriter = Writer(Path(sys.argv[1]))\n"
        "for n in range(300): writer.write(Note(sys.argv[2] * 2000))\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), word], env=environ) for word in "ab"]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    told = [event.text for _, event in Reader(tmp_path).read_new() if isinstance(event, Note)]
    assert sorted(told) == ["a" * 2000] * 300 + ["b" * 2000] * 300


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    writer = Writer(tmp_path)
    writer.write(Ended(LOADER, Plan(1), numpy.int64(3), numpy.float32(0.5), 0.25))
    writer.close()
    assert Reader(tmp_path).read_new()[0][1] == Ended(LOADER, Plan(1), 3, 0.5, 0.25)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_switches_the_writer_off_with_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777, **more: opened("/dev/full", os.O_WRONLY))
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.write(Note("lost"))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert "the program goes on" in err


def test_a_folder_that_disappears_switches_the_writer_off(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = Writer(folder)
    shutil.rmtree(folder)
    writer.write(Note("lost"))
    writer.write(Note("lost"))
    assert capfd.readouterr().err.count("\n") == 1
    assert Reader(folder).read_new() == []


def test_unarmed_interpreters_are_read_and_half_lines_passed_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    assert folder.unarmed() == ()
    line = '{"pid": 4, "executable": "/py", "version": "3.8.1", "torch": true}\n'
    (folder.path / "unarmed.jsonl").write_text(line + '{"pid": 5}\nnonsense\n{"pi')
    (found,) = folder.unarmed()
    assert (found.pid, found.executable, found.version, found.torch, found.error) == (4, "/py", "3.8.1", True, "")


def test_the_feed_needs_no_torch() -> None:
    code = "import sys, keepfed.feed; sys.exit('torch' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False, timeout=30).returncode == 0
