"""How benchmarks/tuning.py comes from runs to shares and verdicts, that it goes on where it was stopped, and that it runs."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    cells: Any = import_module("zoo_cells")
    figures: Any = import_module("zoo_figures")
    measure: Any = import_module("zoo_measure")
    program: Any = import_module("zoo_program")
    rivals: Any = import_module("zoo_rivals")
    search: Any = import_module("zoo_search")
    stretch: Any = import_module("zoo_stretch")
    table: Any = import_module("zoo_table")
    tuning: Any = import_module("tuning")
    verdicts: Any = import_module("zoo_verdicts")
    workloads: Any = import_module("zoo_workloads")


def run(batches_per_s: float, cpu_ms: float = 1.0) -> dict[str, Any]:
    return {"batches": 10 * batches_per_s, "seconds": 10.0, "cpu_s": 10 * batches_per_s * cpu_ms / 1e3}


def searched(seconds: float | None = 10.0, moves: int = 1, windows: int = 5) -> dict[str, Any]:
    return {
        "settled": seconds is not None,
        "seconds": seconds,
        "windows": windows,
        "moves": moves,
        "batches": 100,
        "trained_s": seconds or 60.0,
        "later_moves": 0,
        "predictions": [[110.0, 100.0]],
    }


def cell(*rounds: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """A record of a cell in which each round is {plan: run}, and ours has searched as usual."""
    found = [one | {"auto": {"search": searched(), "plan": [2, 2]} | one["auto"]} for one in rounds]
    names = dict.fromkeys(table.RIVALS, "4x2")
    facts = {
        "kind": "cell",
        "name": "reads/step",
        "step_s": 0.1,
        "oracle": "4x2",
        "sweep_s": 50.0,
        "rivals": names,
    } | facts
    return {"rounds": found, **facts}


# ------------------------------------------------------------------------------------------------------------------ figures


def test_a_share_divides_runs_of_one_round_alone() -> None:
    """The host became half as fast between the rounds, for all plans alike."""
    record = cell({"4x2": run(100), "auto": run(98)}, {"4x2": run(50), "auto": run(49)})
    share = figures.share_of(record, "auto")
    assert (share.low, share.median, share.high) == pytest.approx((0.98, 0.98, 0.98))


def test_rivals_count_in_the_rounds_that_they_were_part_of() -> None:
    record = cell({"4x2": run(100), "auto": run(99), "0x2": run(20)}, {"4x2": run(100), "auto": run(99)})
    assert figures.share_of(record, "0x2").median == pytest.approx(0.2)


def test_the_cheapest_plan_is_sought_among_those_that_are_as_good_as_the_best() -> None:
    record = cell({"4x2": run(100, 2.0), "2x2": run(96, 1.5), "1x2": run(60, 1.0), "auto": run(99, 1.8)})
    assert figures.cheapest_good(record) == "2x2"
    assert figures.cpu_ratio(record).median == pytest.approx(1.2)


def test_a_search_costs_what_its_batches_would_not_have_taken() -> None:
    record = cell({"4x2": run(20), "auto": run(20)})
    assert figures.lost_s(record["rounds"][0]["auto"]) == pytest.approx(10.0 - 100 / 20)
    assert figures.search_share(record) == pytest.approx(5.0 / 50.0)
    assert figures.search_time_share(record) == pytest.approx(10.0 / 50.0)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (searched(29.0, windows=25), True),
        (searched(45.0, windows=20), True),
        (searched(45.0, windows=21), False),
        (searched(10.0, moves=7), False),
        (searched(None), False),
    ],
    ids=["in time", "in windows", "neither", "too many moves", "never"],
)
def test_a_search_is_in_time_by_the_clock_or_by_its_windows(found: dict[str, Any], kept: bool) -> None:
    assert figures.keeps(found) is kept


def test_a_search_that_never_settles_costs_without_end() -> None:
    record = cell({"4x2": run(20), "auto": run(20) | {"search": searched(None)}})
    assert figures.search_share(record) == float("inf")
    assert "(0 of 1)" in table.markdown([record])


def test_cpu_seconds_of_a_plan_that_kept_changing_are_unknown_and_not_judged() -> None:
    record = cell({"4x2": run(20), "auto": run(20) | {"cpu_s": None}})
    assert figures.cpu_ratio(record) is None
    (bar,) = [bar for bar in verdicts.bars([record], [], []) if "CPU" in bar.promise]
    assert bar.met is None
    assert "? of 4x2" in table.markdown([record])


def test_predictions_are_judged_by_their_relative_error() -> None:
    assert figures.prediction_errors([cell({"4x2": run(1), "auto": run(1)})]) == pytest.approx([0.1])
    assert [figures.percentile(list(range(10)), share) for share in (0.5, 0.9, 1.0)] == [5, 9, 9]


@pytest.mark.parametrize(
    ("counts", "seconds"),
    [
        ([10] * 200, 0.0),
        ([5] * 50 + [10] * 150, 5.0),
        ([10] * 5 + [5] * 45 + [10] * 150, 5.0),
        ([10] * 100 + [5] * 100, None),
    ],
    ids=["at once", "after five seconds", "a good start is not enough", "good at first is not back"],
)
def test_back_is_who_stays_back(counts: list[int], seconds: float | None) -> None:
    back = figures.returned(counts, 0.1, 100.0, [1.0, 4.0, 9.0])
    if seconds is None:
        assert back.seconds is None
        assert not back.kept
    else:
        assert back.seconds == pytest.approx(seconds, abs=0.4)
        assert back.windows == (2 if seconds else 0)
        assert back.kept


@pytest.mark.parametrize(("shares", "met"), [([0.98, 0.99], True), ([0.90, 0.92], False), ([0.90, 0.98], None)])
def test_a_promise_is_met_or_missed_by_the_whole_interval(shares: list[float], met: bool | None) -> None:
    assert verdicts.at_least(0.97, figures.median_interval(shares)) is met
    over = [1 / share for share in shares]
    assert verdicts.at_most(1 / 0.97, figures.median_interval(over)) is met


def test_every_promise_has_its_verdict_and_a_single_round_has_none() -> None:
    rounds = {"4x2": run(100), "0x2": run(90), "auto": run(80)}, {"4x2": run(100), "auto": run(80)}
    records = [cell(*rounds, rivals=dict.fromkeys(table.RIVALS, "0x2"))]
    changed = {"kind": "change", "name": "c", "oracle": "4x2", "bucket_s": 0.1}
    follow = {"counts": [10] * 400, "windows_at_s": [], "moves": 1}
    changed["rounds"] = [{"before": run(100), "after": run(100), "follow": follow}]
    runs = [{"plan": [1, 2], "pairs": [[1.0, ratio]] * 2} for ratio in (1.035 * 1.1, 1.035 / 1.1)]
    settled = {"kind": "settled", "name": "s", "runs": runs}
    found = verdicts.bars(records, [changed], [settled])
    assert [bar.met for bar in found] == [False, False, True, True, False, True, False]
    assert {bar.met for bar in verdicts.bars(records, [changed], [settled], judged=False)} == {None}
    text = table.markdown([*records, changed, settled, {"kind": "failed", "name": "f", "failed": "a\nno result"}])
    for word in (
        "**missed**",
        "0.800 [0.800, 0.800]",
        "0.90 (0x2)",
        "0.0 s",
        "1.0350",
        "10.0% in the median",
        "f: no result",
    ):
        assert word in text


# ----------------------------------------------------------------------------------------------------- searches and rivals


def window(count: int, at_s: float) -> dict[str, Any]:
    plan = {"num_workers": count, "prefetch_factor": 2}
    return {"event": "window", "time_s": at_s, "plan": plan, "batches": 10}


def test_a_search_ends_with_the_first_settling_and_counts_the_way_back(tmp_path: Path) -> None:
    plan = {"num_workers": 2, "prefetch_factor": 2}
    moved = {"event": "moved", "time_s": 106, "plan": {}, "predicted_batches_per_s": 9.0, "batches_per_s": 10.0}
    unpredicted = {**moved, "predicted_batches_per_s": 0.0}
    settled = {"event": "settled", "time_s": 108, "plan": plan, "limited_by": "step"}
    records = [window(2, 102), window(4, 104), window(2, 106), moved, unpredicted, settled, window(8, 120)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "events-1.jsonl").write_text(lines + '{"half')
    found = search.search_in(search.records_in(tmp_path), began_s=100.0)
    assert (found.settled, found.seconds, found.windows, found.batches, found.moves) == (True, 8.0, 3, 30, 2)
    assert (found.plan, found.predictions) == ((2, 2), ((9.0, 10.0),))
    assert (found.later_moves, found.later_s) == (1, 8.0)


def test_a_search_that_did_not_settle_ends_where_the_run_did() -> None:
    found = search.search_in([window(2, 102), window(4, 104)], began_s=100.0)
    assert (found.settled, found.seconds, found.plan, found.moves) == (False, None, (4, 2), 1)


@pytest.mark.parametrize(
    ("batch_s", "chosen"),
    [
        ({0: 8.0, 2: 4.0, 4: 2.0, 6: 1.9, 5: 1.95, 7: 1.9, 8: 1.9}, 4),
        ({0: 8.0, 2: 7.0, 1: 7.5, 3: 6.0, 4: 5.0, 5: 5.0}, 0),
        ({0: 8.0, 2: 7.0, 1: 5.0, 4: 2.0, 6: 1.9, 3: 2.0, 5: 2.0, 7: 2.0, 8: 2.0}, 4),
    ],
    ids=["as long as a quarter is saved", "too small a gain at once", "on from a count in between"],
)
def test_the_climb_wants_a_quarter_per_step(batch_s: dict[int, float], chosen: int) -> None:
    assert rivals.climb(batch_s.__getitem__, 8) == chosen


def test_formulas_of_the_others() -> None:
    assert (rivals.torch_default(), rivals.torch_suggested(8)) == (0, 8)
    assert [rivals.lightning(8, ranks) for ranks in (1, 2, 4, 8)] == [7, 3, 1, 1]


def test_a_demand_becomes_the_same_question_on_every_machine() -> None:
    photos, reads = workloads.WORKLOADS["photos"], workloads.WORKLOADS["reads"]
    assert cells.step_seconds(photos, "balanced", 0.08, 2) == pytest.approx(0.05)
    assert cells.step_seconds(photos, "balanced", 0.08, 16) == pytest.approx(0.05 / 8)
    assert cells.step_seconds(reads, "balanced", 0.16, 2) == cells.step_seconds(reads, "balanced", 0.16, 16)
    assert {step: cells.demand(reads, step, 2) for step in cells.STEPS} == {"loader": 16, "balanced": 3.52, "step": 0.4}


# ---------------------------------------------------------------------------------------------------------- measuring, going on


class Recorded:
    """Programs that have run already: two workers are best, every further one costs."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def __call__(self, spec: Any) -> dict[str, Any]:
        self.runs.append(spec)
        if spec.role == "calibrate":
            return {"fetch_s": 0.02, "fetch_cpu_s": 0.02, "rounds_per_s": 1000.0}
        count = 2 if spec.role == "auto" else spec.count
        found = run(100 * min(2, count) + 30, cpu_ms=1 + count) | {"memory_bytes": 0}
        return found | ({"search": searched(), "plan": [2, 2]} if spec.role == "auto" else {})


