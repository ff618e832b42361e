"""`keepfed scan --pid` and `--changes` as they are typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keepfed.cli.main import main
from keepfed.cli.scan.live import process_line, with_processes
from keepfed.events import LoaderSeen, Settled
from keepfed.feed import RUN_VARIABLE, RunConfig, RunFolder
from keepfed.host.running import Running
from keepfed.knobs.scan import scan_paths
from keepfed.knobs.site import InEffect
from keepfed.plan import LoaderId, Plan
from tests.knobs.repository import Repository

PROGRAM = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"
OPTIONS = "import argparse\np = argparse.ArgumentParser()\np.add_argument('-j', '--num_workers', type=int, default=4)\na = p.parse_args()\n"
LOADER = "from torch.utils.data import DataLoader\nloader = DataLoader([], num_workers=a.num_workers)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_live_process_shows_the_option_that_it_was_really_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(PROGRAM)
    command = [sys.executable, "train.py", "-j", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            Path("train.py").write_text(OPTIONS + LOADER)
            assert main(["scan", "--json", "--pid", str(process.pid)]) == 0
            found = json.loads(capsys.readouterr().out)
            assert main(["scan", "--pid", str(process.pid), "--expect", "num_workers=0"]) == 0
            assert main(["scan", "--pid", str(process.pid), "--expect", "num_workers=4"]) == 1
            capsys.readouterr()
            assert main(["scan", "--pid", str(process.pid)]) == 0
            assert f"process {process.pid}" in capsys.readouterr().out
        finally:
            process.communicate()
    option = next(site for site in found["sites"] if site["spelling"] == "--num_workers")
    assert (option["value"], option["in_effect"]) == ("4", {"value": "0", "pid": process.pid})


def test_a_process_that_is_gone_exits_with_3_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["scan", "--pid", str(2**22 + 5)]) == 3
    assert str(2**22 + 5) in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_changes_are_printed_with_author_and_values_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    repository = Repository(tmp_path)
    for value in (4, 0):
        repository.write("train.py", (OPTIONS + LOADER).replace("4", str(value)))
        repository.commit("Ada")
    monkeypatch.chdir(tmp_path)
    assert main(["scan", "--changes"]) == 0
    assert "train.py:3  --num_workers  4 -> 0  Ada, commit " in capsys.readouterr().out
    assert main(["scan", "--changes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["who"], row["from"], row["to"]) for row in found["changes"]] == [("Ada", "4", "0")]
    option = next(site for site in found["sites"] if site["spelling"] == "--num_workers")
    assert option["original"] == {"value": "4", "source": "git"}


def test_without_any_change_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(OPTIONS + LOADER)
    assert main(["scan", "--changes"]) == 0
    assert "No change" in capsys.readouterr().out


def test_a_loader_that_keepfed_runs_tells_the_plan_that_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(
        "from torch.utils.data import DataLoader\nloader = DataLoader(\n    d, num_workers=4,\n)\n"
    )
    folder = RunFolder.create(tmp_path, RunConfig())
    loader = LoaderId("train.py:2", "D")
    writer = folder.writer()
    writer.write(LoaderSeen(loader, 1, Plan(4), Plan(4), "program", handled=True, reason=""))
    writer.write(Settled(loader, Plan(6), 1.0, 0.0, Plan(4), 1.0, 0.0, "step", "", None, 1.0))
    writer.close()
    process = Running(os.getpid(), ("python", "train.py"), {RUN_VARIABLE: str(folder.path)}, str(tmp_path), 2, None)
    (site,) = with_processes(scan_paths(["."]), (process,)).sites
    assert (site.value, site.in_effect) == ("4", InEffect("6", os.getpid()))


def test_what_does_not_count_is_shown_with_the_place_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(OPTIONS + LOADER)
    Path("run.sh").write_text("python train.py --num_workers 8\n")
    assert main(["scan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip().rpartition("  ")[2] for line in lines if "num_workers" in line] == [
        "yes",
        "no, run.sh:1",
        "no, line 3",
    ]


def test_a_password_on_the_command_line_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(OPTIONS.replace("default=4)", "default=4); p.add_argument('--token')") + LOADER)
    argv = ("python", "train.py", "-j", "9", "--token", "hunter2", "--api-key=hunter3", "--epochs", "3")
    process = Running(1, argv, {}, str(tmp_path), 2, None)
    seen = with_processes(scan_paths(["."]), (process,)).sites
    assert {site.in_effect for site in seen} == {InEffect("9", 1), None}
    assert "hunter" not in process_line((process,))
    assert "--token *** --api-key=*** --epochs 3" in process_line((process,))
