"""The batches that transport.py sends: what programs really make, and how they consume it.

The first seven carry a bar. The others are the ways in which programs differ from a benchmark: they keep what they get,
batch by themselves, carry strings, begin an epoch every second. There nothing is promised but that no row is slower.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset, default_collate

KINDS = 8
"""Datasets hold so many samples in memory and hand them out in turn: fetching one costs nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of batch, and what a program does with it."""

    name: str
    dataset: Callable[[int], Any]
    """Makes the dataset of an epoch of so many samples."""
    batch_size: int | None
    """None: the dataset's items travel as they are."""
    batches: int
    """Batches in one timed epoch."""
    bar: float | None = None
    """Times torch's throughput that the interval's lower end has to reach, with two workers; None: not slower."""
    collate_fn: Callable[[Any], Any] | None = None
    consume: Callable[[Any], int] | None = None
    """Reads one epoch and says how many batches came; None: each is dropped as soon as it is there."""
    persistent: bool = True
    """Whether workers outlive the epoch."""
    epochs: int = 1
    """Epochs in one timing."""
    work_bound: bool = False
    """Whether the workers' own work is what takes the time: then their CPU seconds are compared, too."""


class Ready(Dataset[Any]):
    """Samples of one shape, with their index."""

    def __init__(self, length: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(0)
        self.samples = [(torch.rand(shape, generator=draw) * 255).to(dtype) for _ in range(KINDS)]
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % KINDS], index


class Fields(Ready):
    """Six small tensors by name, as tokenizers make them."""

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index % KINDS]
        return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids", "position", "label", "weight"), sample)


class Clips(Ready):
    """Samples of 200 to 1600 frames, as speech has them."""

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % KINDS][: 200 + index * 7919 % 1401], index


class Sentences(Ready):
    """Text with nested lists: nothing of it is a tensor."""

    def __getitem__(self, index: int) -> Any:
        return {"text": f"sentence {index} " * 8, "spans": [[index, index + 3], [index + 4, index + 9]]}


class Busy(Ready):
    """Samples that cost 5 ms of CPU time each, whatever happens to be in the caches."""

    def __init__(self, length: int, shape: tuple[int, ...], dtype: torch.dtype, sample_s: float = 0.005) -> None:
        super().__init__(length, shape, dtype)
        self.rounds = 0
        probe = bytes(64 << 10)
        end_s = time.thread_time() + 0.2
        while time.thread_time() < end_s:
            hashlib.sha256(probe)
            self.rounds += 1
        self.rounds = max(1, round(self.rounds * sample_s / 0.2))

    def __getitem__(self, index: int) -> Any:
        probe = bytes(64 << 10)
        for _ in range(self.rounds):
            hashlib.sha256(probe)
        return super().__getitem__(index)


class Stream(IterableDataset[Any]):
    """The same without an index: each worker yields its share."""

    def __init__(self, length: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.ready = Ready(length, shape, dtype)

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info is not None else (0, 1)
        return (self.ready[index] for index in range(first, len(self.ready), step))


@dataclass
class Sample:
    """A batch as a class of the program's own."""

    x: torch.Tensor
    y: torch.Tensor


def as_arrays(samples: list[Any]) -> Any:
    """A collate that knows only NumPy."""
    return np.stack([sample.numpy() for sample, _ in samples]), np.array([index for _, index in samples])


def as_dataclass(samples: list[Any]) -> Sample:
    """A collate that makes an object."""
    return Sample(*default_collate(samples))


def padded(samples: list[Any]) -> Any:
    """A collate that makes batches as long as their longest sample."""
    return pad_sequence([sample for sample, _ in samples], batch_first=True), [index for _, index in samples]


def as_they_are(samples: list[Any]) -> list[Any]:
    """No collating."""
    return samples


def keep_all(loader: Any) -> int:
    """Hold every batch until the epoch is over."""
    return len(list(loader))


def keep_labels(loader: Any) -> int:
    """Hold every label, as evaluation loops do."""
    return len([batch[1] for batch in loader])


def ready(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, kind: Callable[..., Any] = Ready) -> Any:
    """Makes datasets of this sample."""
    return lambda length: kind(length, shape, dtype)


IMAGE = (3, 224, 224)
CASES = (
    Case("256x3x224x224 float32", ready(IMAGE), 256, 16, 2.5),
    Case("256x3x224x224 uint8", ready(IMAGE, torch.uint8), 256, 40, 2.8),
    Case("64x1024 float32", ready((1024,)), 64, 800, 5.0),
    Case("8x16 float32", ready((16,)), 8, 1600, 10.0),
    Case("dict of 6, batch 32", ready((16,), kind=Fields), 32, 600, 5.0),
    Case("NumPy collate, 20 MB", ready((20_000,)), 250, 60, 3.0, collate_fn=as_arrays),
    Case("work-bound, 5 ms/sample", ready((64,), kind=Busy), 8, 100, persistent=False, work_bound=True),
    Case("list(loader), 39 MB", ready(IMAGE, torch.uint8), 256, 16, consume=keep_all),
    Case("labels kept, 39 MB", ready(IMAGE, torch.uint8), 256, 40, consume=keep_labels),
    Case("batch_size=None, 64 KB", ready((16_384,)), None, 1000),
    Case("strings, nested lists", ready((1,), kind=Sentences), 32, 1000, collate_fn=as_they_are),
    Case("dataclass, 1 MB", ready((8_192,)), 32, 400, collate_fn=as_dataclass),
    Case("padded clips, 4-8 MB", ready((1_600, 80), kind=Clips), 16, 100, collate_fn=padded),
    Case("epochs of 8 batches", ready((1024,)), 64, 8, persistent=False, epochs=5),
    Case("iterable, 64x1024", ready((1024,), kind=Stream), 64, 800),
)
