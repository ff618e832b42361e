"""What a worker says of itself in its row, and what others read there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepfed.heartbeat import (
    FILE_BYTES,
    MOST_ROWS,
    ROW_BYTES,
    Phase,
    Pulse,
    clear_row,
    file_of,
    header,
    read_file,
    read_folder,
    read_row,
    row_start,
)


@pytest.fixture
def row() -> memoryview:
    return memoryview(bytearray(ROW_BYTES))


def test_a_row_says_which_sample_of_which_batch_in_which_phase(row: memoryview) -> None:
    pulse = Pulse(row, 3)
    assert read_row(row).phase is Phase.STARTING
    pulse.idle()
    waiting = read_row(row)
    assert (waiting.pid, waiting.worker, waiting.batch, waiting.phase) == (os.getpid(), 3, -1, Phase.IDLE)
    pulse.batch(2, 17)
    samples = pulse.samples()
    for _ in range(6):
        next(samples)
    fetching = read_row(row)
    assert (fetching.epoch, fetching.batch, fetching.sample, fetching.phase) == (2, 17, 5, Phase.FETCHING)
    assert fetching.since_s >= waiting.since_s
    pulse.phase(Phase.SENDING)
    before = pulse.waits_for_room()
    assert (before, read_row(row).phase) == (Phase.SENDING, Phase.WAITING_FOR_ROOM)
    pulse.idle()
    assert (read_row(row).batch, read_row(row).begun) == (-1, 1)


def test_a_cleared_row_is_nobodys(row: memoryview) -> None:
    Pulse(row, 0)
    clear_row(row)
    assert read_row(row).pid == 0


def test_a_phase_of_a_newer_version_is_read_as_starting(row: memoryview) -> None:
    pulse = Pulse(row, 0)
    row.cast("q")[5] = 99
    assert read_row(row).phase is Phase.STARTING
    del pulse


def test_a_file_gives_the_rows_that_a_worker_has_written(tmp_path: Path) -> None:
    data = bytearray(FILE_BYTES)
    data[: len(header(77))] = header(77)
    for number in (0, 5, MOST_ROWS - 1):
        start = row_start(number)
        Pulse(memoryview(data)[start : start + ROW_BYTES], number)
    file = tmp_path / "heartbeat-77.map"
    file.write_bytes(data)
    trainer, rows = read_file(file)
    assert trainer == 77
    assert [row.worker for row in rows] == [0, 5, MOST_ROWS - 1]
    file.write_bytes(data[: row_start(3) + 20])  # cut short: whole rows count
    assert [row.worker for row in read_file(file)[1]] == [0]


def test_a_run_folder_gives_the_rows_of_all_its_processes_and_follows_no_link(tmp_path: Path) -> None:
    row = bytearray(ROW_BYTES)
    Pulse(memoryview(row), 1)
    for pid in (70, 71):
        file_of(tmp_path, pid).write_bytes(header(pid).ljust(ROW_BYTES, b"\0") + row)
    file_of(tmp_path, 72).symlink_to(file_of(tmp_path, 70))
    file_of(tmp_path, 73).write_bytes(b"torn")
    assert {pid: [beat.worker for beat in rows] for pid, rows in read_folder(tmp_path).items()} == {70: [1], 71: [1]}


@pytest.mark.parametrize("data", [b"", b"keepfed", b"x" * 4096])
def test_another_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(data)
    with pytest.raises(ValueError, match="other is not a heartbeat file"):
        read_file(file)
