"""Frameworks that build a loader anew must keep ours; here their ways of doing so, without the frameworks.

`make test-frameworks` runs the frameworks themselves.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import logging
import operator
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import get_worker_info

import keepfed.loader.api as keepfed
from keepfed.loader import torch_seam
from keepfed.loader.count import WorkerCount, count_of
from keepfed.loader.epoch import EpochIter
from keepfed.loader.requests import Requests
from keepfed.loader.single import SingleIter
from keepfed.loader.zero import ZeroIter
from tests.loader.processes import SOURCE
from tests.loader.steered import Plain, indices

ATTRIBUTES = [name for name in inspect.signature(TorchDataLoader).parameters if name not in ("dataset", "shuffle")]


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    keepfed.uninstall()


def as_torchs_own(loader: Any) -> Any:
    """As Accelerate: torch's class, and of the old loader what torch knows."""
    taken = {name: getattr(loader, name) for name in ATTRIBUTES if name not in ("batch_size", "sampler", "drop_last")}
    return TorchDataLoader(loader.dataset, **taken)


def as_the_same_class(loader: Any) -> Any:
    """As Lightning: the old class again, every parameter of its signature from the attribute of that name."""
    parameters = {**inspect.signature(TorchDataLoader.__init__).parameters, **vars(loader)}
    taken = {name: getattr(loader, name) for name in parameters if name in ATTRIBUTES}
    for name in ("batch_size", "sampler", "drop_last"):
        del taken[name]
    return type(loader)(loader.dataset, **taken)


def pickled(loader: Any) -> Any:
    return pickle.loads(pickle.dumps(loader))


class Shard(TorchDataLoader[Any]):
    """As Accelerate's DataLoaderShard: a subclass that wraps what the base class iterates."""

    def __iter__(self) -> Any:
        self.used = super().__iter__()
        return self.used


def as_a_shard(loader: Any) -> Any:
    taken = {name: getattr(loader, name) for name in ATTRIBUTES if name not in ("batch_size", "sampler", "drop_last")}
    return Shard(loader.dataset, **taken)


def as_repeated(loader: Any) -> Any:
    """As timm and Ultralytics: the batch sampler is put in by force, around the guard of torch's `__setattr__`."""
    again = as_torchs_own(loader)
    object.__setattr__(again, "batch_sampler", list(loader.batch_sampler))
    return again


REBUILDERS = [as_torchs_own, as_the_same_class, as_a_shard, as_repeated, pickled, copy.deepcopy, copy.copy]


@pytest.mark.parametrize("rebuild", REBUILDERS)
@pytest.mark.parametrize("workers", [1, "auto"])
def test_a_rebuilt_loader_is_still_ours(rebuild: Any, workers: Any) -> None:
    original = keepfed.DataLoader(Plain(16), batch_size=4, num_workers=workers)
    for loader in (rebuild(original), rebuild(rebuild(original))):
        iterator: Any = iter(loader)
        assert isinstance(iterator, EpochIter)
        assert iterator._crew.terms.fixed is (workers == 1)
        assert indices(list(iterator)) == list(range(16))
        stats = keepfed.stats(loader)
        assert (stats.batches, stats.fallback) == (4, "")
        del iterator


def test_a_rebuilt_loader_makes_torchs_batches_bit_for_bit() -> None:
    def batches(loader_class: Any) -> list[torch.Tensor]:
        torch.manual_seed(3)
        made = as_torchs_own(loader_class(Noise(), batch_size=2, shuffle=True, num_workers=2, persistent_workers=True))
        return [batch for _ in range(2) for batch in made]

    ours, theirs = batches(keepfed.DataLoader), batches(TorchDataLoader)
    assert all(map(torch.equal, ours, theirs))
    assert len(ours) == len(theirs) == 8


class Noise(Plain):
    def __init__(self) -> None:
        super().__init__(8)

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3) + index


