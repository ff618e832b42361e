"""Ctrl-C at any line of what follows a worker's death, or while workers hatch: every batch is that of an undisturbed run.

Lines are counted from where the trainer makes a death good: that happens in few of the calls of `next()`, and counting from
the beginning of each, as `test_interrupts.py` does, would reach its lines by luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.roster import Roster
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.policy import order
from tests.loader.interrupting import Interrupter
from tests.loader.processes import SOURCE
from tests.loader.side_by_side import seed_all
from tests.loader.spawned import Numbers

FILES = {*map(str, (SOURCE / "keepfed" / "loader").glob("*.py")), order.__file__}
BATCHES = 600
EVERY = 12
"""Of the lines, for the time that a death takes; each kind of loader begins at another one."""
AT_THE_VERY_RETURN = ("Crew.deliver", "EpochIter._next_data", "EpochIter.__next__")


class Draws(Dataset[Any]):
    """Its index, and a draw."""

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(torch.rand(()))


class StreamOfDraws(IterableDataset[Any]):
    """The same as a stream of which each worker reads its share."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        assert info is not None
        return ((index, float(torch.rand(()))) for index in range(info.id, BATCHES, info.num_workers))


def fixed(dataset: Any) -> Any:
    return iter(DataLoader(dataset, batch_size=None, num_workers=2))


def shared(dataset: Any) -> Any:
    terms = Terms(Plan(2, 2), fixed=False, max_workers=2, lookahead=4)
    return EpochIter(DataLoader(dataset, batch_size=None, num_workers=2), terms, Tally())


def undisturbed(make: Callable[[Any], Any], dataset: Any) -> list[Any]:
    """The batches of a run in which nobody dies: torch's, where that makes the same."""
    seed_all(3)
    return list(make(dataset) if make is shared else TorchDataLoader(dataset, batch_size=None, num_workers=2))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a socket that was being handed on is closed by the collector
@pytest.mark.leaves("descriptors", reason="an interrupt just before os.close costs that one; closing twice is worse")
@pytest.mark.parametrize(
    ("make", "dataset", "first"),
    [(fixed, Draws(), 1), (fixed, StreamOfDraws(), 5), (shared, Draws(), 9)],
    ids=["fixed", "stream", "shared"],
)
def test_ctrl_c_at_any_line_after_a_death_is_made_good_once(
    make: Callable[[Any], Any], dataset: Any, first: int
) -> None:
    expected = undisturbed(make, dataset)
    seed_all(3)
    iterator = make(dataset)
    interrupter = Interrupter(FILES)
    seen: list[Any] = []
    deaths = 0
    try:
        for position in itertools.count(first, EVERY):
            victim = iterator._workers[deaths % 2]
            victim.kill()
            victim.join(20)
            deaths += 1
            interrupter.next_at(position, Roster.ended.__qualname__)
            batch, error = interrupter.run(lambda: next(iterator))
            while isinstance(error, KeyboardInterrupt):
                batch, error = interrupter.run(lambda: next(iterator))
            at = interrupter.at
            assert error is None, f"{error!r} after an interrupt at {at}"
            lost = batch != expected[len(seen)] and at.startswith(AT_THE_VERY_RETURN)
            seen += [*expected[len(seen) : len(seen) + lost], batch]
            assert batch == expected[len(seen) - 1], f"after an interrupt at {at}"
            if not at:
                break
        assert seen + list(iterator) == expected
    finally:
        interrupter.close()
    assert position > 100, "so many lines were interrupted"
    assert abs(iterator._crew.tally.restarts - deaths) <= 1, "each counts once, but for Ctrl-C in the count itself"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_ctrl_c_while_workers_hatch_loses_and_repeats_no_batch(method: str) -> None:
    """They are asked for, and sent tasks, long before they are there."""
    interrupter = Interrupter(FILES)
    try:
        for position in itertools.count(1, 40):
            loader = DataLoader(Numbers(8), batch_size=1, num_workers=2, multiprocessing_context=method)
            iterator: Any = iter(loader)
            interrupter.next_at(position)
            first, error = interrupter.run(lambda: next(iterator))  # noqa: B023  # it is run before the next one is made
            at = interrupter.at
            got = [] if error is not None else [first]
            assert error is None or isinstance(error, KeyboardInterrupt)
            iterator._reader = 0  # the thread that was driven out at the very end does not come again: this one goes on
            got += list(iterator)
            assert [int(batch) for batch in got] == list(range(8)) or at.startswith(AT_THE_VERY_RETURN), at
            if not at:
                break
    finally:
        interrupter.close()
    assert position > 100
