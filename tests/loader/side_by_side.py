"""One seeded program under torch's DataLoader and under keepfed's: everything that it can see must be the same.

A program is a function of a loader class and a Diary. It notes what it sees; every note also holds the random states of
this process (torch, random, numpy), since a loader that draws once more or less moves every draw after it.
"""

from __future__ import annotations

import hashlib
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, get_worker_info

import keepfed.loader.api as keepfed

_FRAMES = re.compile(r"(?m)^  File .*\n(?:    .*\n)*")


def describe(value: Any) -> Any:
    """A value in a form that two processes can compare: types, dtypes, shapes, strides and bytes."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        layout = (tuple(value.shape), value.stride(), value.storage_offset())
        return type(value), value.dtype, layout, value.requires_grad, _digest(flat.numpy())
    if isinstance(value, np.ndarray):
        form = (value.dtype, value.shape, value.strides, value.flags.writeable)
        return type(value), form, _digest(np.ascontiguousarray(value)) if not value.dtype.hasobject else value.tolist()
    if isinstance(value, Mapping):
        return type(value), [(key, describe(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [describe(item) for item in value]
    if isinstance(value, BaseException):
        return type(value), _FRAMES.sub("", str(value))
    return type(value), value


def _digest(data: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(data).tobytes(), digest_size=8).hexdigest()


def random_states() -> list[str]:
    """The random states of this process: torch's, random's and numpy's."""
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    states = (torch.get_rng_state().tolist(), random.getstate(), numpy_state)
    return [hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest() for state in states]


class Diary:
    """What a program saw, in order."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Any, Any]] = []

    def note(self, label: str, value: Any = None) -> None:
        """Note a value and the random states at this moment."""
        self.notes.append((label, describe(value), random_states()))

    def read(self, batches: Any, *, at_most: int = 1_000, raises: bool = False) -> None:
        """Iterate, and note every batch; with `raises`, note errors and go on after them."""
        iterator = iter(batches)
        self.note("iter")
        for _ in range(at_most):
            try:
                self.note("batch", next(iterator))
            except StopIteration as end:
                end.with_traceback(None)
                self.note("end")
                break
            except Exception as error:
                if not raises:
                    raise
                self.error(error)
        del iterator, batches

    def error(self, error: Exception) -> None:
        """Note an error. What torch re-raises is in a cycle with the frames that it passed, which hold the iterator."""
        self.note("error", error.with_traceback(None))


Program = Callable[[type[TorchDataLoader[Any]], Diary], None]


def seed_all(seed: int) -> None:
    """Put this process' random states where they were."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def diary_of(program: Program, loader_class: type[TorchDataLoader[Any]]) -> tuple[list[Any], list[Any]]:
    """The notes of one run, and the warnings."""
    seed_all(0)
    diary = Diary()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program(loader_class, diary)
    return diary.notes, [(warning.category, str(warning.message)) for warning in caught]


def assert_same(program: Program) -> None:
    """Run the program under both loaders and compare what it saw."""
    ours = diary_of(program, keepfed.DataLoader)
    theirs = diary_of(program, TorchDataLoader)
    for number, (our, their) in enumerate(zip(ours[0], theirs[0], strict=False)):
        assert our == their, f"note {number}: {our[:2]} and {their[:2]}"[:600]
    assert len(ours[0]) == len(theirs[0])
    assert ours[1] == theirs[1], f"warnings: {ours[1]} and {theirs[1]}"


class Noisy(Dataset[Any]):
    """Samples from every random source of a worker, small and large, with what the worker knows about itself."""

    def __init__(self, length: int = 24) -> None:
        self.length = length
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        info = get_worker_info()
        assert info is not None
        return {
            "index": index,
            "epoch": self.epoch,
            "image": torch.rand(180, 180),
            "crop": (torch.randint(0, 9, (3,)), random.random(), np.random.rand(2)),
            "worker": (info.id, info.num_workers, info.seed, torch.initial_seed(), torch.get_num_threads()),
            "name": f"sample {index}",
        }


class Numbers(Dataset[Any]):
    """The index itself."""

    def __init__(self, length: int = 24) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return index


class Restless:
    """A sampler that draws in `__iter__` and at every step, and counts both."""

    def __init__(self, length: int, batch: int = 0) -> None:
        self.length = length
        self.batch = batch
        self.iters = 0
        self.steps = 0

    def __iter__(self) -> Iterator[Any]:
        self.iters += 1
        self.left = self.length
        torch.rand(1)
        random.random()
        return self

    def __next__(self) -> Any:
        self.steps += 1
        np.random.rand()
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        if self.batch:
            return torch.randint(0, self.length, (self.batch,)).tolist()
        return int(torch.randint(0, self.length, ()))
