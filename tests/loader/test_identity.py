"""Which loader is this? The same as in the last epoch, and another one than its neighbour."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.utils.data import DataLoader

import keepfed.loader.api as keepfed
from keepfed.loader.identity import identify
from tests.loader.steered import Plain, Steered, indices, move, steered


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path) as found:
        yield found


def make(dataset: Any = None, **options: Any) -> keepfed.DataLoader:
    return keepfed.DataLoader(Plain(40) if dataset is None else dataset, batch_size=4, **options)


LINE = make.__code__.co_firstlineno + 1


def test_a_loader_is_its_construction_site_and_its_dataset() -> None:
    loader = make()
    name = identify(loader)
    assert name.site.endswith(f"test_identity.py:{LINE}")
    assert name.dataset == f"{Plain.__module__}.Plain"
    assert name.ordinal == 0
    assert identify(loader) == name


def test_two_alive_at_once_differ_and_one_built_anew_takes_the_free_place() -> None:
    first, second = make(), make()
    assert [identify(first).ordinal, identify(second).ordinal] == [0, 1]
    del first
    third = make()
    assert identify(third).ordinal == 0
    assert identify(second).ordinal == 1


def test_another_dataset_class_or_another_line_is_another_loader() -> None:
    one, other, there = make(), make([1, 2]), keepfed.DataLoader(Plain())
    assert len({identify(one), identify(other), identify(there)}) == 3
    assert {identify(one).ordinal, identify(other).ordinal, identify(there).ordinal} == {0}
    assert identify(other).dataset == "builtins.list"


def test_a_loader_without_a_site_still_has_a_name() -> None:
    assert identify(DataLoader(Plain())).site == "?"


class _Mine(keepfed.DataLoader):
    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, batch_size=4)


def test_the_init_of_a_subclass_is_no_site() -> None:
    loader = _Mine(Plain())
    line = sys._getframe().f_lineno - 1
    assert identify(loader).site.endswith(f"test_identity.py:{line}")


@pytest.mark.parametrize(
    "package", ["lightning.pytorch", "pytorch_lightning", "accelerate.data_loader", "transformers"]
)
def test_frameworks_are_no_sites(package: str) -> None:
    module = ModuleType(package)
    module.__dict__["DataLoader"] = keepfed.DataLoader
    exec(
        compile("def build(dataset):\n    return DataLoader(dataset)\n", f"{package}.py", "exec"), module.__dict__
    )  # a module of that name
    loader = module.build(Plain())
    line = sys._getframe().f_lineno - 1
    assert identify(loader).site.endswith(f"test_identity.py:{line}")


def test_copies_keep_the_site() -> None:
    loader = make()
    for twin in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert identify(twin).site == identify(loader).site
        assert identify(twin) != identify(loader)


def test_a_loader_built_anew_every_epoch_keeps_pilot_plan_and_tally(host: Steered) -> None:
    pilots = []
    for epoch in range(4):
        loader = make(num_workers=1)
        iterator = host.iterator(loader)
        pilots.append(host.pilot(loader))
        if epoch == 1:
            next(iterator)
            move(iterator, pilots[-1], 3)
        assert len(iterator._crew.active_workers()) == (1 if epoch == 0 else 3)
        got = list(iterator)
        assert indices(got)[-1] == 39
        assert loader.stats().epochs == epoch + 1
        del loader, iterator, got
    assert len(set(map(id, pilots))) == 1
    assert pilots[0].tally.batches == 40
    assert pilots[0].plan.num_workers == 3
