"""The programs that tune is measured on run, and those that check something notice when it is broken."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parents[2] / "benchmarks" / "programs"

# Some ask for more workers than this machine has cores, which is what they are about; and Python 3.12 and newer warn of
# every fork of a process that has threads, as this one has torch's.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Programs:
    """Runs a program in this process, since importing torch in a new one takes seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def run(self, name: str, *arguments: str) -> str:
        """What the program printed."""
        self.monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(PROGRAMS / f"{name}.py"), run_name="__main__")
        return self.capsys.readouterr().out


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Programs:
    return Programs(monkeypatch, capsys)


@pytest.mark.parametrize("name", ["waiting", "cheap"])
def test_a_paced_program_logs_its_throughput(programs: Programs, name: str) -> None:
    printed = programs.run(name, "--epochs", "1", "--steps", "4", "--log-every", "2")
    assert [line.split(":")[0] for line in printed.splitlines()] == ["epoch 1 step 2", "epoch 1 step 4"]
    assert all(re.search(r": [\d.]+ batches/s$", line) for line in printed.splitlines())


def test_a_curriculum_reaches_every_batch_without_workers_and_notices_them(programs: Programs) -> None:
    arguments = ("--epochs", "1", "--steps", "4")
    assert programs.run("curriculum", *arguments).startswith("0 of 4 batches")
    assert not programs.run("curriculum", *arguments, "--num-workers", "1").startswith("0 of 4 batches")


def test_a_cache_fills_without_workers_and_notices_them(programs: Programs) -> None:
    arguments = ("--epochs", "2", "--steps", "2")
    assert "16 of 16 samples are in memory" in programs.run("memory_cache", *arguments)
    assert "0 of 16 samples are in memory" in programs.run("memory_cache", *arguments, "--num-workers", "1")


def test_a_file_opened_lazily_gives_the_records_asked_for(programs: Programs) -> None:
    assert programs.run("lazy_file", "--epochs", "1", "--steps", "3").startswith("0 of 24 records were wrong")


def test_kept_labels_are_right(programs: Programs) -> None:
    printed = programs.run("keep_labels", "--steps", "24")
    assert "kept 24 batches of labels" in printed
    assert " 0 labels wrong" in printed


def test_kept_batches_stay_what_they_were(programs: Programs) -> None:
    printed = programs.run("keep_batches", "--steps", "6")
    assert "kept 6 batches, 20 MB" in printed
    assert " 0 of them changed" in printed


@pytest.mark.leaves(
    "descriptors", reason="torch's first process group opens pipes and sockets that it keeps for the next"
)
def test_a_rank_trains(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = programs.run("ddp", "--epochs", "1", "--steps", "2", "--log-every", "1")
    assert "epoch 1 step 2:" in printed
