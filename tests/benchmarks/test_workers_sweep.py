"""What benchmarks/workers_sweep.py makes of a program's log and of tune's report."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

PROGRAM = """
import argparse
parser = argparse.ArgumentParser()
for name in ("--num-workers", "--log-every", "--epochs", "--base"):
    parser.add_argument(name, type=int)
args = parser.parse_args()
step = 0
while True:
    step += args.log_every
    print(f"epoch 1 step {step}: {args.base + args.num_workers:.2f} batches/s", flush=True)
"""
REPORT = {
    "schema": "keepfed.tune/1",
    "loaders": [
        {
            "after": {"num_workers": 5, "prefetch_factor": 2, "batches_per_s": 24.6, "wait_share": 0.01},
            "limited_by": "step",
            "moves": [{"num_workers": 3}, {"num_workers": 5}],
            "settled": True,
            "seconds": 41.5,
        }
    ],
}


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = spec_from_file_location("benchmark_workers_sweep", BENCHMARKS / "workers_sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def test_the_first_window_is_left_out_and_slow_ones_weigh_by_their_time(sweep: Any) -> None:
    log = "".join(f"epoch 1 step {step}: {rate:.2f} batches/s\n" for step, rate in ((25, 1.0), (50, 20.0), (75, 30.0)))
    assert sweep.throughput(log) == pytest.approx(24.0)


def test_lines_of_the_photographs_example_are_understood(sweep: Any) -> None:
    log = "epoch 1 step 20/93  97.0 img/s\nepoch 1 step 40/93  loss 1.120  100.0 img/s\n"
    assert sweep.throughput(log) == pytest.approx(100.0)


def test_every_count_is_measured_and_written(sweep: Any, tmp_path: Path) -> None:
    """The program would run for ever: it is stopped when it has logged enough."""
    program, file = tmp_path / "program.py", tmp_path / "sweep.json"
    program.write_text(PROGRAM)
    assert sweep.main([str(program), "--max-workers", "1", "--json", str(file), "--", "--base", "7"]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["sweep"] == [{"num_workers": 0, "throughput": 7.0}, {"num_workers": 1, "throughput": 8.0}]


def test_a_program_that_logs_nothing_is_reported(sweep: Any, tmp_path: Path) -> None:
    program = tmp_path / "silent.py"
    program.write_text("")
    with pytest.raises(SystemExit, match=r"silent\.py --num-workers 0 logged 0 windows"):
        sweep.main([str(program), "--max-workers", "0"])


def test_an_unknown_program_is_refused_with_those_that_exist(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sweep.main(["waitng"])
    assert "cheap, curriculum" in capsys.readouterr().err


def compared(sweep: Any, monkeypatch: pytest.MonkeyPatch, rates: dict[int, float]) -> Any:
    """Tune's answer of REPORT against a machine that reaches exactly `rates`."""
    monkeypatch.setattr(sweep, "measure", lambda _, count: sweep.Point(count, rates[count]))
    args = sweep.parse_args(["waiting"])
    return sweep.compare(args, [sweep.Point(*item) for item in rates.items()], sweep.tuned_from(REPORT))


def test_tune_at_the_best_count_needs_no_second_look(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared(sweep, monkeypatch, {4: 23.0, 5: 24.5, 6: 24.0})
    assert comparison.best_num_workers == 5
    assert comparison.share.low == 1.0
    assert comparison.met


@pytest.mark.parametrize(("reached", "met"), [(24.0, True), (22.0, False)])
def test_tune_elsewhere_is_met_from_95_percent(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, reached: float, met: bool
) -> None:
    comparison = compared(sweep, monkeypatch, {5: reached, 8: 25.0})
    assert comparison.best_num_workers == 8
    assert comparison.share.median == pytest.approx(reached / 25.0)
    assert comparison.met is met
    assert ("met" if met else "missed") in sweep.verdict(comparison)
    assert "2 moves in 42 s, settled, limited by step" in sweep.verdict(comparison)
