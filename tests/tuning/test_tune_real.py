"""`keepfed tune` from end to end: real programs, real torch, real time.

All programs run at once, each in a folder of its own, before the first test: nearly all of their time is waiting, and one
after the other they would take minutes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepfed.events import LoaderSeen
from keepfed.feed import RunFolder
from keepfed.text import say

pytestmark = [pytest.mark.timeout(240), pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "benchmarks" / "programs"
RANKS = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]

COMMANDS: dict[str, list[str]] = {
    "waiting": [str(PROGRAMS / "waiting.py")],
    "zero": [str(PROGRAMS / "waiting.py"), "--num-workers", "0"],
    "cheap": [str(PROGRAMS / "cheap.py")],
    "curriculum": [str(PROGRAMS / "curriculum.py")],
    "memory_cache": [str(PROGRAMS / "memory_cache.py")],
    "lazy_file": [str(PROGRAMS / "lazy_file.py")],
    "keep_labels": [str(PROGRAMS / "keep_labels.py"), "--steps", "300"],
    "keep_batches": [str(PROGRAMS / "keep_batches.py"), "--steps", "80"],
    "ranks": [*RANKS, str(PROGRAMS / "ddp.py")],
    "nothing": ["-c", "import torch; print('done')"],
    "fails": ["-c", "import sys, torch; list(torch.utils.data.DataLoader([1, 2])); sys.exit(7)"],
}
TO_THE_END = {"keep_labels", "keep_batches"}


@dataclass(frozen=True, slots=True)
class Ended:
    """A tuned program."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        return found

    @property
    def loader(self) -> dict[str, Any]:
        """The report of its only loader."""
        (found,) = self.report["loaders"]
        assert isinstance(found, dict)
        return found

    def events(self, run: int = 0) -> list[tuple[int, Any]]:
        """What was reported in the n-th run that was started in this folder."""
        paths = sorted((self.folder / ".keepfed" / "runs").iterdir())
        return list(RunFolder.open(paths[run]).reader().read_new())


def start(folder: Path, verb: list[str], program: list[str]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "keepfed", *verb, "--", sys.executable, *program],
        cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(folder: Path, process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=200)
    return Ended(folder, process.returncode, out, err)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    base = tmp_path_factory.mktemp("tuned")
    running = {}
    for name, program in COMMANDS.items():
        options = ["--then", "continue"] if name in TO_THE_END else []
        running[name] = start(base / name, ["tune", "--json", "out.json", *options], program)
    return {name: end(base / name, process) for name, process in running.items()}


def test_waiting_samples_get_four_to_six_workers(tuned: dict[str, Ended]) -> None:
    ended = tuned["waiting"]
    assert ended.code == 0, ended.err
    loader = ended.loader
    assert loader["settled"]
    assert loader["before"]["num_workers"] == 1
    assert 4 <= loader["after"]["num_workers"] <= 6
    assert loader["after"]["batches_per_s"] > 2.5 * loader["before"]["batches_per_s"]
    assert loader["batch_size"] == 8
    assert loader["stall_share"] is None
    assert re.fullmatch(r".*waiting\.py:\d+", loader["site"])
    assert 1 <= len(loader["moves"]) <= 6
    assert all(move["predicted_batches_per_s"] > 0 for move in loader["moves"])
    assert {point["num_workers"] for point in loader["points"]} >= {1, loader["after"]["num_workers"]}
    # One move may be enough: then it is judged by the last window.
    assert loader["timeline"][0]["at_s"] < loader["moves"][0]["at_s"] <= loader["timeline"][-1]["at_s"]
    assert loader["phases"]["fetch_s"] > loader["phases"]["collate_s"] + loader["phases"]["copy_s"]
    assert loader["what_if"][0]["key"].startswith(("step_", "ceiling_")), (
        "with these workers the step is fed, or nearly"
    )
    assert loader["what_if"][0]["factor"] < 3
    assert loader["seconds"] < 60
    assert ended.report["schema"] == "keepfed.tune/1"
    assert "batches/s" in ended.out  # the program's own output, and nothing else
    assert "keepfed" not in ended.out


