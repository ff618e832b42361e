"""The frameworks themselves train a few steps; every batch says which process made it.

Left out of `make test`, since the frameworks are large and move on their own: `make test-frameworks` installs them into an
environment of its own and runs this file there. docs/frameworks.md has the table that came out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"
SOURCE = Path(__file__).parents[2] / "src"
WANTED = "KEEPFED_TEST_FRAMEWORKS"

pytestmark = [
    pytest.mark.skipif(not os.environ.get(WANTED), reason="make test-frameworks runs these"),
    pytest.mark.timeout(300),
]


def run(program: str, *arguments: str) -> dict[str, Any]:
    """What the program reported, and what it logged."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{PROGRAMS}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    lines = [line.removeprefix("REPORT ") for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(lines) == 1, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(lines[0])
    return {**found, "log": [line for line in done.stderr.splitlines() if "keepfed: " in line]}


@pytest.mark.parametrize(("door", "workers"), [("own", "2"), ("own", "auto"), ("install", "2")])
def test_accelerate_keeps_ours(door: str, workers: str) -> None:
    found = run("accelerate_loop.py", door, workers)
    assert found["loader"] == "DataLoaderShard"
    assert found["ours"]
    assert found["batches"] == found["counted"] == 24


@pytest.mark.parametrize("ranks", ["1", "2"])
@pytest.mark.parametrize(("door", "workers"), [("own", "1"), ("own", "auto"), ("install", "1")])
def test_lightning_keeps_ours(door: str, workers: str, ranks: str) -> None:
    found = run("lightning_fit.py", door, workers, ranks)
    assert found["ours"]
    assert found["batches"] == (2 + 24 + 24 + 12 if ranks == "1" else 2 + 12 + 12)
    assert found["rebuilt"] is (ranks == "2")


@pytest.mark.parametrize(("door", "workers"), [("own", "2"), ("own", "auto"), ("install", "2")])
def test_the_trainer_of_transformers_keeps_ours(door: str, workers: str) -> None:
    found = run("transformers_trainer.py", door, workers)
    assert found["ours"]
    assert found["batches"] == 24


def test_torch_geometric_keeps_ours() -> None:
    found = run("geometric_loader.py", "install", "2")
    assert found["ours"]
    assert found["batches"] == found["counted"] == 12


@pytest.mark.parametrize(("door", "name"), [("install", "torchdata.StatefulDataLoader"), ("own", "StatefulDataLoader")])
def test_a_stateful_data_loader_keeps_its_own_iterators_and_that_is_said(door: str, name: str) -> None:
    found = run("torchdata_stateful.py", door, "1")
    assert found["theirs"]
    assert found["batches"] == 12
    assert name in found["fallback"]
    assert len(found["log"]) == 1


def test_fastai_is_not_reached_and_that_is_said() -> None:
    found = run("fastai_learner.py", "install", "1")
    assert found["theirs"]
    assert "fastai._FakeLoader" in found["fallback"]
    assert len(found["log"]) == 1
