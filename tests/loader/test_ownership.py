"""Nothing that the program, its children or the workers' own code can still read is ever written again.

Real workers, hundreds of batches; every batch carries its own number in every element, so that a slot which was refilled
too early shows at once.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, default_collate

import keepfed.loader.api as keepfed
from keepfed.loader import budget
from keepfed.loader.budget import Budget

WIDTH = 30_000
"""Four samples of that many float32 make 480 kB: leased, in a slot of its own."""
MIB = 1 << 20


class Marked(Dataset[Any]):
    """Samples that are full of their own index."""

    def __init__(self, length: int = 800, width: int = WIDTH) -> None:
        self.length = length
        self.width = width

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.full((self.width,), float(index)), index


def loader_of(dataset: Dataset[Any], **options: Any) -> keepfed.DataLoader:
    return keepfed.DataLoader(dataset, **{"batch_size": 4, "num_workers": 2, **options})


def check(batch: Any, number: int) -> None:
    """Whether this is the batch with that number, every element of it."""
    x, y = batch
    wanted = torch.arange(4 * number, 4 * number + 4)
    assert torch.equal(y, wanted)
    assert torch.equal(x[:, 0], wanted.float())
    assert torch.equal(x.amin(1), x.amax(1))


def check_in_child(batch: Any, number: int) -> None:
    """The same in a forked child, where torch's thread pool hangs: its threads were not forked."""
    x, y = (part.numpy() for part in batch)
    assert y.tolist() == list(range(4 * number, 4 * number + 4))
    assert (x == y[:, None]).all()


def memory(iterator: Any) -> int:
    return int(iterator.transport_bytes())


# --------------------------------------------------------------------------------------------------- what programs keep


def test_random_subsets_that_are_kept_for_a_while_never_change() -> None:
    chance = random.Random(5)
    kept: dict[int, Any] = {}
    iterator: Any = iter(loader_of(Marked(), prefetch_factor=3))
    peak = 0
    for number, batch in enumerate(iterator):
        check(batch, number)
        kept[number] = batch if chance.random() < 0.5 else (batch[0][:, ::7].detach(), batch[1])
        for old in [old for old in kept if chance.random() < 0.15]:
            check(kept.pop(old), old)
        peak = max(peak, memory(iterator) if number % 20 == 0 else 0)
        del batch
    for number, old in kept.items():
        check(old, number)
    assert peak < 45 * 0.5 * MIB
    kept.clear()


def test_keeping_every_label_takes_no_slots() -> None:
    iterator: Any = iter(loader_of(Marked()))
    labels = []
    for number, (x, y) in enumerate(iterator):
        labels.append(y)
        assert x[0, 0] == 4 * number
        if number % 50 == 49:
            assert memory(iterator) < 20 * 0.5 * MIB
        del x, y
    assert torch.equal(torch.cat(labels), torch.arange(800))


def test_keeping_every_batch_neither_stalls_nor_changes_any() -> None:
    batches = list(loader_of(Marked(400)))
    assert len(batches) == 100
    for number, batch in enumerate(batches):
        check(batch, number)
    batches.clear()


def test_past_the_budget_kept_batches_are_copies_and_slots_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "shared", Budget(lambda: 15 * MIB))
    iterator: Any = iter(loader_of(Marked()))
    batches = []
    for batch in iterator:
        batches.append(batch)
        del batch
        if len(batches) % 50 == 49:
            assert memory(iterator) <= 2 * 6 * MIB
    for number, kept in enumerate(batches):
        check(kept, number)
    del kept
    batches.clear()


def test_a_worker_whose_slots_are_all_on_their_way_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "shared", Budget(lambda: 5 * MIB // 2))
    iterator: Any = iter(loader_of(Marked(400), prefetch_factor=8))
    for number, batch in enumerate(iterator):
        check(batch, number)
        assert memory(iterator) <= 2 * 2 * MIB
        del batch


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "gc off"])
def test_a_loop_without_cycles_needs_no_garbage_collector(collected: bool) -> None:
    def with_text(samples: list[Any]) -> dict[str, Any]:
        x, y = default_collate(samples)
        return {"x": x, "y": y, "text": "not plain", "numbers": x.numpy()}

    if not collected:
        gc.disable()
    try:
        iterator: Any = iter(loader_of(Marked(400), collate_fn=with_text))
        for number, batch in enumerate(iterator):
            check((batch["x"], batch["y"]), number)
            del batch
            assert memory(iterator) < 16 * 1.1 * MIB
        del iterator
    finally:
        gc.enable()


