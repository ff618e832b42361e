"""`keepfed tune module:name` from the command line to the files. All runs at once, before the first test: most of it is waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import keepfed
from keepfed.cli import main as frame
from keepfed.cli.tune import offline
from keepfed.cli.tune.curve import BAR, bar, bars
from keepfed.cli.tune.terminal import console, show
from keepfed.offline import program
from keepfed.plan import Plan
from keepfed.profile import Measured
from keepfed.tuning import history
from keepfed.tuning.results import Point

pytestmark = pytest.mark.timeout(120)

SOURCE = str(Path(keepfed.__file__).parents[1])
MODULE = """
import time
from torch.utils.data import DataLoader, IterableDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(64))

def make_loader():
    return DataLoader(Stream(), batch_size=4)

def step(batch):
    assert len(batch) == 4
    time.sleep(0.01)

def fails():
    raise FileNotFoundError("/data/photos")
"""
RUNS = {
    "stream": ["mydata:Stream", "--step-ms", "10", "--batch-size", "4", "--json", "out.json"],
    "loader": ["--step", "mydata:step", "mydata:make_loader"],
}


@dataclass(frozen=True, slots=True)
class Ended:
    """One run."""

    folder: Path
    code: int
    err: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    base = tmp_path_factory.mktemp("offline")
    environ = {**os.environ, "PYTHONPATH": SOURCE, "COLUMNS": "80", "OMP_NUM_THREADS": "1", "KEEPFED_LANG": "en"}
    running = {}
    for name, words in RUNS.items():
        folder = base / name
        folder.mkdir()
        (folder / "mydata.py").write_text(MODULE, encoding="utf-8")
        running[name] = subprocess.Popen(
            [sys.executable, "-m", "keepfed", "tune", *words],
            cwd=folder, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    return {name: Ended(base / name, one.wait(100), one.communicate()[1]) for name, one in running.items()}


def test_options_may_stand_behind_the_dataset(runs: dict[str, Ended]) -> None:
    ended = runs["stream"]
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads((ended.folder / "out.json").read_text(encoding="utf-8"))
    assert document["search"] == "offline"
    (loader,) = document["loaders"]
    assert loader["site"] == "mydata:Stream"
    assert loader["batch_size"] == 4
    assert loader["settled"]
    assert 40 < loader["after"]["batches_per_s"] < 101


def test_a_dataset_without_a_program_gets_no_plan_file_but_the_line_to_write(runs: dict[str, Ended]) -> None:
    ended = runs["stream"]
    assert not (ended.folder / "keepfed.toml").exists()
    assert "DataLoader(dataset, batch_size=4, num_workers=1)" in ended.err
    assert "10 ms of waiting" in ended.err
    assert "Ctrl-C" not in ended.err


def test_a_ready_loader_keeps_its_settings_and_its_place(runs: dict[str, Ended]) -> None:
    ended = runs["loader"]
    assert ended.code == 0, ended.err
    assert "mydata.py:10 Stream, batches of 4" in ended.err
    assert (ended.folder / "keepfed.toml").exists()


def test_the_history_knows_the_run_by_what_was_typed(runs: dict[str, Ended]) -> None:
    sessions, _ = history.read(runs["stream"].folder)
    assert sessions[0].command == ("mydata:Stream", "--step-ms", "10", "--batch-size", "4")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder with the module in it, for the program in this process."""
    (tmp_path / "mydata.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("mydata", None)
    keepfed.uninstall()


@pytest.mark.usefixtures("in_folder")
def test_a_name_that_leads_nowhere_ends_with_2_and_nothing_but_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["mydata:strem", "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("keepfed: mydata:strem: there is no strem in")
    assert len(said.splitlines()) == 2


@pytest.mark.usefixtures("in_folder")
def test_what_the_users_function_raises_is_shown_without_our_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["mydata:fails", "--lang", "en"]) == 1
    said = capsys.readouterr().err
    assert "FileNotFoundError: /data/photos" in said
    assert "offline_program" not in said
    assert said.endswith("keepfed: mydata:fails raised FileNotFoundError\n")


@pytest.mark.usefixtures("in_folder")
def test_what_a_step_raises_begins_with_the_users_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["mydata:Stream", "--batch-size", "2", "--step", "mydata:step", "--lang", "en"]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[1].endswith("in step")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mydata:make", "other"], "other: one module:name is expected"),
        (["mydata:make", "--then", "continue"], "no training to go on with"),
        (["mydata:make", "--step-ms", "-1"], "--step-ms -1"),
        (["mydata:make", "--step-ms", "1", "--step", "a:b"], "both a step function and a step time"),
        (["--step-ms", "1", "--", "python", "x.py"], "--step-ms is for a dataset"),
        (["--batch-size", "1", "--", "mydata:make"], "--batch-size is for a dataset"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert frame.main(["tune", *words]) == 2
    assert said in capfd.readouterr().err


def test_without_torch_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(offline, "find_spec", lambda _name: None)
    assert frame.main(["tune", "mydata:make"]) == 2
    assert "torch is not installed for" in capfd.readouterr().err


def point(workers: int, rate: float, half: float | None) -> Point:
    low, high = (None, None) if half is None else (rate - half, rate + half)
    return Point(Measured(Plan(workers), rate, 0.5), low, high, 2, 4.0, 0, 0.0, 0.0)


def test_a_bar_is_full_up_to_the_interval_and_shaded_in_it() -> None:
    assert bar(point(1, 9.0, 1.0), 10.0) == "█" * (BAR * 8 // 10) + "▎" + "░" * (BAR - BAR * 8 // 10 - 1)
    assert bar(point(1, 5.0, None), 10.0) == "█" * (BAR // 2)
    assert bar(point(1, 0.0, None), 10.0) == ""


def test_the_curve_fits_into_80_columns_and_marks_the_choice(capfd: pytest.CaptureFixture[str]) -> None:
    show(console(), bars([point(1, 1010.0, 13.0), point(2, 2010.0, 120.0), point(16, 2040.0, None)], Plan(2)))
    shown = capfd.readouterr().err.splitlines()
    assert max(len(row) for row in shown) <= 80
    assert [row for row in shown if "chosen" in row] == [shown[2]]
    assert "2010 ± 120" in shown[2]
