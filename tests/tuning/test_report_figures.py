"""What is drawn agrees with the document: positions and lengths, read back from the SVG of the page."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from keepfed.text import choose_language
from keepfed.tuning.report import page
from keepfed.tuning.report.axes import around, from_zero, nice_step, tick_text, until
from keepfed.tuning.report.timeline import MOST_BINS
from tests.tuning import documents
from tests.tuning.test_report import ABOUT, parsed


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language(None)


def figure(document: dict[str, Any], name: str) -> ET.Element:
    """One figure of the page."""
    root = parsed(page(document, ABOUT))
    return next(one for one in root.iter("figure") if (one.get("id") or "").endswith(f"-{name}"))


def percent(value: str | None) -> float:
    assert value is not None
    assert value.endswith("%")
    return float(value[:-1])


def plots(found: ET.Element) -> list[ET.Element]:
    return [one for one in found.iter("svg") if one.get("role") == "img"]


def dots(plot: ET.Element) -> list[tuple[float, float]]:
    """Where the round dots of a plot lie: percent across, pixels down."""
    return [(percent(one.get("cx")), float(one.get("cy", "nan"))) for one in plot.iter("circle")]


def scale(plot: ET.Element) -> dict[str, float]:
    """The written values of the axis at the left and where they lie."""
    return {one.text or "": float(one.get("y", "nan")) for one in plot.iter("text") if one.get("text-anchor") == "end"}


def cells(found: ET.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in found.iter("tr")][1:]


# -------------------------------------------------------------------------------------------------------- throughput


def test_a_dot_lies_where_its_numbers_say() -> None:
    """Read back through the axis as it is written: 0 and 30 batches/s, 0 and 6 workers."""
    rates, waits = plots(figure(documents.tuned(), "throughput"))
    axis = scale(rates)
    found = {(round(x / 100 * 6, 2), round((axis["0"] - y) / (axis["0"] - axis["30"]) * 30, 1)) for x, y in dots(rates)}
    assert found == {(4, 22.0), (5, 25.0), (6, 25.0)}  # 1 worker, the start, is a square
    axis = scale(waits)
    shares = [(axis["0%"] - y) / (axis["0%"] - axis["100%"]) for _, y in dots(waits)]
    assert shares == pytest.approx([documents.plan(workers)["wait_share"] for workers in (4, 5, 6)], abs=0.001)


def test_intervals_reach_from_low_to_high_and_one_window_has_none() -> None:
    (rates, _) = plots(figure(documents.tuned(), "throughput"))
    axis = scale(rates)
    per_pixel = 30 / (axis["0"] - axis["30"])
    ranges = [
        ((axis["0"] - float(one.get("y1", "nan"))) * per_pixel, (axis["0"] - float(one.get("y2", "nan"))) * per_pixel)
        for one in rates.iter("line")
        if "range" in one.get("class", "")
    ]
    expected = [(one["low"], one["high"]) for one in documents.loader()["points"] if one["low"] is not None]
    assert len(expected) == 3
    assert sorted(ranges) == [pytest.approx(pair, abs=0.01) for pair in expected]


def test_two_windows_that_disagree_do_not_flatten_the_others() -> None:
    """Their interval may reach to many times the rate: it is cut at the end of the axis, and the table has it whole."""
    one = documents.loader()
    one["points"][0] |= {"windows": 2, "low": None, "high": 70.0}
    found = figure(documents.tuned(one), "throughput")
    axis = scale(plots(found)[0])
    assert set(axis) == {"0", "10", "20", "30", "40"}
    ends = [float(line.get("y2", "nan")) for line in plots(found)[0].iter("line") if "range" in line.get("class", "")]
    assert min(ends) == axis["40"]
    assert cells(found)[0][2] == "0 – 70.0"


def test_of_two_settings_with_the_same_workers_the_other_one_is_named() -> None:
    one = documents.loader()
    one["points"].append({**documents.point(5, 4), "batches_per_s": 20.0})
    (rates, _) = plots(figure(documents.tuned(one), "throughput"))
    assert [text.text for text in rates.iter("text") if (text.text or "").startswith("prefetch")] == ["prefetch 4"]


def test_the_path_goes_from_plan_to_plan_and_leaves_what_was_not_kept() -> None:
    (rates, _) = plots(figure(documents.tuned(), "throughput"))
    path = [
        (one.get("class"), round(percent(one.get("x1")) * 6 / 100), round(percent(one.get("x2")) * 6 / 100))
        for one in rates.iter("line")
        if "path" in one.get("class", "")
    ]
    assert path == [("line path", 1, 4), ("line path", 4, 5), ("line path-dropped", 5, 6)]
    assert [one.text for one in rates.iter("text") if one.get("class") == "step"] == ["1", "2", "3"]


def test_the_chosen_plan_and_the_start_carry_their_numbers() -> None:
    rates, waits = plots(figure(documents.tuned(), "throughput"))
    assert [one.text for one in rates.iter("text") if one.get("class") == "value"] == ["5.50", "25.0"]
    assert [one.text for one in waits.iter("text") if one.get("class") == "value"] == ["79%", "4%"]


def test_an_exhaustive_search_is_a_curve_per_prefetch_factor() -> None:
    (rates, _) = plots(figure(documents.exhaustive(), "throughput"))
    assert len(list(rates.iter("polyline"))) == 3
    names = [(one.text, float(one.get("y", "nan"))) for one in rates.iter("text") if one.get("class") == "series"]
    assert [name for name, _ in names] == ["prefetch 4", "prefetch 2", "prefetch 1"]
    heights = [y for _, y in names]
    assert all(after - before >= 14 for before, after in pairwise(heights))


def test_an_exhaustive_search_has_no_moves_but_a_reason() -> None:
    """Its laps try every plan; what its document calls kept was the fastest so far."""
    document = documents.exhaustive()
    document["loaders"][0]["moves"] = [documents.move(workers, 1.0, kept=workers == 4) for workers in (1, 2, 3, 4)]
    html = page(document, ABOUT)
    names = [(found.get("id") or "").removeprefix("loader-1-") for found in parsed(html).iter("figure")]
    assert names == ["throughput", "phases"]
    assert "tried, not kept" not in html
    assert "4 workers should feed the step" in html


def test_an_old_document_shows_the_plans_of_its_moves() -> None:
    found = figure(documents.old(), "throughput")
    assert [row[:3] for row in cells(found)] == [
        ["1 worker, prefetch 2", "5.50", "–"],
        ["4 workers, prefetch 2", "22.0", "–"],
        ["5 workers, prefetch 2", "25.0", "–"],
        ["6 workers, prefetch 2", "25.0", "–"],
    ]


def test_one_measured_plan_is_no_curve() -> None:
    one = {**documents.loader(), "points": [documents.point(1)], "moves": [], "timeline": []}
    root = parsed(page(documents.tuned({**one, "after": one["before"]}), ABOUT))
    assert [found.get("id") for found in root.iter("figure")] == ["loader-1-phases"]


# ---------------------------------------------------------------------------------------------------------- timeline


def test_the_timeline_has_a_dot_per_window_and_a_step_per_change_of_workers() -> None:
    rates, workers, waits = plots(figure(documents.tuned(), "timeline"))
    assert len(dots(rates)) == len(dots(waits)) == 12
    assert [x for x, _ in dots(rates)] == pytest.approx([100 * (number + 1) / 12 for number in range(12)], abs=0.01)
    (steps,) = workers.iter("polyline")
    corners = [tuple(float(part) for part in pair.split(",")) for pair in (steps.get("points") or "").split()]
    axis = scale(workers)
    heights = [round((axis["0"] - y) / (axis["0"] - axis["6"]) * 6, 2) for _, y in corners]
    assert heights == [1, 1, 4, 4, 5, 5, 6, 6, 5, 5]
    assert corners[0][0] == 0
    assert corners[-1][0] == 100


def test_moves_stand_in_the_timeline_at_their_time() -> None:
    rates, *_ = plots(figure(documents.tuned(), "timeline"))
    moments = [
        (one.get("class"), percent(one.get("x1"))) for one in rates.iter("line") if "moment" in one.get("class", "")
    ]
    assert [kind for kind, _ in moments] == ["line moment", "line moment", "line moment-dropped"]
    assert [at for _, at in moments] == pytest.approx([20, 40, 60])


def test_thousands_of_windows_become_means_of_equal_times() -> None:
    document = documents.tuned(documents.loader(windows=5_000))
    found = figure(document, "timeline")
    rates, *_ = plots(found)
    assert MOST_BINS * 0.9 <= len(dots(rates)) <= MOST_BINS
    shown = [float(row[2]) for row in cells(found)]
    windows = [one["batches_per_s"] for one in document["loaders"][0]["timeline"]]
    assert sum(shown) / len(shown) == pytest.approx(sum(windows) / len(windows), rel=0.02)


# -------------------------------------------------------------------------------------------------------------- rows


def bars(found: ET.Element) -> list[float]:
    return [percent(one.get("width")) for one in found.iter("rect")]


def test_a_bar_of_a_sweep_is_as_long_as_its_rate() -> None:
    rates = (8.1, 15.5, 27.9, 31.2, 29.8)
    lengths = bars(figure(documents.swept(*rates), "sweep"))
    assert [length / lengths[0] for length in lengths] == pytest.approx([one / rates[0] for one in rates], rel=0.002)
    assert max(lengths) <= 100


def test_a_run_that_failed_has_no_bar_and_says_so() -> None:
    """A run that was stopped by us has an exit code too."""
    found = figure(documents.swept(8.1, None, 27.9), "sweep")
    assert len(bars(found)) == 2
    said = " ".join(found.itertext())
    assert said.count("exit code 1") == 1


def test_the_chosen_value_stands_out_and_not_the_luckiest() -> None:
    """31.2 cannot be told from 31.9, and 8 workers are cheaper than 16."""
    found = figure(documents.swept(8.1, 15.5, 27.9, 31.2, 31.9, best="8", equal=["8", "16"]), "sweep")
    kinds = [one.get("class") for one in found.iter("rect")]
    assert kinds == ["bar measured"] * 3 + ["bar chosen", "bar measured"]
    said = " ".join(" ".join(found.itertext()).split())
    assert "8 ≈ 31.2 it/s" in said
    assert "differences below 5% mean nothing" in said


def test_repeated_runs_show_how_far_they_lie_apart() -> None:
    document = documents.swept(8.0, 16.0)
    document["sweep"]["values"][1] |= {"runs": 3, "low": 15.0, "high": 17.0}
    found = figure(document, "sweep")
    (line,) = [one for one in found.iter("line") if one.get("class") == "line runs" and "%" in one.get("x1", "")]
    assert percent(line.get("x1")) / bars(found)[1] == pytest.approx(15 / 16, rel=0.002)
    assert percent(line.get("x2")) / bars(found)[1] == pytest.approx(17 / 16, rel=0.002)


@pytest.mark.parametrize(("by", "key"), [("epoch", "epoch_s"), ("seconds", "seconds")])
def test_where_values_are_compared_by_time_the_bars_are_times(by: str, key: str) -> None:
    document = documents.swept(8.0, 16.0, compared_by=by)
    for value, seconds in zip(document["sweep"]["values"], (60.0, 30.0), strict=True):
        value |= {key: seconds, "batches_per_s": None}
    found = figure(document, "sweep")
    long, short = bars(found)
    assert long / short == pytest.approx(2, rel=0.002)
    assert "a shorter bar is faster" in " ".join(found.itertext())


def test_a_phase_is_as_long_as_its_time_and_says_its_share() -> None:
    found = figure(documents.tuned(), "phases")
    seconds = (0.129, 0.031, 0.012, 0.003)
    assert [length / bars(found)[0] for length in bars(found)] == pytest.approx(
        [one / seconds[0] for one in seconds], rel=0.005
    )
    said = " ".join(" ".join(found.itertext()).split())
    assert "access to the dataset, without transforms 129 ms per batch, 16.1 ms per sample, 74%" in said
    assert cells(found)[-1] == ["copying into shared memory", "3.00 ms", "375 µs", "2%"]


def test_decoding_is_a_part_of_the_access_to_the_dataset_and_transforms_are_not() -> None:
    one = documents.loader()
    one["phases"] |= {"decode_s": 0.1, "queued_s": 0.02}
    found = figure(documents.tuned(one), "phases")
    assert [row[:2] for row in cells(found)[:3]] == [
        ["access to the dataset, without decoding and transforms", "29.0 ms"],
        ["decoding", "100 ms"],
        ["transforms", "31.0 ms"],
    ]
    said = " ".join(found.itertext())
    assert "175 ms in all, over 240 batches. 150 ms of it are CPU time, 20.0 ms waiting for a core, 5.00 ms" in said


def test_a_time_that_cannot_be_told_apart_is_not_drawn_as_zero() -> None:
    one = documents.loader()
    one["phases"]["transform_s"] = None
    found = figure(documents.tuned(one), "phases")
    assert len(bars(found)) == 3
    assert "access to the dataset, transforms included" in " ".join(found.itertext())


def test_predictions_lie_beside_measurements_and_the_mean_error_is_said() -> None:
    found = figure(documents.tuned(), "prediction")
    assert cells(found) == [
        ["4 workers, prefetch 2", "20.1", "22.0", "−9%"],
        ["5 workers, prefetch 2", "25.0", "25.0", "+0%"],
        ["6 workers, prefetch 2", "25.0", "25.0", "+0%"],
    ]
    assert "Mean error: 3% (n = 3)." in " ".join(found.itertext())
    row = next(
        one
        for one in found.iter("svg")
        if one.get("aria-hidden") and one.find("circle") is not None and one.find("svg") is not None
    )
    glyph = row.find("svg")
    assert glyph is not None
    (measured,) = [percent(one.get("cx")) for one in row.iter("circle")]
    assert percent(glyph.get("x")) / measured == pytest.approx(20.1 / 22.0, rel=0.001)


def test_a_prediction_that_only_a_move_knows_is_shown() -> None:
    one = documents.loader()
    for each in one["points"]:
        del each["predicted_batches_per_s"]
    assert [row[1] for row in cells(figure(documents.tuned(one), "prediction"))] == ["20.1", "25.0", "25.0"]


@pytest.mark.parametrize(("name", "factors"), [("finals", (1.0, 1.08)), ("offers", (1.42, 0.99))])
def test_fresh_processes_lie_at_their_factor_of_one(name: str, factors: tuple[float, ...]) -> None:
    found = figure(documents.finals(), name)
    rows = [one for one in found.iter("svg") if one.get("aria-hidden") and one.find("circle[@cx]") is not None]
    for row, factor in zip(rows, factors, strict=True):
        one = next(line for line in row.iter("line") if line.get("class") == "line axis")
        dot = row.find("circle")
        assert dot is not None
        assert percent(dot.get("cx")) / percent(one.get("x1")) == pytest.approx(factor, rel=0.001)


def test_only_a_change_that_helped_is_called_faster() -> None:
    said = " ".join(" ".join(figure(documents.finals(), "offers").itertext()).split())
    assert "cv2.setNumThreads(0) faster; 1.42× (1.36–1.49)" in said
    assert "pin_memory=True no gain; 0.99× (0.96–1.02)" in said


# -------------------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(("rough", "nice"), [(0.9, 1), (1, 1), (1.2, 2), (2.1, 5), (6, 10), (0.03, 0.05), (420, 500)])
def test_steps_are_1_2_or_5(rough: float, nice: float) -> None:
    assert nice_step(rough) == pytest.approx(nice)


@pytest.mark.parametrize("highest", [0, 1e-9, 0.3, 1, 7, 25, 99.9, 1e6])
def test_an_axis_from_zero_holds_its_highest_value_in_few_ticks(highest: float) -> None:
    axis = from_zero(highest)
    assert axis.ticks[0] == 0
    assert 0 <= axis.at(highest) <= 100.0001
    assert 2 <= len(axis.ticks) <= 7
    assert axis.ticks[-1] == pytest.approx(axis.high)


def test_workers_get_whole_numbers_and_no_empty_half() -> None:
    assert from_zero(3, whole=True).ticks == (0, 1, 2, 3)
    assert around(1, 6).low == 0
    crowded = around(40, 44)
    assert crowded.low >= 35
    assert all(value == int(value) for value in crowded.ticks)
    assert crowded.at(40) > 0
    assert crowded.at(44) < 100


def test_an_axis_of_time_ends_where_the_search_ends() -> None:
    axis = until(36)
    assert (axis.at(36), axis.ticks) == (100, (0, 10, 20, 30))


def test_ticks_are_written_without_idle_digits() -> None:
    assert [tick_text(value) for value in (0.0, 2.5, 10.0, 20000.0, 3e7)] == ["0", "2.5", "10", "20000", "3e+07"]
