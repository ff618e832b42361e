"""What a loader leaves alone in the training process: no thread is added, and threads may use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from keepfed.errors import LoaderError
from keepfed.loader.epoch import EpochIter
from keepfed.loader.zero import ZeroIter
from tests.loader.steered import Plain, decide, indices


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    keepfed.uninstall()


def threads() -> tuple[set[str], set[str]]:
    """Python's threads of this process, and the kernel's."""
    return {thread.name for thread in threading.enumerate()}, set(os.listdir("/proc/self/task"))


class Planes(Plain):
    def __getitem__(self, index: int) -> Any:
        return torch.full((1 << 16,), float(index)), index


def without_workers() -> Any:
    keepfed.install("auto")
    return TorchDataLoader(Planes(), batch_size=4)


def ours(**arguments: Any) -> Any:
    return keepfed.DataLoader(Planes(), batch_size=4, **arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ours(num_workers=2),
        lambda: ours(num_workers=2, persistent_workers=True),
        lambda: ours(num_workers=2, timeout=30),
        lambda: ours(num_workers=2, in_order=False),
        lambda: ours(num_workers="auto"),
        lambda: ours(num_workers="auto", persistent_workers=True),
        without_workers,
    ],
    ids=["fixed", "persistent", "timeout", "out of order", "auto", "auto persistent", "steered without workers"],
)
def test_no_kind_of_loader_adds_a_thread_to_the_training_process(make: Any) -> None:
    list(make())  # pools of torch's own are made by whatever comes first
    before = threads()
    loader = make()
    for _ in range(2):
        iterator = iter(loader)
        assert isinstance(iterator, EpochIter | ZeroIter)
        assert threads() == before
        got = [next(iterator)]
        if isinstance(iterator, ZeroIter):
            decide(iterator)
        for batch in iterator:
            assert threads() == before
            got.append(batch)
        assert sorted(indices(got)) == list(range(64))
        del iterator
    assert threads() == before


def test_an_iterator_made_in_one_thread_is_read_in_another() -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        iterator = elsewhere.submit(lambda: iter(ours(num_workers=2))).result()
        first = next(iterator)
        second = elsewhere.submit(next, iterator).result()
    # The thread that made it has ended; a worker that the kernel ties to it would die now.
    assert indices([first, second, *iterator]) == list(range(64))


def test_next_from_two_threads_at_once_is_a_clear_error_and_loses_no_batch() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Waiting:
        def __iter__(self) -> Iterator[list[int]]:
            for number in range(0, 64, 4):
                if number == 16 and threading.current_thread() is not threading.main_thread():
                    entered.set()
                    assert go_on.wait(20)
                yield [*range(number, number + 4)]

    iterator: Any = iter(keepfed.DataLoader(Planes(), batch_sampler=Waiting(), num_workers=2))
    with ThreadPoolExecutor(1) as elsewhere:
        inside = elsewhere.submit(next, iterator)
        assert entered.wait(20)
        with pytest.raises(LoaderError, match="from two threads at once"):
            next(iterator)
        go_on.set()
        first = inside.result()
    assert indices([first, *iterator]) == list(range(64))


def test_each_thread_may_have_an_iterator_of_its_own() -> None:
    def epoch(_: int) -> list[int]:
        return indices(list(ours(num_workers=1)))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(epoch, range(3))) == [list(range(64))] * 3
