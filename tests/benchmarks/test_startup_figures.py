"""How benchmarks/startup.py comes from times to figures, without timing anything but one small run."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def startup(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = spec_from_file_location("benchmark_startup", BENCHMARKS / "startup.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def pairs_with(startup: Any, ratios: list[float]) -> list[tuple[Any, Any]]:
    """Pairs in which torch takes `ratio` times as long to everything; the machine drifts."""
    drift = [1 + 0.3 * number for number in range(len(ratios))]
    return [
        (startup.Timing(*[slow * ratio] * 4, 1.0), startup.Timing(*[slow] * 4, 1.0))
        for slow, ratio in zip(drift, ratios, strict=True)
    ]


def test_a_bar_is_met_by_the_lower_end_of_the_interval_and_holds_for_spawn_with_a_large_object_alone(
    startup: Any,
) -> None:
    def judged(method: str, holds: str, figure: str, ratios: list[float]) -> Any:
        return startup.summed_up(startup.Case(method, holds), figure, pairs_with(startup, ratios), judged=True)

    assert judged("spawn", "bytes", "first_s", [3.1, 3.2, 3.3]).met is True
    assert judged("spawn", "bytes", "first_s", [2.9, 4.0, 5.0]).met is False
    for case in (("fork", "bytes", "first_s"), ("spawn", "nothing", "first_s"), ("spawn", "bytes", "steady_s")):
        assert judged(*case, [1.0, 1.0]).met is None


def test_a_quick_run_prints_a_row_per_figure_and_writes_them(
    startup: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    assert startup.main(["--quick", "--workers", "1", "--method", "fork", "--holds", "array", "--json", str(file)]) == 0
    assert capsys.readouterr().out.count("64 MiB of array") == 4
    record = json.loads(file.read_text())
    assert record["schema"] == "keepfed.benchmark.startup/1"
    assert [row["figure"] for row in record["rows"]] == list(startup.FIGURES)
    assert all(row["candidate_s"] > 0 for row in record["rows"])