def test_a_cell_is_swept_once_and_then_measured_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = Recorded()
    bench = measure.Bench(measure.Effort(rounds=3, rival_rounds=1), tmp_path, say=lambda _: None)
    monkeypatch.setattr(measure.Bench, "run", lambda _, spec: done(spec))
    record = measure.measured_cell(bench, cells.Cell("photos", "balanced"))
    assert record["oracle"] == "2x2"
    assert list(record["sweep"]) == [f"{count}x2" for count in range(9)]
    first, second, third = ([*found] for found in record["rounds"])
    assert first[-2:] == ["2x2", "auto"]
    assert {"0x2"} < set(first)
    assert second == ["auto", "2x2"], "the order is turned, and rivals are measured in fewer rounds"
    assert third == ["2x2", "auto"]
    assert figures.share_of(record, "auto").median == pytest.approx(1.0)
    assert "| photos/balanced |" in table.markdown([record])


def test_an_interrupted_benchmark_goes_on_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Recorded()
    monkeypatch.setattr(measure.Bench, "run", lambda _, spec: done(spec))
    file, arguments = tmp_path / "tuning.json", ["--rounds", "2", "--data", str(tmp_path / "data")]
    tuning.main([*arguments, "--json", str(file), "--cells", "photos/step"])
    known = len(done.runs)
    tuning.main([*arguments, "--json", str(file), "--cells", "photos/step", "photos/loader"])
    assert "photos/step: measured before" in capsys.readouterr().out
    assert {spec.role for spec in done.runs[known:]} == {"fixed", "auto"}, (
        "not calibrated again: the steps stay the same"
    )
    assert set(json.loads(file.read_text())["records"]) == {"photos/step", "photos/loader"}
    with pytest.raises(SystemExit, match="measured with effort"):
        tuning.main([*arguments, "--json", str(file), "--cells", "photos/step", "--seed", "1"])


