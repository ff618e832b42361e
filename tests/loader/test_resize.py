"""Workers come, go and die in mid-epoch, and the program sees the same batches as if nothing had happened."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from keepfed.errors import LoaderError, WorkerDied
from keepfed.loader import zygote_process
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.stats import Tally
from keepfed.loader.switches import with_switches
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from tests.loader.processes import wait_until, watching
from tests.loader.side_by_side import describe

MAX_WORKERS = 4
BATCHES = 24


class Drawing(Dataset[Any]):
    """Samples that draw from all three global generators, and say who made them."""

    def __init__(self, in_sample: Callable[[int], None] | None = None) -> None:
        self.in_sample = in_sample

    def __len__(self) -> int:
        return 2 * BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        if self.in_sample is not None:
            self.in_sample(index)
        draws = [float(index), float(torch.rand(())), random.random(), float(np.random.rand())]
        info = get_worker_info()
        assert info is not None
        return torch.tensor(draws, dtype=torch.float64), info.id, os.getpid()


class Read(Sampler[int]):
    """In order; remembers how far it was read."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for index in range(2 * BATCHES):
            self.count += 1
            yield index


def loader_of(dataset: Dataset[Any], **arguments: Any) -> DataLoader:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(dataset, batch_size=2, num_workers=1, generator=generator, **arguments)


def shared(loader: DataLoader, workers: int = 2, prefetch: int = 2, tally: Tally | None = None) -> Any:
    """An iterator whose worker count may change."""
    terms = Terms(Plan(workers, prefetch), fixed=False, max_workers=MAX_WORKERS, lookahead=16)
    return EpochIter(loader, with_switches(terms), tally or Tally())


def contents(batch: Any) -> list[list[float]]:
    rows: list[list[float]] = batch[0].tolist()
    return rows


@pytest.fixture(scope="module")
def expected() -> list[list[list[float]]]:
    """The epoch as one worker makes it."""
    return [contents(batch) for batch in shared(loader_of(Drawing()), workers=1, prefetch=1)]


def test_the_expected_epoch_is_in_order_and_draws_anew_for_each_batch(expected: list[list[list[float]]]) -> None:
    assert [row[0] for batch in expected for row in batch] == list(range(2 * BATCHES))
    assert len({tuple(row[1:]) for batch in expected for row in batch}) == 2 * BATCHES


@pytest.mark.parametrize("seed", range(6))
def test_moves_at_any_moment_change_no_batch(expected: list[list[list[float]]], seed: int) -> None:
    pick = random.Random(seed)
    iterator = shared(loader_of(Drawing()), workers=pick.randint(1, MAX_WORKERS), prefetch=pick.randint(1, 4))
    seen = []
    while True:
        for _ in range(pick.randrange(3)):
            iterator.change_plan(Plan(pick.randint(1, MAX_WORKERS), pick.randint(1, 4)))
            assert set(iterator._crew.roster.pool().workers) <= set(range(MAX_WORKERS))
        if (batch := next(iterator, None)) is None:
            break
        seen.append(contents(batch))
    assert seen == expected


def test_the_second_epoch_of_persistent_workers_draws_anew_and_depends_on_no_move() -> None:
    def second_epoch(*moves: Plan) -> list[list[list[float]]]:
        loader = loader_of(Drawing(), persistent_workers=True)
        iterator = shared(loader)
        for batch, move in zip(iterator, moves, strict=False):
            assert len(contents(batch)) == 2
            iterator.change_plan(move)
        iterator._reset(loader)
        return [contents(batch) for batch in iterator]

    without = second_epoch()
    assert second_epoch(Plan(4, 1), Plan(1, 4), Plan(3, 2)) == without
    assert [row[0] for batch in without for row in batch] == list(range(2 * BATCHES))


def test_the_sampler_is_read_ahead_by_the_same_number_whatever_the_plan() -> None:
    reads = []
    for moves in ([], [Plan(4, 4), Plan(1, 1), Plan(3, 2)]):
        sampler = Read()
        iterator = shared(loader_of(Drawing(), sampler=sampler))
        schedule = [sampler.count]
        for number, _ in enumerate(iterator):
            if number < len(moves):
                iterator.change_plan(moves[number])
            schedule.append(sampler.count)
        reads.append(schedule)
    assert reads[0] == reads[1]
    assert reads[0][:3] == [32, 34, 36], "16 batches of 2, and one more for each that came out"


