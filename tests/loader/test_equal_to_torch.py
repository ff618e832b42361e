"""With an integer num_workers, keepfed's loader is torch's: batches, and the random state of the program around them."""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, Dataset, RandomSampler, SequentialSampler, TensorDataset, default_collate
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from tests.loader.side_by_side import Diary, Noisy, Numbers, Restless, assert_same, diary_of

LoaderClass = type[TorchDataLoader[Any]]


# ---------------------------------------------------------------------------------------------------------------- samplers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_shuffled_epoch_is_the_same(workers: int) -> None:
    assert_same(lambda cls, diary: diary.read(cls(Noisy(), batch_size=4, shuffle=True, num_workers=workers)))


@pytest.mark.parametrize("prefetch", [1, 3, 9])
def test_any_prefetch_factor_reads_the_sampler_as_far_ahead_as_torch(prefetch: int) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        sampler = Restless(6, batch=3)
        loader = cls(Noisy(), batch_sampler=sampler, num_workers=2, prefetch_factor=prefetch)
        for _ in range(2):
            iterator = iter(loader)
            diary.note("iter", (sampler.iters, sampler.steps))
            for batch in iterator:
                diary.note("batch", [batch, sampler.iters, sampler.steps])
            diary.note("end", (sampler.iters, sampler.steps))

    assert_same(program)


def test_an_own_generator_is_drawn_from_alike() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        generator = torch.Generator().manual_seed(7)
        loader = cls(Noisy(), batch_size=4, shuffle=True, num_workers=2, generator=generator)
        for _ in range(2):
            for batch in loader:
                diary.note("batch", [batch, generator.get_state()])

    assert_same(program)


