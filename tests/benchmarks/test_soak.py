"""benchmarks/soak.py notices what it looks for, and strikes whom it says."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    soak: Any = import_module("soak")

MAKING = soak.Making(kind="map", workers=2, prefetch=2, persistent=False, auto=False, leaves=False)
ROUND = soak.Round(number=0, making=MAKING, method="fork", keeps=1, pauses=False)


class Peace:
    """A striker that does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_options: None


def batches(count: int = 3) -> list[dict[str, torch.Tensor]]:
    numbers = [torch.arange(start, start + 2) for start in range(0, 2 * count, 2)]
    length = soak.FAULTS["none"].payload(0)
    payloads = [number.float().unsqueeze(1).expand(-1, length).contiguous() for number in numbers]
    return [{"number": n, "draw": n / 10, "payload": payload} for n, payload in zip(numbers, payloads, strict=True)]


def read(found: list[Any], this: Any = ROUND) -> None:
    soak.read(this, 0, iter(found), [soak.seen(batch) for batch in batches()], Peace())


def test_what_comes_out_as_it_should_is_right() -> None:
    read(batches())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (batches()[:2], "batch 2: expected .* found the end of the epoch"),
        ([*batches()[:1], *batches()], "batch 1: expected"),
        (batches()[::-1], "batch 0: expected"),
        (batches(4), "more batches than there are"),
        ([*batches()[:2], {**batches()[2], "draw": torch.zeros(2)}], "batch 2: expected"),
        ([*batches()[:2], {**batches()[2], "payload": batches()[1]["payload"]}], "have other bytes"),
    ],
    ids=["lost", "repeated", "reordered", "too many", "other draws", "other bytes"],
)
def test_what_does_not_is_wrong(found: list[Any], words: str) -> None:
    with pytest.raises(soak.Wrong, match=words):
        read(found)


def test_a_batch_that_changes_while_the_program_keeps_it_is_wrong() -> None:
    found = batches()

    def overwritten() -> Any:
        yield found[0]
        found[0]["payload"].zero_()
        found[0]["payload"][1] = 7
        yield from found[1:]

    with pytest.raises(soak.Wrong, match=r"samples \[0, 1\] have other bytes"):
        soak.read(replace(ROUND, keeps=2), 0, overwritten(), [soak.seen(batch) for batch in batches()], Peace())


def test_the_same_seed_draws_the_same_rounds() -> None:
    methods = ["fork", "spawn"]
    assert [soak.drawn(1, n, methods) for n in range(20)] == [soak.drawn(1, n, methods) for n in range(20)]
    assert len({soak.drawn(1, n, methods).making for n in range(20)}) > 10


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_round_of_kills_by_fork_costs_nothing() -> None:
    score = soak.Score()
    soak.play(soak.drawn(1, 0, ["fork"]), soak.parse_args(["--seed", "1", "--stops", "0", "--zygotes", "0"]), score)
    assert score.faults == []
    assert score.kills > 0
    assert score.restarts > 0