def test_a_program_that_fails_is_recorded_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(_: Any, spec: Any) -> Any:
        raise measure.Failed(f"{spec.workload} brought no result")

    monkeypatch.setattr(measure.Bench, "run", failing)
    assert tuning.main(["--data", str(tmp_path), "--cells", "rows/step", "photos/settled"]) == 1
    said = capsys.readouterr().out
    assert "rows brought no result" in said
    assert "photos brought no result" in said


def test_unknown_cells_are_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tuning.main(["--cells", "fotos"])
    assert "photos/balanced" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ real programs


@pytest.mark.parametrize("name", list(workloads.WORKLOADS))
def test_every_workload_makes_the_same_samples_from_the_same_seeds(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workloads.Photos, "FILES", 2)
    workload, found = workloads.WORKLOADS[name], []
    for _ in range(2):
        random.seed(3)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            found.append(str(workload.dataset(tmp_path, 3, 40)[7]))
    assert found[0] == found[1]


def test_a_real_program_searches_and_is_measured(tmp_path: Path) -> None:
    """In a fresh process; it may not take long enough to settle."""
    spec = program.Spec("auto", "free", str(tmp_path), settle_s=0.0, warm_s=0.1, measure_s=0.1, epoch_batches=5000)
    found = measure.in_a_fresh_process(spec, 60.0)
    assert found["batches"] >= program.FEWEST_BATCHES
    assert found["cpu_s"] > 0
    assert (found["search"]["settled"], found["plan"][1]) == (False, 2)


