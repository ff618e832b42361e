"""When the program forks, its children keep what they saw, and touch nothing of the parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from keepfed.loader import forks
from keepfed.loader.api import DataLoader
from keepfed.loader.arena import Region
from keepfed.loader.forks import ForkWitness
from keepfed.loader.lease import LeaseBook
from keepfed.loader.shelf import shelf_of
from tests.loader.processes import program

LARGE = 200_000


class Planes(Dataset[torch.Tensor]):
    """Tensors that are large enough to be leased, each full of its index."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((LARGE,), index, dtype=torch.int32)


def a_book() -> LeaseBook:
    return LeaseBook(Region.create(1 << 30))


def test_a_slot_that_is_leased_at_a_fork_is_not_given_back_while_the_child_lives() -> None:
    book = a_book()
    use = (0, 1)
    owners = [book.lease(use, 4096)]
    owners[0][:] = 7

    def child(pipe: Connection) -> None:
        pipe.recv()
        pipe.send(set(owners[0].tolist()))

    with program(child) as running:
        owners.clear()
        book.collect()
        assert book.idle() == (), "the child reads it still"
        assert not book.returned()
        running.pipe.send("read it")
        assert running.hear() == {7}
        running.wait()
        book.collect()
        assert book.idle() == (use,)
        assert book.returned()


def test_a_grandchild_keeps_it_parked_too() -> None:
    book = a_book()
    hold, release = os.pipe()
    owner = book.lease((0, 1), 4096)

    def child(_: Connection) -> None:
        if os.fork() == 0:
            os.close(release)
            os.read(hold, 1)
            os._exit(0)

    with program(child) as running:
        del owner
        assert running.wait() == 0
        book.collect()
        assert book.idle() == ()
        os.close(release)
        while not book.returned():
            os.sched_yield()
    os.close(hold)


def test_what_is_leased_after_the_fork_is_not_the_childs() -> None:
    book = a_book()

    def child(pipe: Connection) -> None:
        pipe.poll(60)

    with program(child):
        owner = book.lease((0, 1), 4096)
        del owner
        book.collect()
        assert book.idle() == ((0, 1),)


def test_programs_that_are_started_park_nothing() -> None:
    """`subprocess` forks and executes in C: nobody reads our memory there."""
    book = a_book()
    owner = book.lease((0, 1), 4096)
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE):
        del owner
        book.collect()
        assert book.idle() == ((0, 1),)


def test_a_program_without_descriptors_left_parks_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell then when the child is gone; the slot is lost, the batch is not."""
    book = a_book()
    owner = book.lease((0, 1), 4096)

    def refused() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as without:
        without.setattr(os, "pipe", refused)
        child = os.fork()
        if child == 0:
            os._exit(0)
    os.waitpid(child, 0)
    del owner
    book.collect()
    assert book.idle() == ()


def test_threads_that_fork_at_the_same_time_have_a_witness_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits between its preparation and its fork while another forks."""
    book = a_book()
    owner = book.lease((0, 1), 4096)
    prepared, go = threading.Event(), threading.Event()
    witnesses: list[Any] = []

    def slow() -> None:
        forks._before()
        witnesses.append(forks._forking.witness)
        prepared.set()
        go.wait(20)
        assert forks._forking.witness is witnesses[0]
        forks._in_parent()

    thread = threading.Thread(target=slow)
    thread.start()
    assert prepared.wait(20)
    forks._before()
    assert forks._forking.witness is not witnesses[0]
    forks._in_parent()
    assert isinstance(witnesses[0], ForkWitness)
    go.set()
    thread.join()
    del owner
    book.collect()
    assert book.idle() == ((0, 1),) or book.returned()


def test_a_forked_child_reads_its_batch_while_the_parent_goes_on() -> None:
    """The parent drops the batch, and its slot would be filled again."""
    iterator = iter(DataLoader(Planes(), batch_size=1, num_workers=1))
    held = [next(iterator)]

    def child(pipe: Connection) -> None:
        pipe.recv()
        pipe.send(
            list(set(held[0].flatten().tolist()))
        )  # no operation that would use torch's threads: they did not fork

    with program(child) as running:
        held.clear()
        assert [int(batch[0, -1]) for batch in iterator] == list(range(1, 30))
        running.pipe.send("read it")
        assert running.hear() == [0]
        running.wait()


def test_a_loader_whose_dataset_holds_a_batch_of_another_one_sees_it_unchanged() -> None:
    """A replay buffer: its own workers are forked while the batch is leased, and read it for their whole life."""

    class Replay(Dataset[torch.Tensor]):
        def __init__(self, batch: torch.Tensor) -> None:
            self.batch = batch

        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor(sorted(set(self.batch.flatten().tolist())))

    first = iter(DataLoader(Planes(), batch_size=1, num_workers=1))
    dataset = Replay(next(first))
    second = iter(DataLoader(dataset, batch_size=1, num_workers=1, prefetch_factor=1))
    del dataset.batch
    seen = []
    for batch in second:
        seen.append(batch.flatten().tolist())
        next(first)
    assert seen == [[0]] * 20


def test_a_fork_while_nothing_is_leased_opens_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))

    def child(pipe: Connection) -> None:
        pipe.send(len(os.listdir("/proc/self/fd")))

    with program(child) as running:
        assert running.hear() <= before + 1, "its own end of the pipe"
        running.wait()


def test_a_child_takes_none_of_the_regions_that_its_parent_keeps_for_the_next_epoch() -> None:
    """Both would give them to a worker of theirs, and both workers would write."""
    loader = DataLoader(Planes(), batch_size=1, num_workers=1)
    for _ in loader:
        pass
    kept = shelf_of(loader).take(1 << 30)
    shelf_of(loader).put_back(LeaseBook(kept))

    def child(pipe: Connection) -> None:
        region = shelf_of(loader).take(1 << 30)
        pipe.send(os.fstat(region.fd).st_ino)

    with program(child) as running:
        assert running.hear() != os.fstat(kept.fd).st_ino
        running.wait()
    assert shelf_of(loader).take(1 << 30) is kept
