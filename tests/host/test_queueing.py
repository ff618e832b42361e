"""How long a process waited for a core."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepfed.host.queueing import queued_s
from keepfed.host.tree import Tree


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("220000000 284467712 31\n", 0.284467712), ("", None), ("12", None), ("a b c", None), (None, None)],
)
def test_the_second_number_is_the_queue(said: str | None, seconds: float | None, tmp_path: Path) -> None:
    folder = tmp_path / "proc" / "7"
    folder.mkdir(parents=True)
    if said is not None:
        (folder / "schedstat").write_text(said)
    assert queued_s(7, Tree(str(tmp_path))) == seconds


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="a kernel without CONFIG_SCHED_INFO")
def test_a_live_process_has_waited_for_some_time() -> None:
    found = queued_s(os.getpid())
    assert found is not None
    assert found >= 0
