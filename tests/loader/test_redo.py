"""A worker that dies costs nothing: the same batches come out as from torch's loader in a run where nobody died."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, get_worker_info

import keepfed.loader.api as keepfed
from keepfed.errors import WorkerDied
from keepfed.loader.channel import TrainerEnd
from keepfed.policy.order import Order
from tests.loader.processes import wait_until
from tests.loader.side_by_side import Noisy, describe, random_states, seed_all

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
METHODS = ["fork", "forkserver", "spawn"]


class NoisyStream(IterableDataset[Any]):
    """Samples from every random source of a worker, each worker a share of its own."""

    def __init__(self, length: int = 24) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        for number in range(info.id, self.length, info.num_workers):
            yield number, torch.rand(90, 90), random.gauss(0, 1), np.random.randn()


class Deadly(Noisy):
    """Kills its worker in the middle of some batches, once each."""

    def __init__(self, folder: Path, deaths: dict[int, int], length: int = 24) -> None:
        super().__init__(length)
        self.folder, self.deaths = folder, deaths

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        mark = self.folder / str(index)
        if index in self.deaths and not mark.exists():
            mark.touch()
            faulthandler.disable()  # pytest's: the crash is meant
            os.kill(os.getpid(), self.deaths[index])
        return sample


def kill_process(pid: int) -> None:
    """Kill it, unless it is dead already and nobody has missed it yet."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def run(loader: Any, *, epochs: int = 2, kill: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]  # read only
    """Every batch of these epochs with the random states of this process; kills a worker after some of the batches."""
    seed_all(3)
    seen: list[Any] = []
    for _ in range(epochs):
        iterator = iter(loader)
        for batch in iterator:
            seen.append((describe(batch), random_states()))
            if len(seen) in kill:
                kill_process(iterator._workers[len(seen) % len(iterator._workers)].pid)
        del iterator
    return seen


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("dataset", [Noisy(24), NoisyStream(24)], ids=["map", "stream"])
def test_batches_are_torchs_when_workers_are_killed_between_any_two(dataset: Any, persistent: bool) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 2, "persistent_workers": persistent}
    undisturbed = run(TorchDataLoader(dataset, **settings), epochs=3)
    for kill in ({1}, {5, 6, 7}, {2, 13, 14, 25}, set(range(1, 36, 3))):
        assert run(keepfed.DataLoader(dataset, **settings), epochs=3, kill=kill) == undisturbed


@pytest.mark.parametrize("method", METHODS)
def test_batches_are_torchs_under_every_start_method(method: str) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2, "multiprocessing_context": method}
    undisturbed = run(TorchDataLoader(Noisy(24), **settings), epochs=1)
    assert run(keepfed.DataLoader(Noisy(24), **settings), epochs=1, kill={1, 4}) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_that_dies_in_the_middle_of_a_batch_is_replaced(number: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 3, "num_workers": 3}
    undisturbed = run(TorchDataLoader(Noisy(24), **settings), epochs=1)
    loader = keepfed.DataLoader(Deadly(tmp_path, {0: number, 13: number, 23: number}), **settings)
    assert run(loader, epochs=1) == undisturbed
    assert loader.stats().restarts == 3


def test_all_workers_may_die_at_once() -> None:
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 3, "prefetch_factor": 3}
    undisturbed = run(TorchDataLoader(Noisy(40), **settings), epochs=1)
    loader = keepfed.DataLoader(Noisy(40), **settings)
    seed_all(3)
    seen = []
    iterator: Any = iter(loader)
    for batch in iterator:
        seen.append((describe(batch), random_states()))
        if len(seen) in {1, 4, 5, 11}:
            for worker in iterator._workers:
                kill_process(worker.pid)
    assert seen == undisturbed


def interrupt_once(monkeypatch: pytest.MonkeyPatch, of: type, method: str, when: Callable[..., bool]) -> None:
    """Ctrl-C comes instead of the first call of this method that fits."""
    original = getattr(of, method)
    due = [True]

    def interrupted(*arguments: Any) -> Any:
        if due and when(*arguments):
            due.clear()
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(of, method, interrupted)


def test_a_task_that_ctrl_c_kept_from_being_noted_as_sent_is_made_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its worker dies with it: the replacement must not read on in its stream to catch up, and again for the program."""

    class Uneven(NoisyStream):
        def __init__(self, stuck: bool) -> None:
            super().__init__()
            self.stuck = stuck

        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            assert info is not None
            for number in range(20 if info.id else 4):
                if self.stuck and number == 6 and not mark.exists():
                    mark.touch()
                    time.sleep(600)
                yield info.id, number, torch.rand(3)

    mark = tmp_path / "stuck"
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 2}
    undisturbed = run(TorchDataLoader(Uneven(stuck=False), **settings), epochs=1)
    interrupt_once(monkeypatch, Order, "sent", lambda order, task, worker: order.exhausted)
    seed_all(3)
    iterator: Any = iter(keepfed.DataLoader(Uneven(stuck=True), **settings))
    seen = [(describe(next(iterator)), random_states()) for _ in range(4)]
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    wait_until(mark.exists, "the worker is stuck")
    iterator._workers[1].kill()
    iterator._workers[1].join(20)
    seen += [(describe(batch), random_states()) for batch in iterator]
    assert seen == undisturbed


def test_a_task_that_ctrl_c_kept_from_being_sent_is_drawn_for_although_the_epoch_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a worker draws in the next epoch follows from what it was asked for, also when it is replaced there."""
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 1, "persistent_workers": True}

    def left_after_three(loader: Any, *, kill: bool) -> list[Any]:
        seed_all(3)
        iterator = iter(loader)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in range(3):
                next(iterator)
        seen = []
        for batch in iter(loader):
            seen.append(describe(batch))
            if kill and len(seen) in {1, 4}:
                kill_process(iterator._workers[0].pid)
        return seen

    undisturbed = left_after_three(TorchDataLoader(Noisy(40), **settings), kill=False)
    interrupt_once(monkeypatch, TrainerEnd, "send", lambda end, kind, *rest: kind == "task" and rest[1] == 4)
    assert left_after_three(keepfed.DataLoader(Noisy(40), **settings), kill=True) == undisturbed


def test_draws_made_before_the_last_note_are_not_made_again(tmp_path: Path) -> None:
    """Notes are what keeps a death after ten thousand batches cheap."""
    made = tmp_path / "made"
    made.touch()

    class Counted(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            with made.open("a") as file:
                file.write(".")
            return super().__getitem__(index)

    loader = keepfed.DataLoader(Counted(400), batch_size=1, num_workers=1)
    run(loader, epochs=1, kill={200, 300})
    assert loader.stats().restarts == 2
    assert made.stat().st_size < 400 + 2 * 175, "without notes 500 would be made again"


def test_a_batch_that_kills_every_worker_ends_the_epoch_and_is_named(tmp_path: Path) -> None:
    class Fatal(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 7:
                faulthandler.disable()
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().__getitem__(index)

    loader = keepfed.DataLoader(Fatal(24), batch_size=2, num_workers=2)
    with pytest.raises(WorkerDied, match=r"is killed by signal: Segmentation fault.*\n.*\[6, 7\]"):
        run(loader, epochs=1)
    assert loader.stats().restarts == 2