def test_cpu_seconds_of_a_stretch_in_which_a_process_ended_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = [{0: 1.0, 7: 5.0}, {0: 2.0, 7: 6.5, 8: 0.5}, {0: 2.0, 7: 7.0}, {0: 3.0}]
    monkeypatch.setattr(stretch, "tree_cpu_s", lambda: spent.pop(0))
    found = stretch.Stretch()
    found.begin(10)
    found.end(30)
    assert (found.batches, found.cpu_s) == (20, 3.0)
    found.begin(3)
    assert (found.begun, found.batches_by(5)) == (True, 22)
    found.end(5)
    assert (found.begun, found.cpu_s) == (False, None)


def test_a_program_that_fails_or_hangs_brings_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken, hanging = tmp_path / "broken.py", tmp_path / "hanging.py"
    broken.write_text("raise KeyError('nothing')")
    hanging.write_text("import time; time.sleep(60)")
    spec = program.Spec("fixed", "free", str(tmp_path))
    monkeypatch.setattr(measure, "PROGRAM", broken)
    with pytest.raises(measure.Failed, match="KeyError: 'nothing'"):
        measure.in_a_fresh_process(spec, 60.0)
    monkeypatch.setattr(measure, "PROGRAM", hanging)
    with pytest.raises(measure.Failed, match="no result after 0"):
        measure.in_a_fresh_process(spec, 0.1)