def test_the_plan_is_written_and_the_next_run_starts_with_it(tuned: dict[str, Ended]) -> None:
    ended = tuned["waiting"]
    (entry,) = tomllib.loads((ended.folder / "keepfed.toml").read_text(encoding="utf-8"))["loader"]
    assert entry["num_workers"] == ended.loader["after"]["num_workers"]
    assert entry["dataset"].endswith(".Remote")
    again = end(
        ended.folder,
        start(ended.folder, ["run"], [str(PROGRAMS / "waiting.py"), "--steps", "40", "--epochs", "1"]),
    )
    assert again.code == 0, again.err
    assert f"asks for num_workers=1, prefetch_factor=2; uses num_workers={entry['num_workers']}" in again.err
    assert say("run.source_plan") in again.err
    assert [event for _, event in again.events(-1) if event.name == "moved"] == []


def test_a_program_without_workers_whose_dataset_passes_gets_some(tuned: dict[str, Ended]) -> None:
    ended = tuned["zero"]
    assert ended.code == 0, ended.err
    assert ended.loader["before"]["num_workers"] == 0
    assert 3 <= ended.loader["after"]["num_workers"] <= 6
    assert ended.loader["after"]["batches_per_s"] > 3 * ended.loader["before"]["batches_per_s"]


def test_samples_that_cost_nothing_get_one_worker_and_the_step_is_the_limit(tuned: dict[str, Ended]) -> None:
    ended = tuned["cheap"]
    assert ended.code == 0, ended.err
    assert ended.loader["before"]["num_workers"] == 4
    assert ended.loader["after"]["num_workers"] <= 1
    assert ended.loader["limited_by"] == "step"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("curriculum", "the training loop changes the dataset while it iterates (Curriculum.difficulty)"),
        ("memory_cache", "loading a sample changes the dataset (Cached.cache"),
        ("lazy_file", "loading a sample changes the dataset (Records.file"),
    ],
)
def test_what_workers_would_change_stays_at_none_and_says_why(tuned: dict[str, Ended], name: str, why: str) -> None:
    ended = tuned[name]
    assert ended.code == 0, ended.err
    assert ended.loader["settled"]
    assert ended.loader["after"]["num_workers"] == 0
    assert ended.loader["moves"] == []
    assert why in re.sub(r"\s+", " ", ended.err)


def test_a_loop_that_keeps_every_label_neither_stalls_nor_balloons(tuned: dict[str, Ended]) -> None:
    ended = tuned["keep_labels"]
    assert ended.code in {0, 3, 4}, ended.err
    kept = re.search(r"kept 300 batches of labels at .*, (\d+) labels wrong, memory \+(\d+) MB", ended.out)
    assert kept is not None
    assert int(kept[1]) == 0
    assert int(kept[2]) < 100


def test_a_loop_that_keeps_every_batch_has_them_unchanged(tuned: dict[str, Ended]) -> None:
    ended = tuned["keep_batches"]
    assert ended.code in {0, 3, 4}, ended.err
    kept = re.search(r"kept 80 batches, (\d+) MB, at .*, (\d+) of them changed, memory \+(\d+) MB", ended.out)
    assert kept is not None
    assert int(kept[2]) == 0
    assert int(kept[3]) < 1.5 * int(kept[1])


def test_both_ranks_of_a_host_train_with_the_plan_of_the_first(tuned: dict[str, Ended]) -> None:
    ended = tuned["ranks"]
    assert ended.code == 0, ended.err
    assert ended.loader["settled"]
    assert ended.loader["after"]["num_workers"] >= 3
    events = ended.events()
    seen = {pid: event for pid, event in events if isinstance(event, LoaderSeen)}
    assert sorted(event.source for event in seen.values()) == ["program", "rank"]
    plans = {pid: event.plan for pid, event in events if event.name == "window"}
    assert len(plans) == 2
    last = {(plan.num_workers, plan.prefetch_factor) for plan in plans.values()}
    assert len(last) == 1


def test_a_program_that_iterates_nothing_is_said_and_nothing_is_written(tuned: dict[str, Ended]) -> None:
    ended = tuned["nothing"]
    assert (ended.code, ended.out) == (3, "done\n")
    assert "nothing was measured" in ended.err
    assert not (ended.folder / "keepfed.toml").exists()
    assert not (ended.folder / "out.json").exists()


def test_a_program_that_fails_by_itself_keeps_its_code(tuned: dict[str, Ended]) -> None:
    ended = tuned["fails"]
    assert ended.code == 7
    assert not (ended.folder / "keepfed.toml").exists()
