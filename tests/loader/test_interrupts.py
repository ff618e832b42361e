"""Ctrl-C at any line of `next()`: whoever goes on iterating gets every batch once, in order and unharmed."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from keepfed.host.headroom import Headroom, MemoryGauge
from keepfed.loader import (
    budget,
    channel,
    control,
    crew,
    decode,
    delivery,
    epoch,
    intake,
    lease,
    memory,
    mover,
    obituary,
    pinned,
    pool,
    readahead,
    releases,
    roster,
    watcher,
    zygote,
)
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.policy import gate, governor, order
from tests.loader.fake_gpu import CopyingGpu, FakeGpu, leave, plug_in
from tests.loader.interrupting import Interrupter

FILES = {
    module.__file__
    for module in (
        *(channel, control, crew, decode, epoch, intake, lease, order),
        *(obituary, pool, readahead, releases, roster, watcher, zygote),
    )
}
GPU_FILES = {module.__file__ for module in (crew, decode, delivery, gate, intake, lease, mover, pinned, readahead)}
BATCHES = 500
LARGE = 90_000  # as int32 large enough to be leased


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Beside busy workers, OpenMP's threads wait for each other longer than a test may last."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


AT_THE_VERY_RETURN = {
    "Crew.deliver: if unusual:",
    "Crew.deliver: return batch",
    "EpochIter._next_data: self._reader = 0",
    "EpochIter.__next__: self._num_yielded += 1",
    "EpochIter.__next__: return batch",
}
"""Here the batch is the program's already, and nobody else holds it; torch loses it at many more lines."""


class Mixed(Dataset[Any]):
    """A leased tensor, one that is copied out and one in a pickle, all full of their index."""

    def __init__(self, batches: int = BATCHES) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return torch.full((LARGE,), index, dtype=torch.int32), torch.tensor(index), {"name": [str(index)]}


def fixed(dataset: Mixed) -> Any:
    return iter(DataLoader(dataset, batch_size=1, num_workers=2))


def shared(dataset: Mixed) -> Any:
    terms = Terms(Plan(2, 2), fixed=False, max_workers=2, lookahead=4, verify=True)
    return EpochIter(DataLoader(dataset, batch_size=1, num_workers=2), terms, Tally())


class Streams(IterableDataset[Any]):
    """Nothing in the first worker, two numbers in the second."""

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        assert info is not None
        return iter(range(2 * info.id))


def told_by(batch: Any) -> int:
    """The number that the whole batch is full of."""
    large, small, named = batch
    number = int(small)
    assert large.shape == (1, LARGE)
    assert bool((large == number).all()), "bytes of another batch"
    assert named == {"name": [(str(number),)]}
    return number


def go_through(
    iterator: Any, *, deaths: bool = False, files: Collection[str | None] = FILES, batches: int = BATCHES
) -> set[str]:
    """Interrupt each `next()` once, at one line later than the one before; where a batch was lost."""
    lost: list[str] = []
    held: list[Any] = []
    expected, position, interrupted = 0, 1, 0
    interrupter = Interrupter(files)
    try:
        while expected < batches:
            if deaths and expected % 16 == 7:
                os.kill(iterator._workers[expected // 16 % 2].pid, signal.SIGKILL)
            interrupter.next_at(position)
            batch, error = interrupter.run(lambda: next(iterator))
            while isinstance(error, KeyboardInterrupt):
                interrupted += 1
                batch, error = interrupter.run(lambda: next(iterator))
            at = interrupter.at
            if isinstance(error, StopIteration):
                lost += [at] * (batches - expected)
                break
            assert error is None, f"{error!r} after an interrupt at {at}"
            held = [*held[-1:], batch]
            *_, number = map(told_by, held)
            assert number >= expected, f"batch {number} came twice after an interrupt at {at}"
            lost += [at] * (number - expected)
            expected = number + 1
            position = position + 1 if at else 1
    finally:
        interrupter.close()
    assert interrupted > batches * 0.9
    return set(lost)


def test_ctrl_c_at_any_line_while_streams_end_loses_and_repeats_no_batch() -> None:
    """One interrupt per epoch, at one line later each time, until there is no such line."""
    loader = DataLoader(Streams(), batch_size=None, num_workers=2, prefetch_factor=1, persistent_workers=True)
    interrupter = Interrupter(FILES)
    interrupted = 0
    try:
        for position in itertools.count(1):
            iterator = iter(loader)
            interrupter.next_at(position)
            got: list[Any] = []
            error: BaseException | None = None
            while not isinstance(error, StopIteration):
                batch, error = interrupter.run(functools.partial(next, iterator))
                assert error is None or isinstance(error, KeyboardInterrupt | StopIteration), interrupter.at
                got += [batch] if error is None else []
            if not interrupter.at:
                break
            interrupted += 1
            assert got == [0, 1] or interrupter.at in AT_THE_VERY_RETURN, interrupter.at
    finally:
        interrupter.close()
    assert got == [0, 1]
    assert interrupted > 200


@pytest.mark.parametrize("make", [fixed, shared])
def test_ctrl_c_at_any_line_of_next_loses_and_repeats_no_batch(make: Callable[[Mixed], Any]) -> None:
    assert go_through(make(Mixed())) <= AT_THE_VERY_RETURN


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a socket that was being handed on is closed by the collector
@pytest.mark.leaves("descriptors", reason="an interrupt just before os.close costs that one; closing twice is worse")
def test_ctrl_c_while_a_worker_is_replaced_loses_and_repeats_no_batch() -> None:
    assert go_through(shared(Mixed()), deaths=True) <= AT_THE_VERY_RETURN


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as above, when workers come back
@pytest.mark.leaves("descriptors", reason="as above")
@pytest.mark.parametrize("make", [fixed, shared])
def test_ctrl_c_while_memory_comes_and_goes_loses_and_repeats_no_batch(
    make: Callable[[Mixed], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    full, empty = Headroom(1 << 20, 1 << 20, None, "/full"), Headroom(0, 1 << 50, None, "/empty")
    found = itertools.cycle([full, full, empty])
    monkeypatch.setattr(MemoryGauge, "read", lambda _: next(found))
    monkeypatch.setattr(memory, "LOOK_S", 0.0)
    monkeypatch.setattr(memory, "NEAR_S", 0.0)
    monkeypatch.setattr(memory, "COST_SHARE", 0)
    monkeypatch.setattr(governor, "CALM_S", 0.0)
    monkeypatch.setattr(governor, "PROBATION_S", 0.0)
    files = {*FILES, memory.__file__, governor.__file__, budget.__file__}
    assert go_through(make(Mixed(150)), files=files, batches=150) <= AT_THE_VERY_RETURN


class PromptGpu(CopyingGpu):
    """Whoever asks for a batch gets it when its copy is done."""

    def adopt(self, tensors: list[torch.Tensor], done: Any) -> None:
        self.fake.finish()


@pytest.mark.parametrize("options", [{"pin_memory": True}, {"device": "cuda"}], ids=["pinned", "on the GPU"])
def test_ctrl_c_with_a_gpu_loses_and_repeats_no_batch(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    plug_in(gpu, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(delivery, "Gpu", lambda device: PromptGpu(gpu))
    iterator = iter(DataLoader(Mixed(200), batch_size=1, num_workers=2, **options))
    assert go_through(iterator, files=GPU_FILES, batches=200) <= AT_THE_VERY_RETURN
    del iterator
    gc.collect()
    leave(gpu)
