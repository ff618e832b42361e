"""How benchmarks/faults.py comes from what a program saw to what it says about it, without running one."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    cells: Any = import_module("fault_cells")
    program: Any = import_module("fault_program")
    faults: Any = import_module("faults")

EVERY = [list(range(start, start + cells.BATCH)) for start in range(0, cells.BATCH * cells.BATCHES, cells.BATCH)]


def watched(batches: list[list[int]], *others: dict[str, Any], pids: dict[int, int] | None = None) -> Any:
    """What was seen of a program that got these batches, one every 10 ms; by worker 1 unless `pids` says otherwise."""
    found = cells.Watched(-1, 0)
    for place, numbers in enumerate(batches):
        said = {"event": "batch", "numbers": numbers, "pid": (pids or {}).get(place, 1), "right": True}
        found.events.append({**said, "at_s": place / 100})
    found.events += [{"at_s": 99.0, **other} for other in others]
    return found


CHECKED = {"event": "checked", "digest": "d", "kept_right": True}


def judged(fault: str, of: Any, loader: str = "keepfed", **known: Any) -> Any:
    facts = {"struck_s": None, "left": (), "gone_s": None, "seconds": 1.0, **known}
    return cells.judged(program.Cell(loader, fault, "fork", "map"), of, **facts)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (EVERY[:-1], "4 samples are lost"),
        ([EVERY[0], *EVERY], "samples came twice"),
        ([EVERY[1], EVERY[0], *EVERY[2:]], "samples are out of order"),
    ],
    ids=["lost", "repeated", "reordered"],
)
def test_samples_that_are_lost_or_come_twice_or_out_of_order_are_wrong(batches: list[list[int]], words: str) -> None:
    found = judged("killed", watched(batches, CHECKED))
    assert (found.end, found.words) == ("wrong", words)
    assert faults.missed_by(found, "d") == [f"wrong: {words}"]


def test_bytes_that_differ_are_wrong() -> None:
    altered, changed_later = watched(EVERY, CHECKED), watched(EVERY, {**CHECKED, "kept_right": False})
    altered.events[7]["right"] = False
    assert [judged("keeping", seen).end for seen in (altered, changed_later)] == ["wrong", "wrong"]


def test_other_draws_than_torchs_are_missed() -> None:
    assert faults.missed_by(judged("none", watched(EVERY, CHECKED)), "e") == ["other draws than torch's"]


def test_going_on_is_timed_until_a_worker_delivers_that_was_not_there_before() -> None:
    struck = {"event": "struck", "known": [1, 2], "at_s": 0.195}
    told = {"event": "logged", "level": "WARNING", "words": "it died", "at_s": 0.2}
    found = judged("killed", watched(EVERY, struck, told, CHECKED, pids={21: 2, 22: 3}))
    assert found.end == "survived"
    assert found.detected_s == pytest.approx(0.005)
    assert found.recovered_s == pytest.approx(0.025)
    assert faults.missed_by(found, "d") == []


def test_a_death_that_took_long_to_make_good_is_missed() -> None:
    struck = {"event": "struck", "known": [1], "at_s": -1.0}
    found = judged("killed", watched(EVERY, struck, CHECKED, pids={59: 3}))
    assert faults.missed_by(found, "d") == ["1.59 s until it went on"]


def test_nothing_is_asked_of_torch() -> None:
    gave_up = {"event": "raised", "words": "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed."}
    found = judged("killed", watched(EVERY[:20], gave_up), loader="torch", left=("process pt_data_worker (S)",))
    assert (found.end, found.words) == ("error", "RuntimeError: DataLoader worker (pid N) is killed by signal: Killed.")
    assert faults.missed_by(found, "d") == []


def test_both_kinds_of_dataset_share_a_cell_unless_they_differ() -> None:
    survived, died = judged("stopped", watched(EVERY, CHECKED)), judged("stopped", watched(EVERY[:9]))
    assert (died.end, died.words) == ("error", "the program died without a word")
    assert faults.in_words([survived, survived]) == "✓"
    assert faults.in_words([survived, replace(died, cell=replace(died.cell, kind="iterable"))]) == (
        "map: ✓; iterable: gives up"
    )


def test_of_a_killed_trainer_it_is_asked_when_its_children_were_gone() -> None:
    gone, stayed = (judged("trainer-killed", watched(EVERY[:20]), gone_s=seconds) for seconds in (0.25, cells.LEAVES_S))
    assert faults.in_words([gone]) == "gone after 0.25 s"
    assert faults.in_words([gone, stayed]) == "still there after 15 s"
    assert faults.missed_by(stayed, "d") == ["error: its children stay", "children gone after 15.00 s"]


def test_every_cell_of_the_table_can_be_asked_for_and_some_cannot_be() -> None:
    asked = list(faults.cells(faults.parse_args([])))
    assert len(asked) == len(set(asked))
    assert program.Cell("torch", "killed", "spawn", "iterable") in asked
    assert program.Cell("torch", "zygote-killed", "fork", "map") not in asked
    assert program.Cell("keepfed", "lock", "spawn", "map") not in asked
