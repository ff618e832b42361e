"""The loader in real containers: a /dev/shm that is too small for torch's, and a memory limit that a prefetch would break.

make test-containers
"""

from __future__ import annotations

import subprocess

import pytest

from tests.containers.engine import REPOSITORY, Engine

PROGRAM = str(REPOSITORY / "tests" / "loader" / "programs" / "scarce.py")
pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

GROWING = str(REPOSITORY / "tests" / "containers" / "programs" / "growing.py")
DISABLED = "--env=KEEPFED_DISABLE=1"
DEFAULT_SHM = ("--shm-size=64m",)
MEMORY = ("--memory=512m", "--memory-swap=512m", "--shm-size=2g")


def right(done: subprocess.CompletedProcess[str], batches: int) -> bool:
    """Whether every batch came, and was right."""
    return done.returncode == 0 and done.stdout.endswith(f"{batches} of {batches} batches are right\n")


@pytest.mark.parametrize("size", ["64m", "1m"])
def test_every_batch_comes_whatever_dev_shm_has(engine: Engine, size: str) -> None:
    done = engine.run(PROGRAM, "keepfed", "--prefetch", "8", options=(f"--shm-size={size}",))
    assert right(done, 12), done.stderr


def test_torch_needs_more_than_the_default_dev_shm(engine: Engine) -> None:
    done = engine.run(PROGRAM, "torch", "--prefetch", "8", "--keep", options=DEFAULT_SHM)
    assert not right(done, 12)


def test_a_prefetch_that_memory_cannot_hold_is_not_the_end_of_the_container(engine: Engine) -> None:
    much = ("--batches", "120", "--prefetch", "50")
    done = engine.run(PROGRAM, "keepfed", *much, options=MEMORY)
    assert right(done, 120), done.stderr
    assert engine.run(PROGRAM, "torch", *much, options=MEMORY).returncode == 137  # killed: out of memory


@pytest.mark.parametrize(("case", "batches", "helped"), [("workers", 500, "workers"), ("batches", 150, "")])
def test_what_grows_until_memory_is_full_ends_torchs_run_and_not_ours(
    engine: Engine, case: str, batches: int, helped: str
) -> None:
    done = engine.run(GROWING, case, options=MEMORY)
    assert right(done, batches), done.stderr
    assert helped in done.stderr
    assert "exited unexpectedly" not in done.stderr, "the kernel had to kill a worker"
    assert engine.run(GROWING, case, options=(*MEMORY, DISABLED)).returncode  # killed, or ended by a killed worker