def test_ids_are_below_the_agreed_maximum_and_used_again_only_after_their_worker_is_gone() -> None:
    iterator = shared(loader_of(Drawing(lambda _: time.sleep(0.002))), workers=4)
    pids: dict[int, int] = {}
    for number, (_, ids, made_by) in enumerate(iterator):
        for worker_id, pid in zip(ids.tolist(), made_by.tolist(), strict=True):
            if pids.get(worker_id, pid) != pid:
                with pytest.raises(ProcessLookupError):
                    os.kill(pids[worker_id], 0)
            pids[worker_id] = pid
        iterator.change_plan(Plan(1 if number % 4 < 2 else 4, 2))
    assert set(pids) <= set(range(MAX_WORKERS))


def test_worker_init_fn_runs_for_each_new_worker_and_sees_the_agreed_maximum() -> None:
    seen, tell = os.pipe()

    def init(worker_id: int) -> None:
        info = get_worker_info()
        assert info is not None
        os.write(tell, bytes([worker_id, info.num_workers]))

    iterator = shared(loader_of(Drawing(), worker_init_fn=init), workers=1)
    next(iterator)
    iterator.change_plan(Plan(3, 2))
    for _ in iterator:
        pass
    os.close(tell)
    told = os.read(seen, 100)
    os.close(seen)
    assert sorted(told[::2]) == [0, 1, 2]
    assert set(told[1::2]) == {MAX_WORKERS}


def test_a_new_worker_sees_the_dataset_as_it_was_at_iter() -> None:
    """The loop sets something on its dataset: the workers that are there do not see it, and neither do new ones."""
    dataset = Drawing()
    loader = loader_of(dataset)
    iterator = shared(loader, workers=1)
    first = next(iterator)
    dataset.in_sample = lambda _: os._exit(9)
    iterator.change_plan(Plan(4, 2))
    rest = list(iterator)
    assert len(rest) == BATCHES - 1
    assert {pid for batch in rest for pid in batch[2].tolist()} > set(first[2].tolist())


def test_a_retired_worker_finishes_what_it_has_and_ends_with_code_0() -> None:
    iterator = shared(loader_of(Drawing()), workers=3)
    next(iterator)
    workers = list(iterator._workers)
    with watching([worker.pid for worker in workers]) as watched:
        iterator.change_plan(Plan(1, 1))
        for _ in range(8):
            next(iterator)
        wait_until(lambda: len(watched.alive()) == 1, "two of three end")
        assert [worker.is_alive() for worker in workers] == [True, False, False]
    assert [worker.exitcode for worker in workers[1:]] == [0, 0]


def test_a_batch_sampler_may_yield_arrays() -> None:
    """An index is compared with nothing: the comparison of an array has no truth value."""
    loader = DataLoader(Drawing(), batch_sampler=list(np.arange(8).reshape(4, 2)), num_workers=1)
    assert [row[0] for batch in loader for row in contents(batch)] == list(range(8))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_is_replaced_and_its_batches_are_the_same(
    expected: list[list[list[float]]], number: int
) -> None:
    tally = Tally()
    iterator = shared(loader_of(Drawing(lambda _: time.sleep(0.001))), tally=tally)
    seen = []
    for batch in iterator:
        seen.append(contents(batch))
        if len(seen) in (3, 9, 10):
            os.kill(iterator._workers[len(seen) % 2].pid, number)
    assert seen == expected
    assert tally.restarts == 3
    assert 1 <= tally.redone <= 12


def test_moves_and_deaths_together_change_no_batch(expected: list[list[list[float]]]) -> None:
    """Retired above the new limit, then killed with the batch that all others wait for.

    Not more often than every nine batches: one that is lost three times counts as the cause of the deaths.
    """
    for seed in range(3):
        pick = random.Random(seed)
        iterator = shared(loader_of(Drawing(lambda _: time.sleep(0.001))), workers=4, prefetch=2)
        seen = []
        while (batch := next(iterator, None)) is not None:
            seen.append(contents(batch))
            if len(seen) % 9 == 1:
                iterator.change_plan(Plan(pick.randint(1, MAX_WORKERS), pick.randint(1, 2)))
                pick.choice(list(iterator._crew.roster.pool().workers.values())).kill()
        assert seen == expected


class Large(Drawing):
    """Samples that travel in slots, and not as copies in messages."""

    def __getitem__(self, index: int) -> Any:
        return index, torch.rand(180, 180), np.random.rand(9)


