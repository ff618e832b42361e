"""How much memory batches may take."""

from __future__ import annotations

import pytest

from keepfed.loader.budget import budget_for


def test_ranks_of_one_host_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = budget_for(4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert budget_for(4).slots_bytes == pytest.approx(alone.slots_bytes / 8, rel=0.1)


def test_all_workers_together_leave_a_fifth_of_the_free_memory() -> None:
    one, four = budget_for(1), budget_for(4)
    assert one.held_bytes < one.slots_bytes < one.region_bytes / 2
    assert 4 * four.slots_bytes == pytest.approx(one.slots_bytes, rel=0.1)
