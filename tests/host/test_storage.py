"""How fast the storage is: what is read, and when nothing was measured."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from keepfed.host import storage
from keepfed.host.storage import RANGE_BYTES, RANGES_PER_FILE, ReadSpeed, forget, ranges_of, read_speed


def test_small_files_are_read_whole_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(b"x" * 3_000_000)
    reads: list[tuple[str, int, int]] = []
    original = storage._read

    def counted(part: tuple[str, int, int]) -> tuple[int, float]:
        reads.append(part)
        return original(part)

    monkeypatch.setattr(storage, "_read", counted)
    found = read_speed([part for file in files for part in ranges_of(str(file))], until_s=math.inf)
    assert found.nbytes == 6_000_000
    assert found.cold_s > 0
    assert found.cached_s > 0
    assert [Path(path).name for path, _, _ in reads] == ["a", "a", "b", "b"]


def test_of_a_file_with_a_whole_data_set_in_it_only_some_ranges_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "shard"
    with file.open("wb") as made:
        made.truncate(10 << 30)
    found = ranges_of(str(file))
    assert len(found) == RANGES_PER_FILE
    assert sum(nbytes for _, _, nbytes in found) == RANGE_BYTES * RANGES_PER_FILE
    assert all(start + nbytes <= 10 << 30 for _, start, nbytes in found)
    assert read_speed(found[:1], until_s=math.inf).nbytes == RANGE_BYTES


def test_files_that_are_gone_or_empty_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert ranges_of(str(tmp_path / "empty")) == []
    assert ranges_of(str(tmp_path / "gone")) == []
    speed = read_speed([(str(tmp_path / "gone"), 0, 10)], until_s=math.inf)
    assert speed.nbytes == 0
    assert not speed.forgot


def test_time_that_is_up_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert read_speed(ranges_of(str(tmp_path / "a")), until_s=0.0).nbytes == 0


def test_a_cache_that_could_not_be_emptied_is_no_measurement() -> None:
    assert not ReadSpeed(10**6, cold_s=0.0011, cached_s=0.001).forgot
    slow = ReadSpeed(10**6, cold_s=0.01, cached_s=0.001)
    assert slow.forgot
    assert slow.cold_bytes_per_s == pytest.approx(1e8)


def test_where_the_kernel_cannot_be_asked_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert not forget(ranges_of(str(tmp_path / "a")))
    assert read_speed(ranges_of(str(tmp_path / "a")), until_s=math.inf).nbytes == 0
