"""How benchmarks/overhead.py comes from CPU seconds to a verdict, and that what it leaves out comes back."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from keepfed.heartbeat import Pulse

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def overhead(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("overhead")


@pytest.mark.parametrize(("ratios", "met"), [([1.003, 1.004, 1.005], True), ([1.02, 1.03], False), ([1.0, 1.03], None)])
def test_a_bar_is_met_or_missed_by_the_whole_interval(overhead: Any, ratios: list[float], met: bool | None) -> None:
    row = overhead.summed_up("any", "all", [(2e-6, 2e-6 * ratio) for ratio in ratios], judged=True)
    assert row.met is met
    assert row.without_us == pytest.approx(2.0)


def test_what_is_left_out_comes_back_after_the_block(overhead: Any) -> None:
    before = Pulse.batch
    with overhead.without("guards"):
        assert Pulse.batch is not before
    assert Pulse.batch is before


def test_a_quick_run_prints_a_row_per_part_and_judges_nothing(
    overhead: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    arguments = ["--quick", "--pairs", "1", "--processes", "1", "--case", "8x16", "--part", "guards"]
    assert overhead.main([*arguments, "--json", str(file)]) == 0
    assert "8x16 float32" in capsys.readouterr().out
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert row["part"] == "guards"
    assert row["met"] is None
    assert row["with_us"] > 0
