"""What a program is told when making a batch fails: torch's type and words, and where in the data it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset, Subset

import keepfed.loader.api as keepfed
from keepfed.errors import StoppedEarly, WorkerDied
from keepfed.loader import blame, budget
from keepfed.loader.arena import SMALLEST_REGION
from keepfed.text import choose_language
from tests.loader.side_by_side import Numbers
from tests.loader.steered import steered


class Breaks(Dataset[Any]):
    """0, 1, 2, …, and at `at` whatever `how` does."""

    def __init__(self, how: Callable[[], Any], at: int = 5, length: int = 12) -> None:
        self.how, self.at, self.length = how, at, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.how() if index == self.at else index


def raising(error: BaseException) -> Callable[[], Any]:
    def how() -> Any:
        raise error

    return how


def outcomes(loader: Any) -> list[Any]:
    """Batches and exceptions of one epoch; the loop goes on after each."""
    seen: list[Any] = []
    iterator = iter(loader)
    while True:
        try:
            seen.append(next(iterator))
        except StopIteration:
            return seen
        except Exception as error:
            seen.append(error.with_traceback(None))


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def only_error(loader: Any) -> BaseException:
    (error,) = (seen for seen in outcomes(loader) if isinstance(seen, BaseException))
    return error


WORKERS = pytest.mark.parametrize("workers", [0, 2])

# ------------------------------------------------------------------------------------------------------------------- place


@WORKERS
def test_an_exception_says_dataset_batch_and_indices_in_a_note(workers: int) -> None:
    dataset = Breaks(raising(ValueError("broken")))
    error = only_error(keepfed.DataLoader(dataset, batch_size=4, num_workers=workers))
    assert type(error) is ValueError
    assert notes(error) == "keepfed: dataset Breaks, batch 1, indices [4, 5, 6, 7]"
    theirs = only_error(TorchDataLoader(dataset, batch_size=4, num_workers=workers))
    assert str(error).splitlines()[0] == str(theirs).splitlines()[0]


@WORKERS
def test_batches_after_a_broken_one_keep_their_numbers(workers: int) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            return 1 // (index % 2)

    found = outcomes(keepfed.DataLoader(Broken(6), batch_size=None, num_workers=workers))
    assert [notes(error).partition("batch ")[2] for error in found[::2]] == [
        "0, indices 0",
        "2, indices 2",
        "4, indices 4",
    ]


@WORKERS
def test_a_dataset_whose_length_lies_is_named_with_the_index(workers: int) -> None:
    class Lies(Numbers):
        def __getitem__(self, index: int) -> str:
            return "abc"[index]

    error = only_error(keepfed.DataLoader(Lies(4), batch_size=2, num_workers=workers))
    assert isinstance(error, IndexError)
    assert notes(error) == "keepfed: dataset Lies, batch 1, indices [2, 3]"


@WORKERS
def test_a_sampler_that_yields_a_wrong_index_is_named_with_it(workers: int) -> None:
    data: Any = torch.arange(4)
    found = outcomes(keepfed.DataLoader(data, batch_sampler=[[0, 1], [2, "x"], [3, 9]], num_workers=workers))
    assert torch.equal(found[0], torch.arange(2))
    assert notes(found[1]) == "keepfed: dataset Tensor, batch 1, indices [2, 'x']"
    assert notes(found[2]) == "keepfed: dataset Tensor, batch 2, indices [3, 9]"


def test_the_indices_of_a_subset_are_said_to_be_the_subsets_own() -> None:
    whole = Breaks(raising(ValueError("broken")))
    error = only_error(keepfed.DataLoader(Subset(whole, [9, 5]), batch_size=2, num_workers=1))
    assert notes(error) == "keepfed: dataset Subset(Breaks), batch 0, indices [0, 1]"


def test_a_thousand_indices_are_cut_and_an_index_without_a_text_is_named_by_its_type() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert len(blame.shown(list(range(1_000)))) < 310
    assert blame.shown(torch.tensor([3, 1])) == "[3, 1]"
    assert blame.shown(Mute()) == "<Mute>"


@WORKERS
def test_an_exception_that_cannot_be_shown_still_comes_out(workers: int) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    error = only_error(keepfed.DataLoader(Breaks(raising(Mute())), batch_size=6, num_workers=workers))
    assert isinstance(error, RuntimeError if workers else Mute)  # a class of this function cannot travel


def test_an_exception_of_an_iterable_dataset_has_a_place_without_indices() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            yield from range(4)
            raise ValueError("broken")

    error = only_error(keepfed.DataLoader(Stream(), batch_size=2))
    assert notes(error) == "keepfed: dataset Stream, batch 2"


def test_the_place_is_said_in_chinese_too() -> None:
    choose_language("zh")
    try:
        error = only_error(keepfed.DataLoader(Breaks(raising(ValueError())), batch_size=6, num_workers=1))
    finally:
        choose_language(None)
    assert notes(error) == "keepfed: 数据集 Breaks，批次 0，索引 [0, 1, 2, 3, 4, 5]"


def test_a_caught_exception_keeps_no_iterator_alive() -> None:
    """torch's does, until the next garbage collection: it is in a cycle with the frame that raised it."""
    iterator: Any = iter(keepfed.DataLoader(Breaks(raising(ValueError()), at=0), batch_size=6, num_workers=1))
    workers = iterator._workers
    with contextlib.suppress(ValueError):
        next(iterator)
    del iterator
    assert not workers[0].is_alive()


