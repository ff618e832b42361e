"""How benchmarks/transport.py comes from timings to figures, without timing anything but one small run."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def transport() -> Any:
    spec = spec_from_file_location("benchmark_transport", BENCHMARKS / "transport.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
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


def test_equal_values_have_an_interval_of_no_width(transport: Any) -> None:
    assert transport.median_interval([2.5] * 10) == transport.Interval(2.5, 2.5, 2.5)


def test_the_interval_holds_the_median_and_stays_within_the_values(transport: Any) -> None:
    values = [1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 9.0]
    interval = transport.median_interval(values)
    assert min(values) <= interval.low < interval.median < interval.high <= max(values)
    assert interval.median == pytest.approx(2.35)
    assert interval.high < 9.0  # one outlier is not what the median may be


def test_the_interval_is_the_same_every_time(transport: Any) -> None:
    values = [1.0, 1.4, 1.1, 1.3]
    assert transport.median_interval(values) == transport.median_interval(values)


def test_more_pairs_narrow_the_interval(transport: Any) -> None:
    few, many = (transport.median_interval([2.0, 2.2, 2.4] * times) for times in (1, 20))
    assert many.high - many.low < few.high - few.low


def test_no_pair_has_no_median(transport: Any) -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        transport.median_interval([])


def test_drift_of_the_machine_cancels_in_the_pairs(transport: Any) -> None:
    row = transport.summed_up(transport.CASES[0], pairs_with(transport, [3.0] * 10), judged=True)
    assert row.ratio == transport.Interval(*[pytest.approx(3.0)] * 3)
    assert row.parent_cpu_ratio == pytest.approx(0.25)
    assert row.met is True


def test_a_bar_is_judged_by_the_lower_end(transport: Any) -> None:
    row = transport.summed_up(transport.CASES[0], pairs_with(transport, [1.6, 1.7, 2.6, 2.7, 2.8]), judged=True)
    assert row.ratio.median > row.bar > row.ratio.low
    assert row.met is False
    assert "2x missed" in transport.line(row)


def test_torch_against_itself_is_not_judged(transport: Any) -> None:
    row = transport.summed_up(transport.CASES[0], pairs_with(transport, [1.0, 1.0]), judged=False)
    assert (row.bar, row.met) == (None, None)


def test_pairs_run_in_turned_order(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def timed(loader: str) -> str:
        order.append(loader)
        return loader

    monkeypatch.setattr(transport, "timed_epoch", timed)
    assert transport.timed_pairs("torch", "other", 4) == [("torch", "other")] * 4
    assert order == ["torch", "other", "other", "torch"] * 2


def test_a_loader_that_delivers_something_else_is_not_timed(transport: Any) -> None:
    left = [(torch.zeros(2), torch.tensor([0, 1])), (torch.zeros(2), torch.tensor([2, 3]))]
    right = [left[0], (torch.ones(2), torch.tensor([2, 3]))]
    with pytest.raises(SystemExit, match="batch 1 differs"):
        transport.require_equal(left, right, transport.CASES[0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_quick_run_prints_the_table_and_writes_it(
    transport: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    arguments = ["--quick", "--candidate", "torch", "--case", "8x16", "--workers", "1", "--json", str(file)]
    assert transport.main(arguments) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["schema"] == "keepfed.benchmark.transport/1"
    (row,) = record["rows"]
    assert row["case"] == "8x16 float32"
    assert row["torch_batches_per_s"] > 0
    assert row["torch_parent_cpu_s"] > 0
    assert "8x16 float32" in capsys.readouterr().out
