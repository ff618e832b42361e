"""Ranks of one host agree on one plan, through a file that may be garbage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepfed.feed import RunConfig, RunFolder
from keepfed.host.facts import read_host
from keepfed.loader.ranks import Agreement, Waits
from keepfed.plan import LoaderId, Plan

LOADER = LoaderId("train.py:41", "data.Photos")
OTHER = LoaderId("train.py:41", "data.Photos", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return RunFolder.create(tmp_path, RunConfig()).path


def agreement(folder: Path | None, rank: str | None, monkeypatch: pytest.MonkeyPatch) -> Agreement:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    return Agreement(folder)


def test_the_first_rank_decides_and_the_others_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = agreement(folder, "0", monkeypatch), agreement(folder, "1", monkeypatch)
    assert (first.decides, second.decides) == (True, False)
    assert second.announced(LOADER) is None
    first.announce(LOADER, Plan(5, 3))
    second.announce(LOADER, Plan(9))
    assert second.announced(LOADER) == Plan(5, 3)
    assert second.announced(OTHER) is None
    first.announce(LOADER, Plan(2))
    assert second.announced(LOADER) == Plan(2)


@pytest.mark.parametrize("rank", [None, "", "0", "none", "-1"])
def test_a_process_that_is_no_later_rank_decides_for_itself(
    folder: Path, rank: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agreement(folder, rank, monkeypatch).decides


def test_without_a_run_folder_every_rank_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = agreement(None, "3", monkeypatch)
    assert alone.decides
    alone.announce(LOADER, Plan(2))
    assert alone.announced(LOADER) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"x"', "{}", '{"num_workers": 2}', '{"num_workers": "x", "prefetch_factor": 2}',
        '{"num_workers": -1, "prefetch_factor": 2}', '{"num_workers": 99999, "prefetch_factor": 2}',
        '{"num_workers": 2, "prefetch_factor": 0}', '{"num_workers": Infinity, "prefetch_factor": 2}',
        '{"num_workers": NaN, "prefetch_factor": 2}', '{"num_workers": [1], "prefetch_factor": 2}', "[" * 100_000,
    ],
)  # fmt: skip
def test_garbage_in_the_file_is_ignored(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = agreement(folder, "0", monkeypatch), agreement(folder, "1", monkeypatch)
    first.announce(LOADER, Plan(5))
    (path,) = folder.glob("plan-*")
    path.write_text(text, encoding="utf-8")
    assert second.announced(LOADER) is None
    path.write_bytes(b"\xff\xfe\x00")
    assert second.announced(LOADER) is None


def test_the_file_is_private_whole_and_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced in one step: whoever has it open reads the old plan to its end."""
    first = agreement(folder, "0", monkeypatch)
    first.announce(LOADER, Plan(5))
    (path,) = folder.glob("plan-*")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open(encoding="utf-8") as open_before:
        first.announce(LOADER, Plan(7))
        assert json.load(open_before)["num_workers"] == 5
    assert list(folder.glob("plan-*")) == [path]


def test_a_folder_that_is_gone_disturbs_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = agreement(folder / "gone", "0", monkeypatch)
    first.announce(LOADER, Plan(5))
    assert first.announced(LOADER) is None


PROGRAM = """
import sys
from torch.utils.data import DataLoader
from keepfed.feed import RunFolder
from keepfed.loader.fleet import Fleet
from keepfed.loader.session import Session
from keepfed.plan import Plan
from keepfed.policy.window import Observation
fleet = Fleet(Session(RunFolder.from_environment()))
loader = DataLoader(range(400), batch_size=4, num_workers=1)
iterator = fleet.iterator(loader)
(pilot,) = fleet._pilots.values()
def window():
    pilot._judge(Observation(pilot.plan, 0.0, 10, 1.0, 0.9), iterator)
if pilot._session.agreement.decides:
    pilot._change(Plan(3, 4), iterator)
    pilot._session.agreement.announce(pilot.loader, Plan(3, 4))
print("ready", flush=True)
sys.stdin.readline()
if not pilot._session.agreement.decides:
    window()
next(iterator)
print(pilot.plan.num_workers, pilot.plan.prefetch_factor, len(iterator.active_workers()), flush=True)
fleet.close()
"""


def test_two_processes_of_one_run_come_to_one_plan(folder: Path) -> None:
    def rank(number: int) -> subprocess.Popen[str]:
        environ = {**os.environ, "KEEPFED_RUN": str(folder), "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": "2"}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with rank(0) as first, rank(1) as second:
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        answers = [process.communicate("\n", timeout=30)[0] for process in (first, second)]
    assert answers == ["3 4 3\n", "3 4 3\n"]


def test_cores_are_divided_among_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = read_host()
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    divided = read_host()
    assert divided.ranks.count == 2
    assert alone.cores.value is not None
    assert divided.cores.value is not None
    assert divided.cores.value == pytest.approx(alone.cores.value / 2, rel=0.3)


def test_the_deciding_rank_hears_how_the_others_wait_under_its_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    first, second, third = (agreement(folder, rank, monkeypatch) for rank in "012")
    assert first.others == 2
    assert first.reported(LOADER, Plan(2)) == []
    second.report(LOADER, Plan(2), Waits(0.7, None))
    third.report(LOADER, Plan(3), Waits(0.1, 0.05))
    assert first.reported(LOADER, Plan(2)) == [Waits(0.7, None)]
    assert first.reported(LOADER, Plan(3)) == [Waits(0.1, 0.05)]
    assert first.reported(OTHER, Plan(2)) == []


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", "null", '{"wait_share": 9, "stall_share": null}', '{"wait_share": "x"}']
)
def test_garbage_that_a_rank_left_is_not_heard(folder: Path, monkeypatch: pytest.MonkeyPatch, garbage: str) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    first, second = (agreement(folder, rank, monkeypatch) for rank in "01")
    second.report(LOADER, Plan(2), Waits(0.7, None))
    (report,) = folder.glob("wait-*")
    report.write_text(garbage)
    assert first.reported(LOADER, Plan(2)) == []


def test_a_program_without_ranks_waits_for_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert agreement(folder, None, monkeypatch).others == 0