# ----------------------------------------------------------------------------------------------------------- StopIteration


def exhausted() -> Any:
    return next(iter(()))


def collate_that_stops(samples: list[Any]) -> Any:
    return exhausted() if 5 in samples else samples


@WORKERS
@pytest.mark.parametrize(
    "arguments",
    [
        {"dataset": Breaks(exhausted), "batch_size": 4},
        {"dataset": Numbers(12), "batch_size": 4, "collate_fn": collate_that_stops},
    ],
    ids=["getitem", "collate"],
)
def test_stop_iteration_out_of_a_batch_is_an_error_and_not_the_end(arguments: dict[str, Any], workers: int) -> None:
    assert len(list(TorchDataLoader(**arguments))) == 1, "torch's epoch ends there"
    found = outcomes(keepfed.DataLoader(num_workers=workers, **arguments))
    assert len(found) == 3
    name = type(arguments["dataset"]).__name__
    assert isinstance(found[1], StoppedEarly)
    assert isinstance(found[1], RuntimeError), "as in a generator"
    assert f"dataset {name}, batch 1, indices [4, 5, 6, 7]" in str(found[1])
    assert isinstance(found[1].__cause__, StopIteration)


@WORKERS
def test_stop_iteration_without_automatic_batching_is_an_error(workers: int) -> None:
    error = only_error(keepfed.DataLoader(Breaks(exhausted), batch_size=None, num_workers=workers))
    assert isinstance(error, StoppedEarly)
    assert "batch 5, indices 5" in str(error)


def test_stop_iteration_out_of_worker_init_fn_is_an_error() -> None:
    loader = keepfed.DataLoader(Numbers(2), num_workers=1, worker_init_fn=lambda _: exhausted())
    assert isinstance(outcomes(loader)[0], StoppedEarly)


def test_stop_iteration_out_of_unpickling_in_the_program_is_an_error() -> None:
    error = only_error(keepfed.DataLoader(Breaks(Unpacked), batch_size=None, num_workers=1))
    assert isinstance(error, StoppedEarly)
    assert "batch 5" in str(error)


class Unpacked:
    def __reduce__(self) -> Any:
        return exhausted, ()


def test_stop_iteration_is_an_error_for_loaders_of_torchs_class_too() -> None:
    keepfed.install()
    try:
        for workers in (0, 1):
            loader = TorchDataLoader(Breaks(exhausted), batch_size=4, num_workers=workers)
            assert isinstance(only_error(loader), StoppedEarly)
    finally:
        keepfed.uninstall()


@WORKERS
def test_stop_iteration_is_an_error_in_a_steered_loader_too(workers: int, tmp_path: Path) -> None:
    with steered(tmp_path) as host:
        error = only_error(host.iterator(TorchDataLoader(Breaks(exhausted), batch_size=4, num_workers=workers)))
        assert isinstance(error, StoppedEarly)
        assert "batch 1, indices [4, 5, 6, 7]" in str(error)


@WORKERS
def test_stop_iteration_of_the_sampler_is_the_end(workers: int) -> None:
    def three() -> Iterator[list[int]]:
        yield from ([0], [1], [2])

    class Sampler:
        def __iter__(self) -> Iterator[list[int]]:
            return three()

    assert len(outcomes(keepfed.DataLoader(Numbers(), batch_sampler=Sampler(), num_workers=workers))) == 3


