"""keepfed.DataLoader: torch's, but for one word."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from keepfed.errors import UsageError
from keepfed.host.facts import read_host
from keepfed.loader.count import WorkerCount
from keepfed.loader.epoch import EpochIter
from keepfed.loader.requests import KEYWORDS
from keepfed.plan import Plan
from tests.loader.steered import Plain, indices


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    keepfed.uninstall()


def test_the_signature_is_torchs_with_our_keywords_at_its_end() -> None:
    ours = dict(inspect.signature(keepfed.DataLoader).parameters)
    for name in KEYWORDS:
        assert ours.pop(name).kind is inspect.Parameter.KEYWORD_ONLY
    assert ours == dict(inspect.signature(TorchDataLoader).parameters)
    names = list(inspect.signature(TorchDataLoader).parameters)
    assert names[keepfed._POSITION_OF_NUM_WORKERS] == "num_workers"


@pytest.mark.parametrize(
    "make",
    [
        lambda: keepfed.DataLoader(Plain(), 4, num_workers="auto"),
        lambda: keepfed.DataLoader(Plain(), 4, False, None, None, "auto"),
        lambda: keepfed.DataLoader(dataset=Plain(), batch_size=4, num_workers="auto", prefetch_factor=4),
    ],
)
def test_auto_is_a_number_of_workers_that_starts_at_the_cores(make: Any) -> None:
    loader = make()
    assert isinstance(loader.num_workers, WorkerCount)
    assert loader.num_workers == (read_host().cores.whole or 1)
    assert indices(list(loader)) == list(range(64))
    stats = loader.stats()
    assert (stats.batches, stats.samples, stats.epochs, stats.fallback) == (16, 64, 1, "")
    assert stats.plan == Plan(loader.num_workers, loader.prefetch_factor)
    assert stats.elapsed_s > 0


@pytest.mark.parametrize("value", ["AUTO", "4", ""])
def test_any_other_word_is_a_clear_error(value: str) -> None:
    with pytest.raises(UsageError, match='expected an integer or "auto"'):
        keepfed.DataLoader(Plain(), num_workers=value)


def test_what_torch_refuses_is_refused_by_torch() -> None:
    for wrong in (-1, None, 1.5j):
        with pytest.raises((ValueError, TypeError)) as theirs:
            TorchDataLoader(Plain(), num_workers=wrong)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(type(theirs.value)) as ours:
            keepfed.DataLoader(Plain(), num_workers=wrong)
        assert str(ours.value) == str(theirs.value)


def test_a_bad_value_for_install_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="install\\(num_workers=4\\)") as caught:
        keepfed.install(4)  # type: ignore[arg-type]  # wrong on purpose
    assert "each DataLoader" in str(caught.value.next_step)


def test_auto_survives_a_framework_that_builds_the_loader_anew() -> None:
    """Lightning and Accelerate copy the attributes into torch's own class."""
    loader = keepfed.DataLoader(Plain(), batch_size=4, num_workers="auto")
    again: Any = TorchDataLoader(
        loader.dataset, batch_sampler=loader.batch_sampler, num_workers=loader.num_workers, prefetch_factor=3
    )
    iterator = iter(again)
    assert isinstance(iterator, EpochIter)
    assert not iterator._crew.terms.fixed
    assert indices(list(iterator)) == list(range(64))
    assert not isinstance(iter(TorchDataLoader(Plain(), num_workers=2)), EpochIter)


@pytest.mark.parametrize("workers", [2, "auto"])
def test_a_loader_can_be_copied_and_pickled(workers: Any) -> None:
    loader = keepfed.DataLoader(Plain(), batch_size=4, num_workers=workers)
    next(iter(loader))
    for twin in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert type(twin) is keepfed.DataLoader
        assert twin.num_workers == loader.num_workers
        assert type(twin.num_workers) is type(loader.num_workers)
        assert indices(list(twin)) == list(range(64))
        assert twin.stats().epochs == 1


def test_the_samples_are_torchs_and_do_not_depend_on_the_plan() -> None:
    def draws(move: int) -> list[Any]:
        torch.manual_seed(0)
        loader = keepfed.DataLoader(_Draws(), batch_size=4, shuffle=True, num_workers="auto")
        iterator: Any = iter(loader)
        got = []
        for number, batch in enumerate(iterator):
            if number == 3:
                iterator.change_plan(Plan(move, 2))
            got.append(batch.tolist())
        return got

    assert draws(1) == draws(4) == draws(2)


class _Draws(Plain):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(1)


def test_with_persistent_workers_a_changed_plan_stays_for_the_next_epochs() -> None:
    loader = keepfed.DataLoader(Plain(), batch_size=4, num_workers="auto", persistent_workers=True)
    iterator: Any = iter(loader)
    pilot = iterator._crew.listener
    next(iterator)
    assert pilot._change(Plan(4, 3), iterator)
    assert len(list(iterator)) == 15
    pids = [worker.pid for worker in iterator._workers]
    for epoch in (2, 3):
        again: Any = iter(loader)
        assert again is iterator
        assert len(iterator.active_workers()) == 4
        assert indices(list(again)) == list(range(64))
        assert [worker.pid for worker in iterator._workers] == pids
        assert loader.stats().epochs == epoch
    assert loader.stats().plan == Plan(4, 3)


def test_a_program_may_compare_and_calculate_with_auto() -> None:
    loader = keepfed.DataLoader(Plain(), num_workers="auto")
    assert loader.num_workers >= 1
    assert loader.num_workers + 1 > loader.num_workers
    assert 2 * loader.num_workers // 2 == loader.num_workers
    assert len(list(iter(loader))) == 64
