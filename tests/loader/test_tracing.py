"""Tools that the trainer starts may look at a worker, also where Yama keeps siblings from it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

import keepfed.loader.api as keepfed

YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
METHODS = ["fork", "forkserver", "spawn"]
asked: list[list[int]] = []


class Asked(Dataset[Any]):
    """Samples that are what its worker has asked of prctl(2) about tracing."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[list[int]]:
        return list(asked)


class Pids(Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_a_worker_names_the_trainer_as_who_may_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: str | None) -> None:
            self._real = real(name)

        def prctl(self, option: int, *arguments: Any) -> int:
            if option == 0x59616D61:
                asked.append([option, arguments[0].value])
            answer: int = self._real.prctl(option, *arguments)
            return answer

    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", Library)
    batches = list(keepfed.DataLoader(Asked(), num_workers=1, batch_size=None, multiprocessing_context="fork"))
    assert batches == [[[0x59616D61, os.getpid()]]] * 2
    assert asked == [], "in the worker, not in the trainer"


@pytest.mark.skipif(not YAMA.exists() or YAMA.read_text().strip() != "1", reason="Yama restricts nothing here")
@pytest.mark.parametrize("method", METHODS)
def test_a_sibling_may_see_where_a_worker_waits(method: str) -> None:
    batches = iter(keepfed.DataLoader(Pids(), num_workers=1, batch_size=None, multiprocessing_context=method))
    worker = next(batches)
    program = f"print(open('/proc/{worker}/syscall').read())"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=30)
    del batches