def test_batches_in_cycles_come_back_when_they_are_collected() -> None:
    class Holder:
        def __init__(self, batch: Any) -> None:
            self.batch = batch
            self.me = self

    iterator: Any = iter(loader_of(Marked(160)))
    for number, batch in enumerate(iterator):
        check(Holder(batch).batch, number)
        del batch
        if number % 20 == 19:
            gc.collect()
    assert number == 39


def test_batches_outlive_the_epoch_the_loader_and_its_workers() -> None:
    loader = loader_of(Marked(40))
    first = list(loader)
    second = list(loader)
    del loader
    gc.collect()
    for batches in (first, second):
        for number, batch in enumerate(batches):
            check(batch, number)
    del batches, batch
    first.clear()
    second.clear()


def test_the_loop_variable_of_the_last_epoch_is_not_written_by_the_next() -> None:
    loader = loader_of(Marked(40))
    held = []
    for _ in range(4):
        for number, batch in enumerate(loader):
            check(batch, number)
        held.append(batch)
        for old in held:
            check(old, 9)
    del batch, old
    held.clear()


def test_batches_that_grow_and_shrink_pay_for_their_outlier_once() -> None:
    class Growing(Marked):
        def __getitem__(self, index: int) -> Any:
            width = 5_000_000 if index // 4 in {10, 30, 50} else WIDTH
            return torch.full((width,), float(index)), index

    iterator: Any = iter(loader_of(Growing(240), num_workers=1))
    for number in range(59):
        check(next(iterator), number)
    assert memory(iterator) < (80 + 10) * MIB


# ------------------------------------------------------------------------------------------------------------------ forks


def _in_child(body: Callable[[int], None]) -> tuple[int, int]:
    """Fork; the child runs body(read end of a pipe) and exits with 0 if it came through. Returns (pid, write end)."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(write_end)
            body(read_end)
            code = 0
        finally:
            os._exit(code)
    os.close(read_end)
    return pid, write_end


def test_a_forked_child_keeps_its_batch_as_it_was() -> None:
    iterator: Any = iter(loader_of(Marked()))
    held = [next(iterator), next(iterator)]

    def child(told: int) -> None:
        os.read(told, 1)  # until the parent has gone through hundreds of batches
        for number, batch in enumerate(held):
            check_in_child(batch, number)

    pid, tell = _in_child(child)
    held.clear()
    for number in range(2, 150):
        check(next(iterator), number)
    os.write(tell, b"x")
    os.close(tell)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for number in range(150, 200):
        check(next(iterator), number)
    assert memory(iterator) < 20 * 0.5 * MIB  # what was kept for the child came back after its end


def _read_later(batch: Any, number: int, told: Any) -> None:
    told.wait(30)
    check_in_child(batch, number)


def test_a_process_that_was_given_a_batch_keeps_it_as_it_was() -> None:
    context = multiprocessing.get_context("fork")
    iterator: Any = iter(loader_of(Marked()))
    batch = next(iterator)
    told = context.Event()
    process = context.Process(target=_read_later, args=(batch, 0, told))
    process.start()
    del batch
    for number in range(1, 150):
        check(next(iterator), number)
    told.set()
    process.join(30)
    assert process.exitcode == 0
    process.close()


class Replay(Dataset[Any]):
    """Hands out a batch that it was given, as a replay buffer does."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        return self.batch[0].clone(), self.batch[1].clone()


def test_a_dataset_that_holds_a_batch_gives_its_workers_that_batch_for_good() -> None:
    iterator: Any = iter(loader_of(Marked()))
    replay = Replay(next(iterator))
    replayed: Any = iter(loader_of(replay, batch_size=None))
    replay.batch = None
    for number in range(1, 60):
        check(next(iterator), number)
        check(next(replayed), 0)


# --------------------------------------------------------------------------------------------------- inside the worker