def test_moves_and_deaths_change_no_byte_of_what_lies_in_slots() -> None:
    """Batches that the program still holds, too, while their workers are replaced and others write beside them."""
    undisturbed = [describe(batch) for batch in shared(loader_of(Large()), workers=1, prefetch=1)]
    pick = random.Random(7)
    iterator = shared(loader_of(Large()), workers=3)
    held = []
    while (batch := next(iterator, None)) is not None:
        held.append(batch)
        if len(held) % 5 == 1:
            iterator.change_plan(Plan(pick.randint(1, MAX_WORKERS), pick.randint(1, 3)))
        if len(held) % 9 == 4:
            pick.choice(list(iterator._crew.roster.pool().workers.values())).kill()
    assert [describe(batch) for batch in held] == undisturbed


def test_a_sample_that_kills_every_worker_ends_in_an_error_that_names_it() -> None:
    def die(index: int) -> None:
        if index == 7:
            os.kill(os.getpid(), signal.SIGSEGV)

    iterator = shared(loader_of(Drawing(die)))
    began_s = time.monotonic()
    with pytest.raises(WorkerDied, match=r"is killed by signal: Segmentation fault.*\n.*\[6, 7\]"):
        list(iterator)
    assert time.monotonic() - began_s < 5
    with pytest.raises(LoaderError):
        next(iterator)


def test_workers_that_die_at_their_start_end_in_an_error() -> None:
    iterator = shared(loader_of(Drawing(), worker_init_fn=lambda _: os._exit(4)))
    with pytest.raises(WorkerDied, match="exit code 4"):
        list(iterator)


def test_the_death_of_a_zygote_that_has_no_understudy_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_process, "UNDERSTUDY_AFTER_S", 600.0)
    for fixed in (True, False):
        loader = loader_of(Drawing(lambda _: time.sleep(0.002)))
        iterator: Any = iter(loader) if fixed else shared(loader)
        next(iterator)
        os.kill(iterator._crew.roster.pool()._zygote.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"exited unexpectedly.*before a copy of it could take its place"):
            list(iterator)
        with pytest.raises(LoaderError):
            next(iterator)


# ---- the fixed contract ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "is killed by signal: Killed"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "is killed by signal: Segmentation fault"),
        (lambda: os._exit(3), "exited unexpectedly with exit code 3"),
    ],
    ids=["killed", "segfault", "exits"],
)
def test_a_fixed_loader_says_that_a_worker_died_in_torchs_words(how: Callable[[], None], words: str) -> None:
    def die(index: int) -> None:
        if index == 5:
            how()

    iterator: Any = iter(loader_of(Drawing(die)))
    with pytest.raises(RuntimeError, match=words) as caught:
        list(iterator)
    pid = iterator._workers[0].pid
    assert f"DataLoader worker (pid(s) {pid}) exited unexpectedly" in str(caught.value)
    assert "[4, 5]" in str(caught.value)
    assert isinstance(caught.value, WorkerDied)


def test_a_fixed_loader_has_no_other_plan() -> None:
    iterator: Any = iter(loader_of(Drawing()))
    with pytest.raises(LoaderError, match="fixed number of workers"):
        iterator.change_plan(Plan(2, 2))


@pytest.mark.parametrize("workers", [0, MAX_WORKERS + 1])
def test_a_plan_outside_of_what_was_agreed_is_refused(workers: int) -> None:
    iterator = shared(loader_of(Drawing()))
    with pytest.raises(ValueError, match=f"num_workers={workers}: expected 1 to {MAX_WORKERS}"):
        iterator.change_plan(Plan(workers, 2))
    wait_until(lambda: all(worker.is_alive() for worker in iterator._workers), "they live on")


def test_persistent_workers_keep_the_plan_over_epochs_with_a_worker_on_its_way_out() -> None:
    loader = loader_of(Drawing(), persistent_workers=True)
    iterator = shared(loader, workers=4, prefetch=4)
    next(iterator)
    iterator.change_plan(Plan(1, 2))
    iterator._reset(loader)
    assert [row[0] for batch in iterator for row in contents(batch)] == list(range(2 * BATCHES))
    assert len(iterator.active_workers()) == 1


def test_a_refused_fork_leaves_the_training_to_the_workers_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on processes is met by our own move, not by the program: it trains on, and no sample is blamed."""
    real, forks = os.fork, []

    def fork() -> int:
        forks.append(1)
        if len(forks) > 3:  # the zygote and the first two workers are there
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    iterator = shared(loader_of(Drawing()))
    first = [next(iterator) for _ in range(3)]
    iterator.change_plan(Plan(MAX_WORKERS))
    batches = [*first, *iterator]
    assert [int(batch[0][0, 0]) for batch in batches] == list(range(0, 2 * BATCHES, 2))
    assert len({int(worker) for batch in batches for worker in batch[1]}) == 2
