"""The verb: options, what it says on stderr, and the report it writes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import keepfed
from keepfed.cli.main import main
from keepfed.cli.run import Seen, loader_line
from keepfed.events import Joined, LoaderSeen, Note
from keepfed.host.facts import read_host
from keepfed.plan import LoaderId, Plan
from keepfed.profile import HostProfile, Profile, write_profile

posix = pytest.mark.skipif(os.name != "posix", reason="the programs are shell commands")
LOADER = LoaderId("train.py:41", "photos.PhotoFolder")


def seen(asked: Plan, used: Plan, source: str = "plan", **changes: object) -> LoaderSeen:
    fields = {"handled": True, "reason": ""} | changes
    return LoaderSeen(LOADER, 8, asked, used, source, **fields)  # type: ignore[arg-type]  # the test's own words


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            seen(Plan(4, 2), Plan(6, 3)),
            (
                "keepfed: train.py:41 PhotoFolder: asks for num_workers=4, prefetch_factor=2; "
                "uses num_workers=6, prefetch_factor=3 (from the plan file)"
            ),
        ),
        (
            seen(Plan(4, 2), Plan(4, 2), "exact"),
            "keepfed: train.py:41 PhotoFolder: num_workers=4, prefetch_factor=2 (--exact)",
        ),
        (seen(Plan(0), Plan(0), "program"), "keepfed: train.py:41 PhotoFolder: num_workers=0 (as the program asks)"),
        (
            seen(Plan(2), Plan(2), "program", handled=False, reason="an iterable dataset"),
            "keepfed: train.py:41 PhotoFolder: left to torch's own loader: an iterable dataset",
        ),
        (
            seen(Plan(0), Plan(0), "program", note="it caches in memory"),
            "keepfed: train.py:41 PhotoFolder: num_workers=0 (as the program asks); it caches in memory",
        ),
    ],
)
def test_a_loaders_line_says_what_was_asked_what_is_used_and_from_where(event: LoaderSeen, line: str) -> None:
    assert loader_line(event) == line


@pytest.mark.parametrize("source", ["program", "plan", "exact", "first-guess", "rank"])
def test_every_source_has_words(source: str) -> None:
    assert "run." not in loader_line(seen(Plan(1), Plan(2), source))


def test_ranks_that_say_the_same_are_told_once_and_kept_each() -> None:
    told = Seen()
    event = seen(Plan(1), Plan(2))
    assert len(told.take([(1, Joined("py", "3.11", "2", 0, 0, False)), (1, event), (2, event), (3, Note("x"))])) == 1
    assert told.take([(4, event)]) == []
    assert told.armed
    assert [pid for pid, _ in told.loaders] == [1, 2, 4]


def test_no_command_is_a_usage_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--exact"]) == 2
    assert capsys.readouterr().err.startswith("keepfed: no command; write it after --")
    assert list(here.iterdir()) == []


def test_a_malformed_plan_is_refused_before_the_program_starts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("schema = [", "unknown_key = 1\n"):
        (here / "keepfed.toml").write_text(text)
        assert main(["run", "--", "touch", "started"]) == 2
        assert "keepfed.toml:1" in capsys.readouterr().err
        assert [path.name for path in here.iterdir()] == ["keepfed.toml"]
        assert (here / "keepfed.toml").read_text() == text


def test_a_plan_file_that_was_asked_for_and_is_missing_is_a_usage_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--plan", "other.toml", "--", "true"]) == 2
    assert "other.toml: no such plan file" in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("path", [".", "no/such/folder/report.json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_program_starts(
    here: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert main(["run", "--json", path, "--", "touch", "started"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert list(here.iterdir()) == []


@posix
def test_options_reach_the_run_folder_and_the_rest_the_program(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_profile(here / "plan.toml", Profile(HostProfile("0123", 4.0)))
    arguments = ["run", "--exact", "--plan", "plan.toml", "--", "echo", "--exact", "--", "--json", "x"]
    assert main(arguments) == 0
    assert capfd.readouterr().out == "--exact -- --json x\n"
    (run,) = (here / ".keepfed" / "runs").iterdir()
    config = json.loads((run / "config.json").read_text())
    assert (config["mode"], config["exact"], config["plan_file"]) == ("run", True, str(here / "plan.toml"))
    assert (config["start_folder"], config["lang"]) == (str(here), "en")


@posix
def test_a_program_without_a_loader_is_told_so_in_one_line(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--", "echo", "hello"]) == 0
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert err == "keepfed: nothing to act on: no torch DataLoader was iterated in this program\n"


@posix
def test_the_language_of_the_command_line_is_spoken(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "zh", "run", "--", "true"]) == 0
    assert "没有迭代" in capfd.readouterr().err


@posix
def test_the_report_holds_what_happened(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import json, os\nfrom keepfed.events import LoaderSeen, Joined\nfrom keepfed.feed import RunFolder\n"
        "from keepfed.plan import LoaderId, Plan\nwriter = RunFolder.from_environment().writer()\n"
        "writer.write(Joined('py', '3.11', '2.13', 0, 0, False))\n"
        "writer.write(LoaderSeen(LoaderId('a.py:1', 'm.D'), 8, Plan(1), Plan(3, 4), 'plan', True, ''))\nos._exit(9)"
    )
    source = str(Path(keepfed.__file__).resolve().parents[1])
    command = ["env", f"PYTHONPATH={source}", sys.executable, "-c", program]
    assert main(["run", "--json", "report.json", "--", *command]) == 9
    told = json.loads((here / "report.json").read_text())
    assert (told["schema"], told["exit_code"], told["command"]) == ("keepfed.run-report/1", 9, command)
    assert told["host"].keys() == read_host().to_json().keys()
    assert (told["armed"], told["unarmed_reason"], told["unarmed_interpreters"]) == (True, None, [])
    assert told["seconds"] >= 0
    assert Path(told["run_folder"]).parent == here / ".keepfed" / "runs"
    (loader,) = told["loaders"]
    assert (loader["site"], loader["dataset"], loader["asked"], loader["used"]) == (
        "a.py:1",
        "m.D",
        {"num_workers": 1, "prefetch_factor": 2},
        {"num_workers": 3, "prefetch_factor": 4},
    )
    assert "uses num_workers=3" in capfd.readouterr().err


@posix
def test_a_report_about_an_unarmed_program_says_why(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "sudo").write_text("#!/bin/sh\nexit 0\n")
    (here / "sudo").chmod(0o755)
    assert main(["run", "--json", "report.json", "--", "./sudo", "python", "train.py"]) == 0
    told = json.loads((here / "report.json").read_text())
    assert not told["armed"]
    assert "sudo starts the program without this environment" in told["unarmed_reason"]
    assert told["unarmed_reason"] in capfd.readouterr().err


@posix
def test_a_reporting_error_does_not_end_the_program(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Seen, "take", broken)
    monkeypatch.setattr("keepfed.cli.run.explain_unarmed", broken)
    assert main(["run", "--", "sh", "-c", "sleep 0.5; exit 5"]) == 5
    assert capfd.readouterr().err == ""
