"""Heartbeats of real workers: in the run's file for everybody to read, else beside their notes."""

from __future__ import annotations

import errno
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset, Subset

from keepfed.heartbeat import MOST_ROWS, Phase, file_of, read_file
from keepfed.loader import beats
from keepfed.loader.api import DataLoader
from keepfed.loader.beats import Board, stamps
from tests.loader.processes import program, wait_until


class Gated(Dataset[int]):
    """Sample 5 waits until `gate` exists."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> int:
        if index == 5:
            wait_until(self.gate.exists, "nobody opened the gate")
        return index


class Whole(Gated):
    """Makes all samples of a batch at once."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        assert type(indices) is list
        return [self[index] for index in indices]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """This process has a run folder."""
    board = Board()
    board.write_into(tmp_path)
    monkeypatch.setattr(beats, "shared", board)
    return board


def file_in(folder: Path, pid: int | None = None) -> Path:
    return file_of(folder, pid or os.getpid())


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.usefixtures("board")
def test_another_process_can_read_at_which_sample_each_worker_is(method: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    loader = DataLoader(Gated(gate), batch_size=4, num_workers=2, multiprocessing_context=method)
    iterator: Any = iter(loader)
    pids = {worker.pid: worker.id for worker in iterator._workers}

    def at_the_gate() -> bool:
        _, rows = read_file(file_in(tmp_path))
        where = {(row.epoch, row.batch, row.sample, row.phase) for row in rows}
        return len(rows) == 2 and (0, 1, 1, Phase.FETCHING) in where

    wait_until(at_the_gate, "no worker came to the gate")
    trainer, rows = read_file(file_in(tmp_path))
    assert trainer == os.getpid()
    assert {row.pid: row.worker for row in rows} == pids
    gate.touch()
    assert [batch.tolist() for batch in iterator] == [list(range(start, start + 4)) for start in range(0, 16, 4)]


def test_the_file_can_be_read_after_the_program_was_killed(tmp_path: Path) -> None:
    def main(pipe: Connection) -> None:
        beats.shared = Board()
        beats.shared.write_into(tmp_path)
        iterator = iter(DataLoader(Gated(tmp_path / "never"), batch_size=4, num_workers=1))
        wait_until(lambda: any(row.sample == 1 for row in read_file(file_in(tmp_path))[1]), "never came to sample 5")
        pipe.send("there")
        next(iterator)
        pipe.recv()

    with program(main) as running:
        assert running.hear() == "there"
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        _, (row,) = read_file(file_in(tmp_path, running.pid))
        assert (row.batch, row.sample, row.phase) == (1, 1, Phase.FETCHING)


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (Gated, True),
        (Whole, False),
        (lambda path: Subset(Gated(path), range(8)), True),
        (lambda path: Subset(Subset(Gated(path), range(8)), range(4)), False),
    ],
)
def test_samples_are_told_apart_where_they_are_fetched_one_by_one(dataset: Any, told: bool, tmp_path: Path) -> None:
    assert stamps(dataset(tmp_path)) is told


def test_a_dataset_that_cannot_be_asked_is_not_stamped() -> None:
    class Closed:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert not stamps(Closed())


def test_indices_stay_plain_lists_for_datasets_that_see_them(tmp_path: Path) -> None:
    class Seeing(Dataset[Any]):
        def __getitem__(self, index: Any) -> Any:
            return type(index).__name__, index

    (tmp_path / "gate").touch()
    whole = DataLoader(Whole(tmp_path / "gate"), batch_size=8, num_workers=1)
    assert [batch.tolist() for batch in whole] == [list(range(8)), list(range(8, 16))]
    unbatched = DataLoader(Seeing(), batch_size=None, sampler=[[1, 2], [3]], num_workers=1)
    assert list(unbatched) == [["list", [1, 2]], ["list", [3]]]


def test_rows_are_lent_once_and_come_back(board: Board) -> None:
    class Holder:
        pass

    first, second, third = Holder(), Holder(), Holder()
    rows = [board.lend(3, first), board.lend(2, second)]
    assert [row.first for row in rows] == [0, 3]
    del first
    assert board.lend(2, third).first == 0
    fourth = Holder()
    assert board.lend(2, fourth).first == 5
    assert board.lend(MOST_ROWS, Holder()) is beats.IN_REGIONS


def test_a_forked_child_writes_nothing_into_its_parents_file(board: Board) -> None:
    def main(pipe: Connection) -> None:
        pipe.send(board.lend(1, pipe).path)

    with program(main) as running:
        assert running.hear() == ""


@pytest.mark.parametrize("why", ["network", "full", "there"])
def test_where_the_file_could_stop_a_worker_there_is_none(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "network":
        monkeypatch.setattr(beats, "_mounts", lambda: iter([]))
    elif why == "full":

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        file_in(tmp_path).symlink_to(tmp_path / "elsewhere")
    board = Board()
    board.write_into(tmp_path)
    assert board.lend(1, board) is beats.IN_REGIONS
    assert not (tmp_path / "elsewhere").exists()
    assert not file_in(tmp_path).is_file()


@pytest.mark.usefixtures("board")
def test_the_file_is_private_and_small(tmp_path: Path) -> None:
    status = file_in(tmp_path).stat()
    assert (status.st_mode & 0o777, status.st_size) == (0o600, 65_536)
