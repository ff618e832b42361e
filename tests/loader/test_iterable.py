"""Iterable datasets: every worker reads its own stream to its end, and all that a program can see of it is torch's."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ChainDataset, IterableDataset, get_worker_info
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from keepfed.loader.epoch import EpochIter
from tests.loader.processes import wait_until, watching
from tests.loader.side_by_side import Diary, assert_same, diary_of

LoaderClass = type[TorchDataLoader[Any]]
PATIENCE_S = 20.0


class Uneven(IterableDataset[Any]):
    """A stream of another length in each worker, with what the worker draws and knows."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        for number in range(self.lengths[info.id]):
            yield {
                "number": number,
                "epoch": self.epoch,
                "image": torch.rand(150, 150),
                "draws": (torch.randint(0, 9, (3,)), random.random(), np.random.rand(2)),
                "worker": (info.id, info.num_workers, info.seed, torch.initial_seed()),
            }


class Counted(IterableDataset[Any]):
    """Numbers up to a length that it tells, the same in every worker."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __repr__(self) -> str:
        return "Counted()"

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


class Shard(IterableDataset[Any]):
    """Every worker's share of the numbers."""

    def __init__(self, length: int) -> None:
        self.numbers = range(length)

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        assert info is not None
        return iter(self.numbers[info.id :: info.num_workers])


@pytest.mark.parametrize(("batch_size", "drop_last"), [(1, False), (3, False), (3, True)])
def test_streams_of_different_lengths_end_as_in_torch(batch_size: int, drop_last: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Uneven(0, 4, 10), batch_size=batch_size, drop_last=drop_last, num_workers=3))

    assert_same(program)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_any_prefetch_factor_and_no_batching_are_the_same(prefetch: int) -> None:
    lengths, batch_size = ((5, 1), None) if prefetch == 1 else ((2, 9), 2)

    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Uneven(*lengths), batch_size=batch_size, prefetch_factor=prefetch, num_workers=2))

    assert_same(program)


def test_more_workers_than_samples_and_empty_streams_are_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Shard(2), batch_size=2, num_workers=4))
        diary.read(cls(Shard(0), batch_size=2, num_workers=2))

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_with_draws_of_the_program_in_between_are_the_same(persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        dataset = Uneven(3, 0, 5)
        loader = cls(dataset, batch_size=2, num_workers=3, persistent_workers=persistent)
        for epoch in range(3):
            dataset.epoch = epoch
            for batch in loader:
                diary.note("batch", batch)
                torch.rand(1)
            diary.note("end")

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("read", [0, 3])
def test_an_epoch_that_was_left_half_way_is_the_same_and_so_is_the_next(read: int, persistent: bool) -> None:
    """The streams are long enough that no worker is at its end when the program leaves: from there on torch's is a race."""

    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Uneven(20, 30), batch_size=2, num_workers=2, persistent_workers=persistent)
        diary.read(loader, at_most=read)
        diary.read(loader)

    assert_same(program)


def test_an_epoch_that_was_left_before_the_turn_of_an_end_that_has_come_can_be_followed_by_another() -> None:
    """The third task is the first worker's second, and its answer is "no more"; the program has read one batch."""
    loader = keepfed.DataLoader(Shard(2), batch_size=None, num_workers=2, prefetch_factor=3, persistent_workers=True)
    iterator: Any = iter(loader)
    next(iterator)
    wait_until(lambda: _end_is_here(iterator._crew), "no end came")
    assert list(loader) == list(loader) == [0, 1]


def _end_is_here(crew: Any) -> bool:
    crew.roster.pool().hear(0.1)
    crew._intake.take_in(crew._order, crew._epoch)
    return any(task.ends for task in crew._order.tasks.values())


def test_streams_of_spawned_workers_are_the_same() -> None:
    """torch's forked workers give the same batches as its spawned ones, and are there sooner."""

    def program(cls: LoaderClass, diary: Diary) -> None:
        method = "spawn" if cls is keepfed.DataLoader else "fork"
        diary.read(cls(Uneven(1, 4), batch_size=2, num_workers=2, multiprocessing_context=method))

    assert_same(program)