def test_stop_iteration_of_a_stream_is_the_end() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(5))

    assert outcomes(keepfed.DataLoader(Stream(), batch_size=None)) == list(range(5))
    assert len(outcomes(keepfed.DataLoader(Stream(), batch_size=2))) == 3


def test_the_iterator_without_workers_is_torchs_for_those_who_look() -> None:
    iterator: Any = iter(keepfed.DataLoader(Numbers(4)))
    assert isinstance(iterator, torch.utils.data.dataloader._SingleProcessDataLoaderIter)
    assert type(iterator._dataset_fetcher).__name__ == "_MapDatasetFetcher"
    assert len(iterator) == 4


# -------------------------------------------------------------------------------------------------------------- not sent


def test_a_batch_that_cannot_be_pickled_names_dataset_index_and_batch_and_the_rest_comes() -> None:
    """torch prints it in the worker and waits for ever (pytorch issue 142884)."""
    found = outcomes(keepfed.DataLoader(Breaks(lambda: lambda: 0), batch_size=4, num_workers=2, collate_fn=list))
    assert [type(seen) for seen in found[::2]] == [list, list]
    assert "Can't pickle" in str(found[1])
    assert "batch of type list" in str(found[1])
    assert "dataset Breaks, batch 1, indices [4, 5, 6, 7]" in str(found[1])


def test_an_index_that_cannot_be_pickled_is_named() -> None:
    """torch waits for ever."""
    iterator: Any = iter(keepfed.DataLoader(Numbers(), batch_sampler=[[0], [1], [2], [lambda: 0]], num_workers=1))
    assert next(iterator).tolist() == [0]
    with pytest.raises(Exception, match="pickle") as caught:
        next(iterator)
    assert "dataset Numbers, batch 3, indices [<function" in notes(caught.value)


def test_a_batch_that_does_not_fit_names_dataset_index_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(budget.shared), "region_bytes", lambda *_: SMALLEST_REGION)
    wide = np.frombuffer(mmap.mmap(-1, SMALLEST_REGION + 1), np.uint8)  # takes no memory: nobody writes there
    found = outcomes(keepfed.DataLoader(Breaks(lambda: wide), batch_size=4, num_workers=1, collate_fn=list))
    assert [type(seen) for seen in found] == [list, MemoryError, list]
    assert "address space" in str(found[1])
    assert "dataset Breaks, batch 1, indices [4, 5, 6, 7]" in str(found[1])


def test_an_exception_class_that_exists_in_the_worker_only_comes_as_its_text() -> None:
    class Local(Exception):
        pass

    error = only_error(keepfed.DataLoader(Breaks(raising(Local("here"))), batch_size=6, num_workers=1))
    assert type(error) is RuntimeError
    assert "Local: here" in str(error)
    assert "dataset Breaks, batch 0" in str(error)


# ------------------------------------------------------------------------------------------------------ workers that leave


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: sys.exit(3), r"with exit code 3 \(SystemExit: 3\)"),
        (raising(asyncio.CancelledError("stop")), r"with exit code 1 \(CancelledError: stop\)"),
    ],
)
def test_a_worker_that_the_dataset_ends_says_why_and_with_what_in_hand(how: Callable[[], Any], said: str) -> None:
    loader = keepfed.DataLoader(Breaks(how), batch_size=4, num_workers=1)
    with pytest.raises(WorkerDied, match=rf"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly {said}") as caught:
        list(loader)
    assert "dataset Breaks, batch 1, indices [4, 5, 6, 7]" in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- nothing


def skip_broken(samples: list[Any]) -> Any:
    return samples if samples[0] else None


@WORKERS
def test_a_batch_that_is_none_is_delivered_and_said_once(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    loader = keepfed.DataLoader(
        Numbers(6), batch_sampler=[[1], [0], [2], [0]], num_workers=workers, collate_fn=skip_broken
    )
    with caplog.at_level(logging.WARNING, "keepfed"):
        for _ in range(2):
            assert list(loader) == [[1], None, [2], None]
    (record,) = caplog.records
    assert "a batch is None (dataset Numbers, batch 1, indices [0])" in record.getMessage()
