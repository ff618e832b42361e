"""Loaders steered in this process, without a launcher: the run folder is read here, moves are made by hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from keepfed.events import Event
from keepfed.feed import RunConfig, RunFolder
from keepfed.loader.fleet import Fleet
from keepfed.loader.identity import identify
from keepfed.loader.pilot import Pilot
from keepfed.loader.session import Session
from keepfed.loader.zero import ZeroIter
from keepfed.plan import Plan

PATIENCE_S = 20.0


class Steered:
    """A run folder and the fleet that writes into it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.run = RunFolder.create(folder, RunConfig(**config))
        self.fleet = Fleet(Session(self.run))
        self._reader = self.run.reader()
        self._events: list[Event] = []

    def iterator(self, loader: DataLoader[Any]) -> Any:
        return self.fleet.iterator(loader)

    def pilot(self, loader: DataLoader[Any]) -> Pilot:
        return self.fleet._pilots[identify(loader)]

    def events(self, kind: type[Event] | None = None) -> list[Any]:
        self._events += [event for _, event in self._reader.read_new()]
        return [event for event in self._events if kind is None or isinstance(event, kind)]

    def epoch(self, loader: DataLoader[Any], **options: Any) -> list[Any]:
        """One epoch of `read`."""
        return read(self.iterator(loader), self.pilot(loader), **options)


@contextlib.contextmanager
def steered(folder: Path, **config: Any) -> Iterator[Steered]:
    found = Steered(folder, **config)
    try:
        yield found
    finally:
        found.fleet.close()


def read(
    iterator: Any,
    pilot: Pilot,
    *,
    moves: dict[int, int] | None = None,
    after: Callable[[int], None] | None = None,
) -> list[Any]:
    """All batches; before the n-th, workers are set to `moves[n]`; after it `after(n)` is what the loop does."""
    batches = []
    moves = moves or {}
    for number in range(10_000):
        if number in moves:
            move(iterator, pilot, moves[number])
        try:
            batches.append(next(iterator))
        except StopIteration:
            break
        if after is not None:
            after(number)
    return batches


def move(iterator: Any, pilot: Pilot, workers: int) -> None:
    """What the controller would do: once it is known whether this loader may have workers."""
    decide(iterator)
    if not iterator.refused():
        assert pilot._change(Plan(workers), iterator)


def decide(iterator: Any) -> str:
    """Wait for the child's answer; why there can be no workers."""
    if isinstance(iterator, ZeroIter):
        end_s = time.monotonic() + PATIENCE_S
        while iterator.undecided() and not iterator._trial._wanted and time.monotonic() < end_s:
            iterator._trial.look()
            time.sleep(0.005)
        assert iterator._trial._wanted or not iterator.undecided(), "the child has not answered"
    return str(iterator.refused())


class Plain(Dataset[Any]):
    """Samples of the index alone."""

    def __init__(self, length: int = 64) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.full((3,), float(index)), index


def indices(batches: list[Any]) -> list[int]:
    """The indices of all samples of `Plain`, in order."""
    return [int(index) for batch in batches for index in batch[1]]