def test_a_sampler_with_replacement_and_drop_last_are_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        sampler = RandomSampler(Noisy(), replacement=True, num_samples=70)
        diary.read(cls(Noisy(), batch_size=4, sampler=sampler, drop_last=True, num_workers=2))

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_sampler_that_draws_when_iterated_is_iterated_as_often(persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        sampler = Restless(7)
        loader = cls(Noisy(), sampler=sampler, batch_size=None, num_workers=2, persistent_workers=persistent)
        for _ in range(3):
            diary.read(loader)
            diary.note("sampler", (sampler.iters, sampler.steps))

    assert_same(program)


def test_a_sampler_inside_a_batch_sampler_is_the_same() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        sampler = BatchSampler(RandomSampler(range(11)), batch_size=3, drop_last=False)
        diary.read(cls(Noisy(), batch_sampler=sampler, num_workers=2))

    assert_same(program)


class _OnlyNext:
    """What `__iter__` of a careless sampler returns: it has `__next__` and nothing else."""

    def __init__(self) -> None:
        self.left = 5

    def __next__(self) -> list[int]:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return [self.left]


class _CarelessSampler:
    def __iter__(self) -> Any:
        return _OnlyNext()


def test_a_sampler_whose_iterator_cannot_be_iterated_works_as_in_torch() -> None:
    assert_same(lambda cls, diary: diary.read(cls(Noisy(), batch_sampler=_CarelessSampler(), num_workers=2)))


class _Stumbles:
    """Raises in the middle, and goes on when asked again."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __iter__(self) -> _Stumbles:
        self.number = 0
        return self

    def __next__(self) -> list[int]:
        self.number += 1
        torch.rand(1)
        if self.number == self.at:
            raise OSError("the list of samples is on a drive that is gone")
        if self.number > 14:
            raise StopIteration
        return [self.number, self.number + 1]


@pytest.mark.parametrize("at", [5, 6, 8, 13])
def test_a_sampler_that_raises_raises_there_and_the_rest_is_the_same(at: int) -> None:
    assert_same(lambda cls, diary: diary.read(cls(Noisy(), batch_sampler=_Stumbles(at), num_workers=2), raises=True))


def test_a_sampler_that_raises_in_iter_raises_in_iter() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        try:
            iter(cls(Noisy(), batch_sampler=_Stumbles(2), num_workers=2))
        except OSError as error:
            diary.error(error)

    assert_same(program)


_SHARER = "torch's own resource sharer serves tensors in indices from a thread, for good"


@pytest.mark.parametrize("kind", [tuple, torch.tensor, list])
@pytest.mark.leaves("threads", reason=_SHARER)
@pytest.mark.leaves("descriptors", reason=_SHARER)
def test_the_dataset_gets_what_the_batch_sampler_yields(kind: Any) -> None:
    class Echo(Numbers):
        def __getitems__(self, indices: Any) -> list[Any]:
            return [[type(indices).__name__], [int(index) for index in indices]]

    def program(cls: LoaderClass, diary: Diary) -> None:
        batches = [kind([3, 1]), kind([2, 0]), kind([5, 4])]
        diary.read(cls(Echo(), batch_sampler=batches, num_workers=2, collate_fn=list))

    assert_same(program)


def test_slices_and_strings_reach_a_dataset_without_automatic_batching() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Numbers(), batch_size=None, sampler=[slice(0, 3), "key", (1, 2), 4], num_workers=2))

    assert_same(program)


# ------------------------------------------------------------------------------------------------------------------ epochs


@pytest.mark.parametrize("persistent", [False, True])
def test_several_epochs_with_draws_of_the_program_between_batches_are_the_same(persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        dataset = Noisy()
        loader = cls(dataset, batch_size=4, shuffle=True, num_workers=2, persistent_workers=persistent)
        for epoch in range(3):
            dataset.epoch = epoch  # seen by workers that are forked anew, and not by persistent ones
            for batch in loader:
                diary.note("batch", [batch, torch.rand(2), random.random(), np.random.rand()])

    assert_same(program)


@pytest.mark.parametrize("read", [0, 1, 2, 3, 5])
def test_an_epoch_that_was_left_half_way_leaves_persistent_workers_where_torch_does(read: int) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=2, shuffle=True, num_workers=2, persistent_workers=True, prefetch_factor=3)
        diary.read(loader, at_most=read)
        diary.read(loader, at_most=read)
        diary.read(loader)

    assert_same(program)


def test_an_iterator_dropped_half_way_changes_nothing_after_it() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=4, shuffle=True, num_workers=2)
        iterator = iter(loader)
        diary.note("first", next(iterator))
        del iterator
        diary.read(loader)

    assert_same(program)


def test_two_iterators_of_one_loader_and_of_two_loaders_run_side_by_side() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=4, shuffle=True, num_workers=2)
        diary.read(zip(loader, loader, strict=True))
        persistent = cls(Noisy(), batch_size=6, num_workers=1, persistent_workers=True)
        diary.read(zip(loader, persistent, strict=False))
        diary.read(persistent)

    assert_same(program)


@pytest.mark.parametrize("persistent", [False, True])
def test_after_the_end_the_end_comes_again(persistent: bool) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(4), batch_size=4, num_workers=1, persistent_workers=persistent)
        iterator = iter(loader)
        diary.note("batch", next(iterator))
        for _ in range(2):
            diary.note("after the end", next(iterator, "nothing"))
        diary.note("rest", list(iterator))

    assert_same(program)


def test_an_empty_dataset_gives_no_batch() -> None:
    assert_same(lambda cls, diary: diary.read(cls(Noisy(0), batch_size=4, num_workers=2)))


def test_settings_changed_after_construction_count_from_the_next_iter() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=4, num_workers=1)
        diary.read(loader)
        loader.num_workers, loader.prefetch_factor, loader.collate_fn = 2, 3, list
        loader.worker_init_fn, loader.generator = _reseed_worker, torch.Generator().manual_seed(3)
        diary.read(loader)

    assert_same(program)


def test_without_order_the_same_batches_come_out() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Numbers(), batch_size=4, shuffle=True, num_workers=3, in_order=False)
        batches = []
        for batch in loader:
            diary.note("state")
            batches.append(batch.tolist())
        diary.note("batches", sorted(batches))

    assert_same(program)


# ----------------------------------------------------------------------------------------------------------------- workers


def _reseed_worker(worker_id: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    info.dataset.epoch = [worker_id, torch.initial_seed(), info.seed]  # type: ignore[attr-defined]  # Noisy has it
    np.random.seed(info.seed % 2**32)


def test_worker_init_fn_runs_after_seeding_with_the_worker_info_in_place() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=4, num_workers=3, worker_init_fn=_reseed_worker, persistent_workers=True)
        diary.read(loader)
        diary.read(loader)

    assert_same(program)


def _fail_in_second(worker_id: int) -> None:
    if worker_id == 1:
        raise OSError("no such device")


def test_an_error_in_worker_init_fn_comes_with_the_first_batch_of_that_worker() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=4, num_workers=2, worker_init_fn=_fail_in_second)
        diary.read(loader, at_most=2, raises=True)

    assert_same(program)


def test_timeout_raises_torchs_words_and_the_batch_still_comes() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            time.sleep(0.6 if index == 0 else 0)
            return index

    def program(cls: LoaderClass, diary: Diary) -> None:
        iterator = iter(cls(Slow(4), batch_size=2, num_workers=1, timeout=0.2))
        try:
            next(iterator)
        except RuntimeError as error:
            diary.error(error)
        while True:  # how often it times out is a matter of the machine
            try:
                diary.note("batch", next(iterator))
                break
            except RuntimeError:
                continue
        diary.read(iterator)

    assert_same(program)


def test_length_type_and_size_of_the_iterator_are_torchs() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(), batch_size=5, num_workers=2, drop_last=True)
        iterator: Any = iter(loader)
        diary.note("lengths", (len(loader), len(iterator), len(iterator._workers), iterator._num_workers))
        diary.note("type", isinstance(iterator, torch.utils.data.dataloader._MultiProcessingDataLoaderIter))
        try:
            pickle.dumps(iterator)
        except NotImplementedError as error:
            diary.note("pickled", str(error).replace(type(iterator).__name__, "Iterator"))

    assert_same(program)


def test_warnings_are_torchs() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Noisy(4), batch_size=4, num_workers=40, prefetch_factor=1, pin_memory=True)
        diary.note("made")
        loader.num_workers = 2
        diary.read(loader)

    if not torch.accelerator.is_available():
        assert diary_of(program, keepfed.DataLoader)[1]
    assert_same(program)


# ------------------------------------------------------------------------------------------------------------------ errors


class _NeedsTwo(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class _HasMessage(Exception):
    def __init__(self, message: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


_ERRORS = [
    ValueError("sample 5 is broken"),
    KeyError("missing\nkey"),
    IndexError(5),
    _NeedsTwo(1, 2),
    _HasMessage("with a message", 3),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    AssertionError(),
]


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_the_dataset_has_torchs_type_and_text_and_the_rest_goes_on(error: Exception) -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index in {5, 17}:
                raise error
            return super().__getitem__(index)

    def program(cls: LoaderClass, diary: Diary) -> None:
        diary.read(cls(Broken(), batch_size=2, num_workers=2), raises=True)

    assert_same(program)


def test_an_error_comes_after_the_draw_of_the_batch_behind_it() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            return index // (index - 3)

    def program(cls: LoaderClass, diary: Diary) -> None:
        sampler = Restless(24, batch=2)
        iterator = iter(cls(Broken(), batch_sampler=sampler, num_workers=2))
        for _ in range(24):
            try:
                diary.note("batch", next(iterator))
            except ZeroDivisionError as error:
                diary.error(error)
            diary.note("steps", sampler.steps)

    assert_same(program)


def test_samples_that_cannot_be_stacked_fail_in_torchs_words() -> None:
    class Ragged(Numbers):
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.zeros(4_000 + index)

    class Odd(Numbers):
        def __getitem__(self, index: int) -> object:
            return object()

    class Graph(Numbers):
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.zeros(3_000, requires_grad=True) * 2

    def program(cls: LoaderClass, diary: Diary) -> None:
        for dataset in (Ragged(4), Odd(4), Graph(4)):
            diary.read(cls(dataset, batch_size=2, num_workers=1), raises=True)

    assert_same(program)


# ----------------------------------------------------------------------------------------------------------------- collate


class _Samples(Dataset[Any]):
    """Every kind of sample that default_collate knows or refuses; a batch of each."""

    kinds: tuple[Any, ...] = (
        lambda i: torch.full((50, 60), float(i)),
        lambda i: torch.arange(12_000, dtype=torch.uint8).view(3, 4_000),
        lambda i: np.full((40, 70), i, np.float64),
        np.float32,
        lambda i: i / 3,
        lambda i: i,
        lambda i: f"name {i}",
        lambda i: b"bytes",
        lambda i: (i, torch.tensor(i)),
        lambda i: {"a": torch.zeros(9_000), "b": [i, i + 1]},
        lambda i: torch.zeros(5_000, 2).t(),
        lambda i: torch.zeros(0, 3),
        lambda i: torch.ones(4_000, dtype=torch.bfloat16),
        lambda i: torch.ones(3_000, dtype=torch.bool),
        lambda i: torch.ones(2_000, dtype=torch.complex64),
        lambda i: torch.randn(30).to_sparse(),
        lambda i: torch.zeros(3_000, requires_grad=True),
        lambda i: torch.zeros(3_000).expand(20, 3_000),
        lambda i: True,
        lambda i: torch.tensor(1j).repeat(2_000).conj(),
        lambda i: torch.zeros(5, 2, 3).permute(2, 0, 1),
        lambda i: torch.zeros(4, 4, 1).permute(2, 0, 1),
        lambda i: torch.zeros(3, dtype=torch.float32 if i % 4 == 0 else torch.float64),
        lambda i: torch.zeros(3, dtype=torch.int64 if i % 4 == 0 else torch.float64),
        lambda i: torch.zeros(3, requires_grad=i % 4 > 0),
        lambda i: torch.zeros(1) if i % 4 == 0 else torch.nn.Parameter(torch.zeros(1), requires_grad=False),
    )

    def __len__(self) -> int:
        return 4 * len(self.kinds)

    def __getitem__(self, index: int) -> Any:
        return self.kinds[index // 4](index)


def test_default_collate_gives_the_same_types_dtypes_and_strides() -> None:
    assert_same(lambda cls, diary: diary.read(cls(_Samples(), batch_size=4, num_workers=1), raises=True))


def test_tensor_datasets_and_custom_collates_are_the_same() -> None:
    def collate(samples: list[Any]) -> dict[str, Any]:
        x, y = default_collate(samples)
        x = x + torch.rand(1)
        return {
            "x": x.to(memory_format=torch.channels_last),
            "alias": x[1:, 0],
            "crop": x[:, :, 2:9, 3:],
            "wide": torch.rand(1).expand(1_000, 1_000),
            "y": y.numpy(),
            "pair": (x.permute(1, 0, 2, 3), y.view(-1, 1)),
            "scalar": y.sum(),
            "leaf": torch.nn.Parameter(torch.rand(5_000)),
            "none": None,
        }

    def program(cls: LoaderClass, diary: Diary) -> None:
        dataset = TensorDataset(torch.rand(24, 3, 32, 32), torch.arange(24))
        loader = cls(dataset, sampler=SequentialSampler(dataset), batch_size=8, num_workers=2, collate_fn=collate)
        for batch in loader:
            batch.pop("alias")  # its storage offset is smaller here, see test_codec
            batch.pop("crop")
            diary.note("batch", batch)

    assert_same(program)


class _Reader:
    """Counts how often it is read."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0], [1], [2])


def test_a_loader_reads_a_plain_iterable_as_batch_sampler() -> None:
    assert_same(lambda cls, diary: diary.read(cls(Noisy(), batch_sampler=_Reader(), num_workers=2)))
