"""Runs → rows, and the value to take."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.tuning.sweep.choice import By, How, choose, main_bar, rows, warmer
from keepfed.tuning.sweep.progress_lines import BarId
from keepfed.tuning.sweep.rate import Sighting
from keepfed.tuning.sweep.run import Ending
from tests.tuning.sweep.made import BAR, bar, run, usage


def test_the_fastest_is_taken_where_it_can_be_told() -> None:
    found = rows([run("0", 10), run("2", 20), run("4", 30)], ["0", "2", "4"])
    choice = choose(found)
    assert choice is not None
    assert (choice.best.value, [row.value for row in choice.equal], choice.by) == ("4", ["4"], By.RATE)
    assert not choice.repeated
    assert [row.rate for row in found] == [pytest.approx(10), pytest.approx(20), pytest.approx(30)]
    assert [row.gpu_busy for row in found] == [0.5] * 3


def test_of_equal_ones_the_one_with_least_cpu_time_per_iteration_is_taken() -> None:
    runs = [run("2", 29.5, taken=usage(2.0)), run("4", 30, taken=usage(3.9)), run("8", 30.2, taken=usage(8.0))]
    choice = choose(rows(runs, ["2", "4", "8"]))
    assert choice is not None
    assert (choice.best.value, choice.fastest.value, len(choice.equal)) == ("2", "8", 3)


def test_then_the_one_with_least_memory_and_then_the_first() -> None:
    big, small = usage(2.0, 900 << 20), usage(2.0, 100 << 20)
    choice = choose(rows([run("a", 30, taken=big), run("b", 30, taken=small), run("c", 30, taken=small)], "abc"))
    assert choice is not None
    assert choice.best.value == "b"


def test_repeated_runs_say_themselves_what_can_be_told_apart() -> None:
    steadfast = [
        run(value, rate)
        for value, rate in [("2", 100), ("4", 104), ("4", 104.2), ("2", 100.2), ("2", 99.9), ("4", 104.1)]
    ]
    choice = choose(rows(steadfast, ["2", "4"]))
    assert choice is not None
    assert choice.repeated
    assert choice.band == 0.02
    assert [row.value for row in choice.equal] == ["4"]
    noisy = [run(value, rate) for value, rate in [("2", 100), ("4", 104), ("4", 90), ("2", 112), ("2", 95), ("4", 120)]]
    choice = choose(rows(noisy, ["2", "4"]))
    assert choice is not None
    assert choice.band > 0.1
    assert len(choice.equal) == 2


def test_a_value_that_failed_once_is_not_taken() -> None:
    runs = [run("2", 10), run("4", 90, ending=Ending.FAILED, code=137), run("4", 90), run("2", 10)]
    found = rows(runs, ["2", "4"])
    assert [(row.how, row.exit) for row in found] == [(How.MEASURED, 130), (How.FAILED, 137)]
    choice = choose(found)
    assert choice is not None
    assert choice.best.value == "2"


def test_where_every_value_shows_two_epochs_they_are_compared_by_epoch() -> None:
    slow_start = [Sighting(0.0, 0.0, None), *(Sighting(6.0 + n / 10, 10.0 * n, None) for n in range(1, 41))]
    epochs = [*slow_start, *(Sighting(one.at_s + 12, one.done, None) for one in slow_start)]
    short = BarId("Epoch", 400.0, "it")
    plain = run(
        "0", None, tracks={short: [s for lap in (0.0, 10.0) for s in bar(50, 8.0, 10**6, lap) if (s.done or 0) <= 400]}
    )
    choice = choose(rows([plain, run("8", None, tracks={short: epochs})], ["0", "8"]))
    assert choice is not None
    assert choice.by is By.EPOCH
    assert choice.best.value == "0"
    assert (choice.best.rate or 0) < 60


def test_without_any_rate_whole_runs_are_compared_if_all_have_ended() -> None:
    ended = [
        run("1", None, ending=Ending.ENDED, code=0, seconds=30),
        run("2", None, ending=Ending.ENDED, code=0, seconds=20),
    ]
    choice = choose(rows(ended, ["1", "2"]))
    assert choice is not None
    assert (choice.by, choice.best.value) == (By.SECONDS, "2")
    assert choose(rows([*ended, run("3", None, ending=Ending.TOO_SLOW)], ["1", "2", "3"])) is None
    assert choose(rows([run("1", None, ending=Ending.FAILED, code=1)], ["1"])) is None
    assert choose([]) is None


def test_the_training_bar_is_the_one_that_moved_most_over_all_runs() -> None:
    outer, download = BarId("Epochs", 10.0, "it"), BarId("get", None, "file")
    epochs = [Sighting(10.0 * n, float(n), None) for n in range(7)]
    few = {outer: epochs, download: bar(4, 2.0), BAR: bar(10, 20.0)}
    assert main_bar([run("1", None, tracks=few)]) == ("Epoch", "it")
    assert main_bar([run("1", None)]) is None


def test_totals_that_the_value_changes_are_still_one_bar() -> None:
    runs = [
        run(str(size), None, tracks={BarId("Epoch", 6400 / size, "it"): bar(rate)})
        for size, rate in [(32, 10), (64, 8)]
    ]
    assert [row.rate for row in rows(runs, ["32", "64"])] == [pytest.approx(10), pytest.approx(8)]


def test_a_log_of_rates_is_taken_where_no_bar_counts() -> None:
    log = BarId("", None, "samples")
    runs = [run("1", None, tracks={log: [Sighting(float(s), None, 120.0) for s in range(30)]})]
    (row,) = rows(runs, ["1"])
    assert (row.rate, row.unit) == (120.0, "samples")


def test_a_cold_page_cache_in_the_first_run_is_noticed() -> None:
    cold = [run("0", 10, taken=usage(read_bytes=3 << 30)), run("2", 20, taken=usage(read_bytes=1 << 20))]
    assert warmer(rows(cold, ["0", "2"])) == {"0": 3 << 30, "2": 1 << 20}
    assert warmer(rows(cold[::-1], ["2", "0"])) is None
    assert warmer(rows([run("0", 10), run("2", 20)], ["0", "2"])) is None


def test_a_row_is_json() -> None:
    (row,) = rows([run("2", 20), run("2", 22)], ["2"])
    found = json.loads(json.dumps(row.to_json()))
    assert found["value"] == "2"
    assert found["batches_per_s"] == pytest.approx(21, rel=0.01)
    assert (found["low"], found["high"]) == (pytest.approx(20, rel=0.01), pytest.approx(22, rel=0.01))
    assert found["cpu_s_per_batch"] == pytest.approx(1 / 21, rel=0.06)
    assert {"unit", "seconds", "cpu_s", "peak_pss_bytes", "gpu_busy", "exit", "how"} <= found.keys()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 1e4), st.sampled_from(Ending)), min_size=1, max_size=12))
def test_what_is_taken_was_measured_and_lies_within_the_band(drawn: list[tuple[int, float, Ending]]) -> None:
    found = rows([run(str(value), rate, ending=ending) for value, rate, ending in drawn], "0123")
    choice = choose(found)
    measured = [row for row in found if row.how is How.MEASURED]
    assert (choice is None) == (not measured)
    if choice is not None and choice.by is By.RATE:
        assert choice.best in choice.equal
        assert choice.fastest in choice.equal
        most = max(row.rate or 0 for row in measured)
        assert choice.fastest.rate == most
        assert all((row.rate or 0) >= (1 - choice.band) * most for row in choice.equal)
