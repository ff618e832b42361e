"""Descriptors: a handful for each worker, whatever the program keeps; and what is said where even they are refused."""

from __future__ import annotations

import errno
import os
import resource
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import keepfed.loader.api as keepfed
from keepfed.errors import TooFewDescriptors
from keepfed.loader import descriptors
from tests.loader.processes import children_of, program


class Many(Dataset[Any]):
    """Samples of sixty tensors, each large enough to be leased when two are stacked."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [torch.full((10_000,), index) for _ in range(60)]


def limit_to(room: int) -> int:
    """From now on this process may open `room` descriptors more; the limit."""
    used = set(map(int, os.listdir("/proc/self/fd")[:-1]))  # the last is the listing's own
    limit = next(limit for limit in range(1_000_000) if sum(fd not in used for fd in range(limit)) == room)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return limit


def keep_all(room: int) -> tuple[Any, list[int]]:
    """What a program tells that keeps every batch: how many it got, or the error; and the children that are left."""

    def main(pipe: Connection) -> None:
        limit_to(room)
        try:
            kept = list(keepfed.DataLoader(Many(), batch_size=2, num_workers=2))
            pipe.send(sum(int(batch[0][0, 0]) == 2 * number for number, batch in enumerate(kept)))
        except (RuntimeError, OSError) as error:
            pipe.send(error)
        pipe.send(children_of(os.getpid()))

    with program(main) as running:
        return running.hear(40), running.hear()


def test_a_program_that_keeps_every_batch_needs_no_more_descriptors() -> None:
    """Its 480 tensors would take as many in torch, which waits for ever or fails then."""
    room = descriptors.PER_WORKER * 2 + descriptors.FOR_ALL
    assert keep_all(room)[0] == 8


def test_below_that_the_limit_the_number_and_the_remedy_are_said_and_nothing_was_started() -> None:
    error, children = keep_all(10)
    assert isinstance(error, TooFewDescriptors)
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    assert "RLIMIT_NOFILE" in str(error)
    assert "needs 16" in str(error)
    assert "ulimit -n" in error.next_step
    assert children == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_kernels_number_stays_and_other_errors_pass(number: int) -> None:
    with pytest.raises(TooFewDescriptors) as caught, descriptors.explained(3):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    assert "needs 20" in str(caught.value)
    with pytest.raises(FileNotFoundError), descriptors.explained(3):
        raise FileNotFoundError


def test_the_remedy_is_a_limit_that_is_enough() -> None:
    def main(pipe: Connection) -> None:
        limit = limit_to(10)
        loader = keepfed.DataLoader(Many(), batch_size=8, num_workers=2)
        try:
            iter(loader)
        except TooFewDescriptors as error:
            pipe.send((limit, error.next_step))

    with program(main) as running:
        limit, said = running.hear(40)
        assert int(said.partition("ulimit -n ")[2].partition(")")[0]) >= limit + 16 - 10


def test_a_worker_that_is_announced_when_the_table_is_full_is_found_by_its_pid_later() -> None:
    """The kernel drops the pidfd that came with the message; the program hears why, closes something, and goes on."""

    def main(pipe: Connection) -> None:
        limit_to(30)
        iterator: Any = iter(keepfed.DataLoader(Many(), batch_size=2, num_workers=1))
        full: list[int] = []
        try:
            while True:
                full.append(os.dup(0))
        except OSError:
            pass
        try:
            next(iterator)
        except OSError as error:
            pipe.send(type(error))
        for fd in full:
            os.close(fd)
        pipe.send([int(batch[0][0, 0]) for batch in iterator])

    with program(main) as running:
        assert running.hear(40) is TooFewDescriptors
        assert running.hear(40) == list(range(0, 16, 2))
        assert running.wait() == 0
