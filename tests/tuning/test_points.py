"""Windows → points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.events import Window
from keepfed.plan import Plan
from keepfed.tuning.points import Timed, interval, points, timeline
from tests.tuning import recorded


def timed(*windows: Window) -> list[Timed]:
    return [Timed(3.0 * at, window) for at, window in enumerate(windows, start=1)]


def test_every_plan_is_one_point_fewest_workers_first() -> None:
    found = points(timed(*(recorded.window(n, 5.0 * n) for n in (4, 4, 2, 2, 4, 4))), {Plan(2, 2): 9.5})
    assert [(one.measured.plan.num_workers, one.windows) for one in found] == [(2, 1), (4, 3)]
    assert [one.predicted_batches_per_s for one in found] == [9.5, 0.0]
    assert found[1].measured.batches_per_s == pytest.approx(20.0)
    assert found[1].memory_bytes == 400_000_000


def test_the_first_window_after_a_change_counts_only_where_there_is_no_other() -> None:
    stale = recorded.window(4, 1.0)
    (two, four) = points(timed(recorded.window(2, 10.0), stale, recorded.window(4, 20.0)), {})
    assert four.measured.batches_per_s == pytest.approx(20.0)
    assert two.windows == 1
    (_, alone) = points(timed(recorded.window(2, 10.0), stale), {})
    assert alone.measured.batches_per_s == pytest.approx(1.0)


def test_a_second_stay_replaces_what_only_the_change_had_shown() -> None:
    rates = (recorded.window(1, 5.0), recorded.window(4, 1.0), recorded.window(1, 5.0), recorded.window(4, 20.0))
    (_, four) = points(timed(*rates, recorded.window(4, 20.0)), {})
    assert four.windows == 1
    assert four.measured.batches_per_s == pytest.approx(20.0)


def test_one_window_has_no_interval() -> None:
    (one,) = points(timed(recorded.window(2, 10.0)), {})
    assert (one.low, one.high) == (None, None)


def test_two_windows_borrow_the_scatter_of_the_other_plans() -> None:
    rates = {1: (10.0, 10.2, 9.8), 2: (20.0, 20.4, 19.6), 4: (40.0, 40.8)}
    found = points(timed(*(recorded.window(n, rate) for n, own in rates.items() for rate in (own[0], *own))), {})
    widths = [(one.high or 0) / one.measured.batches_per_s - 1 for one in found]
    assert all(0.01 < width < 0.04 for width in widths)
    assert widths[2] > widths[1]


@given(st.lists(st.floats(0.1, 1000.0), min_size=2, max_size=40))
def test_an_interval_holds_its_mean_and_is_as_wide_as_the_scatter(rates: list[float]) -> None:
    mean = sum(rates) / len(rates)
    low, high = interval(rates, mean)
    assert low is not None
    assert high is not None
    assert 0 <= low <= mean <= high
    assert (high - low > 0) == (max(rates) - min(rates) > 1e-9 * mean) or high - low < 1e-6 * mean


def test_the_timeline_has_one_moment_per_window() -> None:
    moments = timeline(timed(recorded.window(1, 5.0), recorded.window(2, 10.0)))
    assert [(one.at_s, one.measured.plan.num_workers) for one in moments] == [(3.0, 1), (6.0, 2)]
