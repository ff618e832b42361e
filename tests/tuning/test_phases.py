"""The reports of all windows of a plan, as means per batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepfed.events import Breakdown
from keepfed.plan import Plan
from keepfed.tuning.phases import mean_phases, phases_text
from tests.tuning import recorded
from tests.tuning.recorded import TRAIN
from tests.tuning.test_summary import fold


def breakdown(workers: int = 5, batches: int = 10, each_s: float = 0.2) -> Breakdown:
    return Breakdown(
        TRAIN,
        Plan(workers, 2),
        batches,
        wall_s=each_s * batches,
        cpu_s=0.5 * each_s * batches,
        collate_s=0.02 * batches,
        copy_s=0.01 * batches,
        room_s=0.03 * batches,
        trainer_cpu_s=0.04,
    )


def test_means_are_per_batch_and_waiting_for_the_program_is_left_out() -> None:
    found = mean_phases([breakdown(batches=30), breakdown(batches=10, each_s=0.4)])
    assert found is not None
    assert found.batches == 40
    assert found.fetch_s == pytest.approx((30 * 0.2 + 10 * 0.4) / 40 - 0.06)
    assert found.collate_s == pytest.approx(0.02)
    assert found.copy_s == pytest.approx(0.01)
    assert found.trainer_cpu_s == pytest.approx(0.04)
    assert found.waited_s == pytest.approx(found.work_s - found.cpu_s)
    assert replace(found, queued_s=0.05).waited_s == pytest.approx(found.waited_s - 0.05)


def test_where_no_worker_made_anything_there_is_nothing_to_say() -> None:
    assert mean_phases([]) is None
    assert mean_phases([breakdown(batches=0)]) is None


def test_only_the_windows_of_the_chosen_plan_count() -> None:
    events = recorded.tuned()
    (result,) = fold([*events[:3], breakdown(1, each_s=9.0), breakdown(5), *events[3:]])
    assert result.phases is not None
    assert result.phases.fetch_s == pytest.approx(0.14)
    found = result.to_json()["phases"]
    assert found["fetch_s"] == pytest.approx(0.14)
    assert found["transform_s"] is None
    assert {"collate_s", "copy_s", "batches"} <= found.keys()


def test_a_loader_without_reports_has_no_phases_in_its_document() -> None:
    (result,) = fold(recorded.tuned())
    assert result.phases is None
    assert "phases" not in result.to_json()


def test_the_words_name_each_part_with_its_share() -> None:
    found = mean_phases([breakdown()])
    assert found is not None
    said = phases_text(found)
    assert "170 ms" in said
    assert "82%" in said
    assert "12%" in said
    assert "6%" in said
