"""What benchmarks make of repeated measurements."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("pairs")


def test_every_other_pair_runs_in_turned_order(pairs: Any) -> None:
    order: list[str] = []

    def measured(name: str) -> Callable[[], str]:
        def measure() -> str:
            order.append(name)
            return name

        return measure

    assert list(pairs.in_turn(3, measured("left"), measured("right"))) == [("left", "right")] * 3
    assert order == ["left", "right", "right", "left", "left", "right"]


def test_equal_values_have_an_interval_of_no_width(pairs: Any) -> None:
    assert pairs.median_interval([2.5] * 10) == pairs.Interval(2.5, 2.5, 2.5)


def test_the_interval_holds_the_median_and_stays_within_the_values(pairs: Any) -> None:
    values = [1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 9.0]
    interval = pairs.median_interval(values)
    assert min(values) <= interval.low < interval.median < interval.high <= max(values)
    assert interval.median == pytest.approx(2.35)
    assert interval.high < 9.0  # one outlier is not what the median may be


def test_the_interval_is_the_same_every_time(pairs: Any) -> None:
    values = [1.0, 1.4, 1.1, 1.3]
    assert pairs.median_interval(values) == pairs.median_interval(values)


def test_more_pairs_narrow_the_interval(pairs: Any) -> None:
    few, many = (pairs.median_interval([2.0, 2.2, 2.4] * times) for times in (1, 20))
    assert many.high - many.low < few.high - few.low


def test_no_pair_has_no_median(pairs: Any) -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        pairs.median_interval([])