class WithPrevious:
    """A collate that mixes in its previous result."""

    previous: torch.Tensor | None = None

    def __call__(self, samples: list[Any]) -> Any:
        x, y = default_collate(samples)
        previous, self.previous = self.previous, x
        return x, y, x.clone() if previous is None else previous.clone()


def test_a_collate_that_keeps_its_previous_result_reads_what_it_kept() -> None:
    for number, (x, y, previous) in enumerate(loader_of(Marked(200), num_workers=1, collate_fn=WithPrevious())):
        check((x, y), number)
        check((previous, y - 4 * (number > 0)), max(0, number - 1))


class SendsPrevious(WithPrevious):
    def __call__(self, samples: list[Any]) -> Any:
        x, y = default_collate(samples)
        previous, self.previous = self.previous, x
        return x, y, x if previous is None else previous


def test_a_batch_that_is_sent_twice_is_right_both_times() -> None:
    kept = []
    for number, (x, y, previous) in enumerate(loader_of(Marked(200), num_workers=1, collate_fn=SendsPrevious())):
        check((x, y), number)
        check((previous, y - 4 * (number > 0)), max(0, number - 1))
        kept.append(previous)
    for number, previous in enumerate(kept):
        check((previous, torch.arange(4) + 4 * max(0, number - 1)), max(0, number - 1))
    del x, y, previous
    kept.clear()


@functools.lru_cache(maxsize=8)
def _cached_collate(first: int) -> Any:
    data = Marked()
    return default_collate([data[index] for index in range(first, first + 4)])


def test_a_cached_collate_gives_the_same_batch_again_and_again() -> None:
    def collate(samples: list[Any]) -> Any:
        return _cached_collate(samples[0][1] % 32)

    for number, batch in enumerate(loader_of(Marked(800), num_workers=1, collate_fn=collate)):
        check(batch, number % 8)


def test_default_collate_in_a_thread_of_the_worker_is_right() -> None:
    def collate(samples: list[Any]) -> Any:
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(default_collate(samples)))
        thread.start()
        own = default_collate(samples)
        thread.join()
        return own, made[0]

    for number, (own, other) in enumerate(loader_of(Marked(200), num_workers=1, collate_fn=collate)):
        check(own, number)
        check(other, number)


class Collating(Dataset[Any]):
    """Collates inside `__getitem__`, and keeps every sample that it ever made."""

    def __init__(self) -> None:
        self.cache: dict[int, Any] = {}

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        if index % 16 not in self.cache:
            self.cache[index % 16] = default_collate([torch.full((WIDTH // 4,), float(index % 16))] * 4)
        return self.cache[index % 16].reshape(-1), index % 16


def test_default_collate_inside_the_dataset_may_be_kept_there() -> None:
    loader = loader_of(Collating(), num_workers=1, persistent_workers=True)
    for _ in range(5):
        iterator: Any = iter(loader)
        for number, batch in enumerate(iterator):
            check(batch, number % 4)
            batch[0].fill_(-1)
            del batch
        assert memory(iterator) < 12 * 0.5 * MIB


class Wasteful(Marked):
    """Collates a MiB inside `__getitem__`, of which nothing travels."""

    def __getitem__(self, index: int) -> Any:
        scratch = default_collate([torch.full((MIB // 16,), float(index))] * 4)
        return scratch.mean(0)[: self.width], index


def test_what_the_dataset_collates_and_throws_away_takes_no_slots() -> None:
    iterator: Any = iter(loader_of(Wasteful(80), num_workers=1))
    for number, batch in enumerate(iterator):
        check(batch, number)
        assert memory(iterator) < 8 * 0.5 * MIB  # a batch is half a megabyte, and four are collated to make it


class Whole(Marked):
    """Items are batches, collated by the dataset."""

    def __getitem__(self, index: int) -> Any:
        return default_collate([super(Whole, self).__getitem__(4 * index + part) for part in range(4)])


def test_a_dataset_that_makes_whole_batches_collates_into_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_is_copied(*_: Any) -> Any:
        raise AssertionError("a tensor that lies in a slot was copied there again")

    monkeypatch.setattr("keepfed.loader.codec.storage_bytes", none_is_copied)
    for number, batch in enumerate(loader_of(Whole(80), num_workers=1, batch_size=None)):
        check(batch, number)
        if number == 20:
            break
