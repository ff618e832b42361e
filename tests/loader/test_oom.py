"""Workers offer themselves to the OOM killer: real processes, and what the kernel says of them."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from keepfed.loader import oom
from keepfed.loader.api import DataLoader
from tests.loader.processes import program

if not Path("/proc/self/oom_score_adj").exists():
    pytest.skip("no /proc/PID/oom_score_adj here", allow_module_level=True)


def points_of(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))


class Points(Dataset[Any]):
    """What the kernel says of the process that makes the sample, and of its parent."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([points_of(), points_of(os.getppid())])


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_come_before_the_zygote_and_the_zygote_before_the_trainer(method: str) -> None:
    trainer = points_of()
    for batch in DataLoader(Points(), batch_size=2, num_workers=2, multiprocessing_context=method):
        worker, zygote = batch[0].tolist()
        assert worker == min(1000, trainer + oom.WORKER_POINTS)
        assert zygote == min(1000, trainer + oom.ZYGOTE_POINTS)
    assert points_of() == trainer


def test_a_worker_that_was_replaced_is_not_raised_twice() -> None:
    iterator = iter(DataLoader(Points(), batch_size=1, num_workers=1, prefetch_factor=1))
    first = next(iterator)
    iterator._workers[0].kill()  # type: ignore[attr-defined]  # what frameworks see
    assert [batch[0].tolist() for batch in iterator] == [first[0].tolist()] * 3


def test_nobody_is_lowered_and_nobody_goes_past_the_top() -> None:
    def main(pipe: Connection) -> None:
        found = []
        for points in (100, 2000, -200):
            oom.offer(points)
            found.append(points_of())
        pipe.send(found)

    with program(main) as running:
        assert running.hear() == [min(1000, points_of() + 100), 1000, 1000]


def test_where_it_cannot_be_done_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(oom, "_PATH", str(tmp_path / "nothing"))
    oom.offer(300)
    (tmp_path / "nothing").write_text("garbled")
    oom.offer(300)
    assert (tmp_path / "nothing").read_text() == "garbled"