def test_a_loader_without_workers_keeps_them_off_when_it_is_rebuilt() -> None:
    for loader in (keepfed.DataLoader(Plain(8), 4), keepfed.DataLoader(Plain(8), 4, num_workers=0)):
        assert isinstance(loader.num_workers, WorkerCount)
        assert not loader.num_workers
        again = as_torchs_own(loader)
        assert isinstance(iter(again), SingleIter)
        assert indices(list(again)) == list(range(8))


def test_a_number_that_the_program_sets_afterwards_counts() -> None:
    for first in (1, "auto"):
        loader: Any = keepfed.DataLoader(Plain(8), batch_size=4, num_workers=first)
        loader.num_workers = 2
        iterator: Any = iter(loader)
        assert isinstance(iterator, EpochIter)
        assert iterator._crew.terms.fixed
        assert len(iterator._workers) == 2
        assert indices(list(iterator)) == list(range(8))
        del iterator
        loader.num_workers = 0
        assert indices(list(loader)) == list(range(8))


def test_loaders_that_did_not_ask_for_ours_stay_torchs() -> None:
    keepfed.DataLoader(Plain(8), num_workers=1)
    assert type(iter(TorchDataLoader(Plain(8), num_workers=1))) is torch_seam.MultiProcessingDataLoaderIter
    assert type(iter(TorchDataLoader(Plain(8)))) is torch_seam.SingleProcessDataLoaderIter


def test_install_leaves_an_auto_loader_its_auto() -> None:
    keepfed.install()
    iterator: Any = iter(keepfed.DataLoader(Plain(16), batch_size=4, num_workers="auto"))
    assert not iterator._crew.terms.fixed


# ---- the count itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_count_is_an_int_to_everybody(number: int) -> None:
    count = WorkerCount(number, Requests(auto=True))
    assert count == number
    assert hash(count) == hash(number)
    assert {number: "found"}[count] == "found"
    assert bool(count) is bool(number)
    assert (repr(count), str(count), f"{count:03d}") == (str(number), str(number), f"{number:03d}")
    assert json.dumps({"num_workers": count}) == json.dumps({"num_workers": number})
    assert type(count + 1) is int
    assert operator.index(count) == number
    assert list(range(count)) == list(range(number))
    assert np.arange(count).tolist() == list(range(number))
    assert torch.tensor(count).dtype == torch.int64
    assert max(count, -1) is count


@pytest.mark.parametrize("auto", [False, True])
def test_a_count_keeps_its_request_when_it_is_copied(auto: bool) -> None:
    count = WorkerCount(3, Requests(auto=auto))
    for again in (copy.copy(count), copy.deepcopy(count), pickle.loads(pickle.dumps(count)), count_of(count)):
        assert again == 3
        assert again.requests.auto is auto


def test_a_checkpoint_may_hold_a_count(tmp_path: Any) -> None:
    torch.save({"num_workers": WorkerCount(3)}, tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == {"num_workers": 3}


def test_numbers_of_other_kinds_are_counts_too() -> None:
    for number in (np.int64(1), True):
        loader = keepfed.DataLoader(Plain(8), batch_size=4, num_workers=number)
        assert isinstance(loader.num_workers, WorkerCount)
        assert isinstance(iter(loader), EpochIter)


def test_a_worker_sees_a_plain_number() -> None:
    for workers in (2, "auto"):
        batch = next(iter(keepfed.DataLoader(Counted(8), num_workers=workers, collate_fn=list)))
        assert batch == [int]


class Counted(Plain):
    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        return type(info.num_workers) if info is not None else None


def test_a_process_that_never_heard_of_keepfed_gets_ours_with_the_loader() -> None:
    """A spawned rank gets its loader as a pickle."""
    loader = as_torchs_own(keepfed.DataLoader(list(range(8)), batch_size=4, num_workers=1))
    text = (
        f"import sys, pickle; sys.path.insert(0, {str(SOURCE)!r}); loader = pickle.loads({pickle.dumps(loader)!r});"
        "iterator = iter(loader); print(type(iterator).__name__, sum(map(sum, iterator)).item())"
    )
    out = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=60).stdout
    assert out.split() == ["EpochIter", "28"]


