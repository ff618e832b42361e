"""Datapipes: shuffled and sharded by torch's own hand, from the same draws, in the program and in its workers."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import dataloader, get_worker_info

import keepfed.loader.api as keepfed
from keepfed.loader.epoch import EpochIter
from tests.loader.side_by_side import Diary, assert_same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch announces since 2.4 that it may drop them
    from torch.utils.data.datapipes.iter import IterableWrapper
    from torch.utils.data.datapipes.map import SequenceWrapper

LoaderClass = type[TorchDataLoader[Any]]


def with_draws(sample: Any) -> Any:
    info = get_worker_info()
    assert info is not None
    return sample, random.random(), torch.rand(2), info.id, info.seed


def shuffled() -> Any:
    return IterableWrapper(range(30)).shuffle(buffer_size=20).sharding_filter().map(with_draws)


def unsharded() -> Any:
    return IterableWrapper(range(7)).map(with_draws)


def forked() -> Any:
    """Two branches of one source, each shuffled, zipped again."""
    one, two = IterableWrapper(range(16)).sharding_filter().fork(2)
    return one.shuffle().zip(two.shuffle()).map(with_draws)


def mapped() -> Any:
    return SequenceWrapper(range(20)).map(with_draws)


@pytest.mark.parametrize("pipe", [shuffled, unsharded, forked], ids=lambda pipe: pipe.__name__)
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_of_an_iterable_datapipe_are_the_same(pipe: Callable[[], Any], persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(pipe(), batch_size=4, num_workers=2, persistent_workers=persistent)
        for _ in range(2):
            diary.read(loader)

    assert_same(program)


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_shuffle_argument_and_an_own_generator_are_heeded_alike(shuffle: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        generator = torch.Generator().manual_seed(5)
        loader = cls(shuffled(), batch_size=None, shuffle=shuffle, num_workers=2, generator=generator)
        for batch in loader:
            diary.note("batch", [batch, generator.get_state()])

    assert_same(program)


def test_an_epoch_that_was_left_half_way_and_the_next_are_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(shuffled(), batch_size=1, num_workers=2, persistent_workers=True)
        diary.read(loader, at_most=3)
        diary.read(loader)

    assert_same(program)


def test_a_datapipe_in_spawned_workers_is_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        method = "spawn" if cls is keepfed.DataLoader else "fork"
        diary.read(cls(shuffled(), batch_size=4, num_workers=2, multiprocessing_context=method))

    assert_same(program)


def test_a_map_datapipe_is_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(mapped(), batch_size=3, shuffle=True, num_workers=2))

    assert_same(program)


def _seen_before(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    random.seed(worker_id)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_and_workers_share_the_samples_out_before_the_programs_own_worker_init_fn(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataloader, "_get_distributed_settings", lambda: (2, rank))

    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(shuffled(), batch_size=4, num_workers=2, worker_init_fn=_seen_before))

    assert_same(program)


def test_every_sample_of_a_sharded_datapipe_comes_once_on_our_transport() -> None:
    loader = keepfed.DataLoader(shuffled(), batch_size=4, num_workers=2)
    iterator = iter(loader)
    assert isinstance(iterator, EpochIter)
    assert sorted(int(sample) for batch in iterator for sample in batch[0]) == list(range(30))
    assert loader.stats().fallback == ""
