"""A dataset that every worker copies object by object is named, and one of arrays is not: real workers, real pages."""

from __future__ import annotations

import logging
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from keepfed.host.private import read_private
from keepfed.host.tree import Tree
from keepfed.loader import copies, memory, weight
from keepfed.loader.api import DataLoader
from keepfed.loader.copies import largest, tell
from keepfed.loader.notes import Weight
from keepfed.loader.stats import Tally

MIB = 1 << 20
COUNT = 500_000


class Samples(Dataset[Any]):
    """Many rows; which kind of memory they lie in is the question."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return int(self.rows[index][0])


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOOK_S", 0.05)
    monkeypatch.setattr(memory, "NEAR_S", 0.05)
    monkeypatch.setattr(memory, "COST_SHARE", 0)
    monkeypatch.setattr(weight, "SOONEST_S", 0.05)
    monkeypatch.setattr(weight, "COST_SHARE", 0)
    monkeypatch.setattr(copies, "COPIED_BYTES", 24 * MIB)


def said_of(dataset: Dataset[Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said while a program reads this dataset, shuffled."""
    with caplog.at_level(logging.WARNING, "keepfed"):
        loader = DataLoader(dataset, batch_size=5_000, shuffle=True, num_workers=2)
        for _ in loader:
            pass
    return [record.message for record in caplog.records]


@pytest.mark.skipif(read_private(Tree()) is None, reason="this kernel does not tell")
def test_a_list_of_objects_is_named_once_with_what_to_do(often: None, caplog: pytest.LogCaptureFixture) -> None:
    (said,) = said_of(Samples([(index, str(index)) for index in range(COUNT)]), caplog)
    assert f"Samples.rows (list of {COUNT})" in said
    assert "NumPy" in said


@pytest.mark.skipif(read_private(Tree()) is None, reason="this kernel does not tell")
def test_an_array_is_not(often: None, caplog: pytest.LogCaptureFixture) -> None:
    assert said_of(Samples(np.ones((COUNT, 16))), caplog) == []


def rows(count: int = copies.MANY) -> list[int]:
    return list(range(count))


@pytest.mark.parametrize(
    ("dataset", "path"),
    [
        (Samples(rows()), "Samples.rows"),
        (Subset(Samples(rows()), [1, 2]), "Subset.dataset.rows"),
        (Samples({"train": rows(), "test": [1]}), "Samples.rows['train']"),
        (Samples((rows(5), rows())), "Samples.rows[1]"),
        (Samples(UserDict({index: index for index in rows()})), "Samples.rows.data"),
        (Samples(np.array(rows(), dtype=object)), "Samples.rows"),
        (rows(), "list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_largest_container_is_found_wherever_it_lies(dataset: Any, path: str) -> None:
    assert largest(dataset).startswith(f"{path} (")


def test_nothing_is_found_where_there_is_nothing() -> None:
    class Odd(Samples):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("code of the dataset's was run")

    assert not largest(Samples(rows(copies.MANY - 1)))
    assert not largest(Samples(np.ones(copies.MANY)))
    assert not largest(Samples(torch.ones(copies.MANY)))
    assert not largest(Odd([Odd([])]))
    endless = Samples([])
    endless.rows.append(endless)
    assert not largest(endless)
    assert not largest(None)


def weights(*copied: int) -> list[Weight]:
    return [Weight(nbytes, 10 * nbytes, nbytes) for nbytes in copied]


def test_copies_that_nothing_explains_are_named_only_when_they_are_many(caplog: pytest.LogCaptureFixture) -> None:
    tally, dataset = Tally(), Samples(np.ones(5))
    tell(weights(copies.UNEXPLAINED_BYTES - 1), dataset, tally)
    assert not caplog.records
    for _ in range(2):
        tell(weights(copies.UNEXPLAINED_BYTES, 0), dataset, tally)
    (record,) = caplog.records
    assert "without an attribute of Samples" in record.message
    tell(weights(1 << 40), Samples(rows()), Tally())
    assert len(caplog.records) == 2