# ---- loaders that go elsewhere --------------------------------------------------------------------------------------


class _OwnIter(torch_seam.BaseDataLoaderIter):  # type: ignore[misc]  # private base, typed as Any
    def _next_data(self) -> Any:
        return [self._next_index()]


class OwnIterators(TorchDataLoader[Any]):
    """As StatefulDataLoader: iterators of its own, which hold its state."""

    def _get_iterator(self) -> Any:
        return _OwnIter(self)


class FakeLoader:
    """As fastai: torch's iterators, by name, around what is no DataLoader."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def fake(loader: Any) -> Any:
    return torch_seam.SingleProcessDataLoaderIter(FakeLoader(loader))


@pytest.mark.parametrize("how", ["install", "its own count"])
def test_a_loader_with_iterators_of_its_own_keeps_them_and_that_is_said_once(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    count: Any = 1
    if how == "install":
        keepfed.install()
    else:
        count = keepfed.DataLoader(Plain(8), num_workers=1).num_workers
    loader = OwnIterators(Plain(8), batch_size=4, num_workers=count)
    with caplog.at_level(logging.WARNING, "keepfed"):
        for _ in range(2):
            assert len(list(itertools.islice(loader, 2))) == 2
    (line,) = [record.getMessage() for record in caplog.records if record.name == "keepfed"]
    assert line == "keepfed: tests.OwnIterators is left to torch: tests.OwnIterators makes iterators of its own."
    assert keepfed.stats(loader).fallback == "tests.OwnIterators makes iterators of its own"


def test_torchs_iterators_around_something_else_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    loader = TorchDataLoader(Plain(8), batch_size=4)
    keepfed.install("auto")
    with caplog.at_level(logging.WARNING, "keepfed"):
        assert indices(list(fake(loader))) == list(range(8))
    (line,) = [record.getMessage() for record in caplog.records if "iterators of its own" in record.getMessage()]
    assert "FakeLoader" in line


def test_nothing_is_said_of_loaders_that_ours_has_nothing_to_do_with(caplog: pytest.LogCaptureFixture) -> None:
    keepfed.DataLoader(Plain(8), num_workers=1)
    with caplog.at_level(logging.INFO, "keepfed"):
        list(itertools.islice(OwnIterators(Plain(8), num_workers=1), 2))
        keepfed.install()
        list(itertools.islice(OwnIterators(Plain(8)), 2))
        list(TorchDataLoader(Plain(8), batch_size=4, num_workers=1))
        list(TorchDataLoader(Plain(8), batch_size=4))
    assert not caplog.records


class Wrapped(TorchDataLoader[Any]):
    """As torch_geometric's NodeLoader: wraps what the base class returns."""

    def _get_iterator(self) -> Any:
        return map(operator.itemgetter(1), super()._get_iterator())


def test_a_subclass_that_wraps_the_base_class_iterator_wraps_ours() -> None:
    keepfed.install()
    loader = Wrapped(Plain(8), batch_size=4, num_workers=1)
    assert torch.cat(list(loader)).tolist() == list(range(8))
    assert keepfed.stats(loader).batches == 2


class Steerable(keepfed.DataLoader):
    """A program's own subclass of ours."""

    def __init__(self, *args: Any, extra: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra


def test_a_subclass_of_ours_is_ours() -> None:
    loader = Steerable(Plain(8), 4, num_workers=1, extra="kept")
    assert isinstance(iter(loader), EpochIter)
    assert pickled(loader).extra == "kept"
    zero = Steerable(Plain(8), 4, extra="kept")
    assert not isinstance(iter(zero), ZeroIter)
