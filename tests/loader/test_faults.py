"""The faults of benchmarks/faults.py that take no minutes: every sample once, in order, unaltered, and nothing left behind.

The same programs as there, in forked processes instead of fresh ones and by fork alone. A small /dev/shm needs a mount
namespace around the program, and is tried in test_tight_limits.py.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    cells: Any = import_module("fault_cells")
    program: Any = import_module("fault_program")

SLOW = {"stopped", "lock"}
"""It takes proof that lasts to find these: test_watcher.py has them, with a quicker watch."""
FAULTS = [name for name, fault in cells.FAULTS.items() if not fault.shm_mb and name not in SLOW]


@contextmanager
def forked(cell: Any, folder: Path) -> Iterator[tuple[int, int]]:
    """The program of a cell in a forked process, the leader of a session: its pid, and where it tells what it sees."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            torch.set_num_threads(1)  # OpenMP's threads did not come along, and it would wait for them
            os.close(theirs)
            program.run(cell, folder, program.teller(ours))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(ours)
    try:
        yield pid, theirs
    finally:
        os.close(theirs)
        cells.end_session(pid)
        os.waitpid(pid, 0)


def outcome(loader: str, fault: str, kind: str, folder: Path) -> Any:
    cell = program.Cell(loader, fault, "fork", kind)
    with forked(cell, folder) as (pid, fd):
        return cells.outcome_of(cell, folder, pid, fd)


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of what the workers draw under torch's loader, where nothing happens."""
    undisturbed = outcome("torch", "none", "map", tmp_path_factory.mktemp("torch"))
    assert (undisturbed.end, undisturbed.words) == ("survived", "")
    return str(undisturbed.digest)


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_survived(fault: str, kind: str, draws: str, tmp_path: Path) -> None:
    found = outcome("keepfed", fault, kind, tmp_path)
    assert (found.end, found.words) == ("survived", ""), found.log
    assert not found.left
    if fault == "trainer-killed":
        assert found.gone_s < 1
    elif fault != "corrupt":
        assert found.digest == draws
    if cells.FAULTS[fault].deadly:
        assert found.recovered_s is not None
        assert found.log
