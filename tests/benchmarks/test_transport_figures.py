"""How benchmarks/transport.py comes from timings to figures, without timing anything but one small run."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = spec_from_file_location("benchmark_transport", BENCHMARKS / "transport.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def pairs_with(transport: Any, ratios: list[float]) -> list[tuple[Any, Any]]:
    """Pairs whose second is `ratio` times as fast and takes a quarter of the parent's CPU time; the machine drifts."""
    drift = [1 + 0.3 * number for number in range(len(ratios))]
    return [
        (
            transport.Timing(batches_per_s=10 * slow, parent_cpu_s=0.020),
            transport.Timing(batches_per_s=10 * slow * ratio, parent_cpu_s=0.005),
        )
        for slow, ratio in zip(drift, ratios, strict=True)
    ]


def row_of(transport: Any, ratios: list[float], number: int = 0, **options: Any) -> Any:
    return transport.summed_up(transport.CASES[number], pairs_with(transport, ratios), **{"judged": True, **options})


def test_drift_of_the_machine_cancels_in_the_pairs(transport: Any) -> None:
    row = row_of(transport, [3.0] * 10)
    assert row.ratio == transport.Interval(*[pytest.approx(3.0)] * 3)
    assert row.parent_cpu_ratio == pytest.approx(0.25)


def test_a_bar_is_judged_by_the_lower_end(transport: Any) -> None:
    row = row_of(transport, [2.1, 2.2, 2.6, 2.7, 2.8])
    assert row.ratio.median > row.bar > row.ratio.low
    assert "2.5 times torch" in row.missed
    assert "2.5x missed" in transport.line(row)


def test_bars_are_for_two_workers_and_elsewhere_it_must_not_be_slower(transport: Any) -> None:
    row = row_of(transport, [0.9, 1.0, 1.1] * 3, workers=1)
    assert row.bar is None
    assert "slower than torch" not in row.missed
    assert "slower than torch" in row_of(transport, [0.8, 0.9, 0.95] * 3, workers=1).missed


def test_more_than_a_quarter_of_torchs_time_in_the_parent_is_missed(transport: Any) -> None:
    met = transport.Interval(3.0, 3.1, 3.2)
    assert transport.what_was_missed(met, 2.5, None, 0.24) == ()
    assert transport.what_was_missed(met, 2.5, None, 0.31) == ("31% of torch's CPU time in the parent",)


def test_where_the_work_is_what_takes_time_more_of_it_is_missed(transport: Any) -> None:
    equal = transport.Interval(0.97, 1.0, 1.02)
    assert transport.what_was_missed(equal, None, equal, 0.1) == ()
    assert transport.what_was_missed(equal, None, transport.Interval(1.01, 1.03, 1.05), 0.1) == (
        "more CPU time than torch",
    )


def test_only_keepfed_is_judged(transport: Any) -> None:
    assert row_of(transport, [0.5, 0.5], judged=False).missed is None


def test_a_candidate_that_is_not_installed_is_left_out_with_a_line(
    transport: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = transport.Candidate("other", "no_such_package.at_all", None)
    assert transport.present([transport.CANDIDATES["torch"], absent]) == [transport.CANDIDATES["torch"]]
    assert "other: not installed, left out" in capsys.readouterr().out


def test_a_loader_that_delivers_something_else_is_not_timed(transport: Any) -> None:
    left = [(torch.zeros(2), torch.tensor([0, 1])), (torch.zeros(2), torch.tensor([2, 3]))]
    right = [left[0], (torch.ones(2), torch.tensor([2, 3]))]
    with pytest.raises(SystemExit, match="batch 1 differs"):
        transport.require_equal(left, right, transport.CASES[0])


def test_containers_are_compared_by_what_they_hold(transport: Any) -> None:
    sample = import_module("batches").Sample
    left, right = (sample(torch.ones(2), torch.zeros(1)) for _ in range(2))
    assert transport.same([left, {"text": ["a"]}], [right, {"text": ["a"]}])
    right.y[0] = 1
    assert not transport.same([left], [right])
    assert not transport.same(torch.ones(2), torch.ones(2, dtype=torch.float64))
    assert transport.size_of([left, "abc", 3]) == 8 + 4 + 3 + 8


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("case", "workers"), [("8x16", 1), ("strings", 0), ("epochs", 1)])
def test_a_quick_run_prints_the_table_and_writes_it(
    transport: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, workers: int
) -> None:
    file = tmp_path / "rows.json"
    arguments = ["--quick", "--candidate", "torch", "--case", case, "--workers", str(workers), "--json", str(file)]
    assert transport.main(arguments) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["schema"] == "keepfed.benchmark.transport/2"
    (row,) = record["rows"]
    assert row["case"].startswith(case)
    assert row["torch_batches_per_s"] > 0
    assert row["torch_parent_cpu_s"] > 0
    assert row["case"] in capsys.readouterr().out
