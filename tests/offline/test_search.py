"""`keepfed.tune` with real workers, in windows that are short so that the test is."""

from __future__ import annotations

import functools
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import keepfed
from keepfed.errors import UnreachableError, UsageError
from keepfed.loader import fleet, pilot, seam
from keepfed.loader.draws import states
from keepfed.offline import program, trial
from keepfed.offline.trial import Trial
from keepfed.plan import Plan
from keepfed.policy.window import WindowBuilder

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "WindowBuilder", functools.partial(WindowBuilder, min_s=0.1))


class Waiting(Dataset[Any]):
    """A sample waits 5 ms."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)
        return torch.tensor(index)


class Quick(Waiting):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.arange(64))


class Broken(Waiting):
    def __getitem__(self, index: int) -> Any:
        raise ValueError(f"sample {index}")


@pytest.mark.usefixtures("short_windows")
def test_a_dataset_gets_workers_until_its_step_is_fed() -> None:
    steps: list[int] = []

    def step(batch: Any) -> None:
        steps.append(len(batch))
        time.sleep(0.008)

    found = keepfed.tune(Waiting(), step=step, batch_size=4, max_seconds=20)
    assert found.settled
    assert found.plan.num_workers >= 2
    assert set(steps) == {4}
    assert found.batch_size == 4
    assert not found.alone
    assert {point.measured.plan for point in found.points} >= {found.plan}
    said = str(found)
    assert said.startswith("Waiting, batches of 4: settled after")
    assert f"num_workers={found.plan.num_workers}" in said
    assert found.why in said


@pytest.mark.usefixtures("short_windows")
def test_nothing_is_left_installed_and_the_loader_stays_usable() -> None:
    loader = DataLoader(Stream(), batch_size=8)
    found = keepfed.tune(loader, step_s=0.001, max_seconds=20)
    assert found.plan == found.before == Plan(0)
    assert seam.fleet() is None
    assert sum(len(batch) for batch in loader) == 64


def test_a_program_draws_afterwards_what_it_would_have_drawn_without() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Broken(), batch_size=8, shuffle=True, generator=generator)
    before, own = pickle.dumps(states()), generator.get_state()
    with pytest.raises(ValueError, match="sample"):
        keepfed.tune(loader)
    assert pickle.dumps(states()) == before
    assert torch.equal(generator.get_state(), own)


@pytest.mark.usefixtures("short_windows")
def test_without_a_step_the_result_says_that_this_is_no_training() -> None:
    found = keepfed.tune(Stream(), batch_size=8, max_seconds=20)
    assert found.alone
    assert "no training step" in str(found)


def test_time_that_is_too_short_for_a_window_is_told() -> None:
    with pytest.raises(UnreachableError, match="raise max_seconds"):
        keepfed.tune(Waiting(), step_s=0.001, batch_size=8, max_seconds=0.01)


def test_a_loader_that_only_torch_can_run_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "why_torch", lambda _loader: "not on this platform")
    with pytest.raises(UnreachableError, match="not on this platform"):
        keepfed.tune(Quick(), batch_size=8, max_seconds=20)


def test_what_the_dataset_raises_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="sample"):
        keepfed.tune(Broken(), batch_size=8, max_seconds=5)


def test_two_steps_and_no_time_are_refused() -> None:
    with pytest.raises(UsageError, match="both a step function and a step time"):
        keepfed.tune(Waiting(), step_s=0.1, step=print)
    with pytest.raises(UsageError, match="max_seconds=0"):
        keepfed.tune(Waiting(), max_seconds=0)
    with pytest.raises(UsageError, match="expected a dataset, got float"):
        keepfed.tune(1.5)


MODULE = """
import keepfed, torch
from torch.utils.data import Dataset

class Numbers(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return torch.tensor(index)

def make_loader():
    return keepfed.DataLoader(Numbers(), batch_size=4, num_workers="auto", on_error="skip")
"""


def test_a_trial_measures_the_plan_it_was_given_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mydata.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "MEASURED_S", 0.3)
    seen: list[int] = []
    asked = program.options().parse_args(["mydata:make_loader", "--step-ms", "2"])
    monkeypatch.setattr(program, "step_of", lambda _asked: lambda batch: seen.append(len(batch)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    facts = trial.measured(asked, Trial(2, 4, "persistent_workers"))
    keepfed.uninstall()
    sys.modules.pop("mydata")
    assert facts.batches_per_s > 0
    assert 0 < facts.start_s < 20
    assert facts.epoch_batches == 16
    assert facts.persistent
    assert facts.worker_threads >= 1
    assert set(seen) == {4}


def test_a_trial_that_fails_says_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('torch is broken')", encoding="utf-8")
    source = Path(keepfed.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{source}")
    with pytest.raises(UnreachableError, match="exit code 1: ImportError: torch is broken"):
        trial.run(["mydata:make", "--lang", "en"], Trial(1, 2))
