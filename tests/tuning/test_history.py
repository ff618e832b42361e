"""The history of a folder."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from keepfed.tuning import history
from keepfed.tuning.history import Past
from keepfed.tuning.summary import Tally
from tests.tuning import recorded


def past(command: str = "python train.py") -> Past:
    tally = Tally()
    for event in recorded.tuned():
        tally.add(1, event, 0.0)
    loaders = tuple(result.to_json() for result in tally.results())
    return Past("2026-07-01T09:30:00+00:00", tuple(command.split()), 0, 24.2, "8c-31g-00", loaders)


def test_sessions_come_back_oldest_first(tmp_path: Path) -> None:
    history.append(tmp_path, past("python a.py"))
    history.append(tmp_path, past("python b.py"))
    assert history.read(tmp_path) == ([past("python a.py"), past("python b.py")], 0)


def test_a_folder_without_history_is_empty(tmp_path: Path) -> None:
    assert history.read(tmp_path) == ([], 0)


def test_the_history_is_private(tmp_path: Path) -> None:
    history.append(tmp_path, past())
    assert stat.S_IMODE((tmp_path / ".keepfed").stat().st_mode) == 0o700
    assert stat.S_IMODE(history.path_in(tmp_path).stat().st_mode) == 0o600


def test_broken_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    history.append(tmp_path, past())
    newer = json.dumps(past().to_json() | {"schema": "keepfed.tunes/9"})
    odd = json.dumps(past().to_json() | {"loaders": [{"site": 3}]})
    with history.path_in(tmp_path).open("a", encoding="utf-8") as file:
        file.write(f'{{"schema": "keepfed.tu\n{newer}\n{odd}\n[]\n\n')
    assert history.read(tmp_path) == ([past()], 4)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "somebody_elses"
    target.write_text("", encoding="utf-8")
    (tmp_path / ".keepfed").mkdir()
    history.path_in(tmp_path).symlink_to(target)
    with pytest.raises(OSError, match=r"tunes\.jsonl"):
        history.append(tmp_path, past())
    assert target.read_text(encoding="utf-8") == ""


def test_nothing_is_written_into_a_linked_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / ".keepfed").symlink_to(elsewhere)
    with pytest.raises(PermissionError):
        history.append(tmp_path, past())
    assert not list(elsewhere.iterdir())


def test_a_command_in_any_bytes_survives(tmp_path: Path) -> None:
    history.append(tmp_path, past("python caf\udce9.py"))
    (only,), _ = history.read(tmp_path)
    assert only.command == ("python", "caf\udce9.py")


def test_a_sweep_is_remembered_too_and_half_of_one_is_not(tmp_path: Path) -> None:
    value = {"value": "4", "how": "measured", "unit": "it", "batches_per_s": 12.5}
    swept = Past("2026-07-01T09:30:00+00:00", ("p", "{}"), 0, 61.0, "8c-31g-00", (), {"best": "4", "values": [value]})
    history.append(tmp_path, swept)
    odd = swept.to_json() | {"sweep": {"values": [{"value": "4"}]}}
    with history.path_in(tmp_path).open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(odd)}\n{json.dumps(odd | {'sweep': 3})}\n")
    assert history.read(tmp_path) == ([swept], 2)