def test_two_iterators_of_one_loader_run_side_by_side() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Uneven(3, 5), batch_size=2, num_workers=2)
        for pair in zip(loader, loader, strict=True):
            diary.note("pair", pair)

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
def test_after_the_end_the_end_comes_again(persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        iterator = iter(cls(Uneven(1, 3), batch_size=2, num_workers=2, persistent_workers=persistent))
        for _ in range(6):
            diary.note("next", next(iterator, "end"))

    assert_same(program)


def test_chained_datasets_are_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(ChainDataset([Counted(5), Uneven(1, 2), Counted(2)]), batch_size=None, num_workers=2))
        diary.read(cls(Counted(5) + Counted(4), batch_size=2, num_workers=1))

    assert_same(program)


def _take_a_share(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    dataset: Any = info.dataset
    dataset.lengths = [(worker_id + 1) * info.num_workers] * info.num_workers
    torch.rand(worker_id)


def test_a_worker_init_fn_that_shards_the_dataset_does_so_before_it_is_iterated() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Uneven(0, 0), batch_size=3, num_workers=2, worker_init_fn=_take_a_share))

    assert_same(program)


@pytest.mark.parametrize("samples", [32, 1])
def test_samples_by_the_kind_of_batch_are_the_same(samples: int) -> None:
    """Without automatic batching a worker's batch is whatever the dataset yields."""

    class Batches(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            for size in (samples, 2 * samples):
                yield np.full((size, 700), size), {"names": ["a", "b"], "bytes": b"1" * size}
                yield torch.full((size, 700), size).expand(3, size, 700), None

    assert_same(lambda cls, diary: diary.read(cls(Batches(), batch_size=None, num_workers=2)))


# ------------------------------------------------------------------------------------------------------------------ errors


class Stumbles(IterableDataset[Any]):
    """Raises at one sample, and goes on when asked again."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Stumbles:
        self.number = 0
        return self

    def __next__(self) -> int:
        self.number += 1
        if self.number == 3:
            raise self.error
        if self.number == 9:
            raise StopIteration
        return self.number


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("a\nb")], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_an_error_of_the_dataset_comes_in_its_place_and_the_rest_goes_on(
    error: Exception, batch_size: int | None
) -> None:
    assert_same(lambda cls, diary: diary.read(cls(Stumbles(error), batch_size=batch_size, num_workers=2), raises=True))


class Unwilling(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise OSError("no such shard")


def test_a_dataset_that_cannot_be_iterated_says_so_with_the_first_batch() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Unwilling(), batch_size=2, num_workers=2), at_most=2, raises=True)

    assert_same(program)


def test_an_error_in_one_worker_leaves_the_streams_of_the_others_alone() -> None:
    class OneBreaks(Uneven):
        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            assert info is not None
            yield from super().__iter__()
            if info.id == 1:
                raise ValueError("unreadable shard")

    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(OneBreaks(4, 1, 6), batch_size=1, num_workers=3), raises=True)

    assert_same(program)


class Silent(IterableDataset[Any]):
    """One sample, and then nothing until somebody writes into the pipe."""

    def __init__(self, gate: int) -> None:
        self.gate = gate

    def __iter__(self) -> Iterator[int]:
        yield 0
        os.read(self.gate, 1)
        yield 1


def test_a_stream_that_falls_silent_runs_into_the_timeout_and_goes_on_afterwards() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        reader, writer = os.pipe()
        iterator = iter(cls(Silent(reader), batch_size=None, num_workers=1, timeout=0.5))
        diary.note("batch", next(iterator))
        try:
            next(iterator)
        except RuntimeError as error:
            diary.error(error)
        os.write(writer, b"1")
        while (batch := _patient(iterator)) != "end":
            diary.note("batch", batch)
        os.close(reader)
        os.close(writer)

    assert_same(program)


def _patient(iterator: Any) -> Any:
    """The next batch, however often the timeout of half a second strikes on a busy machine."""
    for _ in range(40):
        try:
            return next(iterator, "end")
        except RuntimeError:
            continue
    raise AssertionError("nothing comes")


# ---------------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize("persistent", [False, True])
def test_more_samples_than_the_length_said_warn_in_torchs_words(persistent: bool) -> None:
    """Once somebody has asked for the length, from the next epoch on. torch compares samples with batches."""

    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Counted(4), batch_size=None, num_workers=2, persistent_workers=persistent)
        diary.read(loader)
        diary.note("length", len(loader))
        diary.read(loader)

    warned = [text for _, text in diary_of(program, keepfed.DataLoader)[1]]
    assert len([text for text in warned if "samples have been fetched. For multiprocessing" in text]) == 4
    assert_same(program)


def test_the_warning_names_the_programs_own_line() -> None:
    loader = keepfed.DataLoader(Counted(1), batch_size=None, num_workers=2)
    assert len(loader) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(loader) == [0, 0]
    assert [warning.filename for warning in caught] == [__file__]


# --------------------------------------------------------------------------------------------------------------- processes


def test_a_worker_whose_stream_has_ended_ends_while_the_others_go_on() -> None:
    reader, writer = os.pipe()

    class Gated(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            info = get_worker_info()
            assert info is not None
            if info.id == 1:
                yield 0
                os.read(reader, 1)
                yield 1

    iterator: Any = iter(keepfed.DataLoader(Gated(), batch_size=None, num_workers=2))
    first, second = iterator._workers
    assert isinstance(iterator, EpochIter)
    assert next(iterator) == 0
    first.join(PATIENCE_S)
    assert (first.is_alive(), first.exitcode, second.is_alive()) == (False, 0, True)
    os.write(writer, b"1")
    assert list(iterator) == [1]
    assert [(worker.is_alive(), worker.exitcode) for worker in iterator._workers] == [(False, 0)] * 2
    os.close(reader)
    os.close(writer)


def test_persistent_workers_stay_when_their_streams_have_ended() -> None:
    loader = keepfed.DataLoader(Shard(5), batch_size=None, num_workers=2, persistent_workers=True)
    iterator: Any = iter(loader)
    with watching([worker.pid for worker in iterator._workers]) as processes:
        for _ in range(3):
            assert list(loader) == [0, 1, 2, 3, 4]
            assert len(processes.alive()) == 2
        del iterator, loader
        assert not processes.left_after(PATIENCE_S)


def test_what_is_held_of_a_worker_that_has_ended_stays_as_it_was() -> None:
    """Its region is not handed on to a worker of the next epoch while the program holds a part of it."""

    class Large(IterableDataset[Any]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            info = get_worker_info()
            assert info is not None
            for number in range(1 + 5 * info.id):
                yield torch.full((60_000,), info.id * 100 + number)

    loader = keepfed.DataLoader(Large(), batch_size=None, num_workers=2)
    held = [batch for _ in range(3) for batch in loader]
    assert [int(batch[0]) for batch in held] == [0, 100, 101, 102, 103, 104, 105] * 3
    assert all(bool((batch == batch[0]).all()) for batch in held)


# ----------------------------------------------------------------------------------------------------------- without order


def test_without_order_one_worker_is_torchs() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Uneven(7), batch_size=2, num_workers=1, in_order=False))

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
def test_without_order_every_worker_reads_its_stream_to_the_end(persistent: bool) -> None:
    """Which worker is quicker is a race; what each of them makes is not."""

    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Uneven(2, 0, 9), batch_size=2, num_workers=3, in_order=False, persistent_workers=persistent)
        for _ in range(2):
            batches = sorted(loader, key=lambda batch: (int(batch["worker"][0][0]), int(batch["number"][0])))
            diary.note("batches", batches)

    assert_same(program)


def test_without_order_a_slow_stream_holds_nobody_up() -> None:
    reader, writer = os.pipe()

    class SlowFirst(IterableDataset[Any]):
        def __iter__(self) -> Iterator[tuple[int, int]]:
            info = get_worker_info()
            assert info is not None
            if info.id == 0:
                os.read(reader, 1)
            for number in range(6):
                yield info.id, number

    loader = keepfed.DataLoader(SlowFirst(), batch_size=None, num_workers=2, prefetch_factor=1, in_order=False)
    iterator = iter(loader)
    assert [next(iterator) for _ in range(6)] == [[1, number] for number in range(6)]
    os.write(writer, b"1")
    assert list(iterator) == [[0, number] for number in range(6)]
    os.close(reader)
    os.close(writer)
