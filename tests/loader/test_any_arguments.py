"""Any arguments together: the same seeded program under both loaders gives the same batches and leaves the same states.

The single behaviours have tests of their own (test_equal_to_torch.py and others); here they meet each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset, RandomSampler, default_collate, get_worker_info

from tests.loader.side_by_side import Diary, Restless, assert_same

LENGTH = 11


def drawn(index: int) -> dict[str, Any]:
    """A sample from every random source of the process, that is large enough to travel in a slot."""
    noise = (torch.rand(2), random.random(), np.random.rand())
    return {"index": index, "noise": noise, "image": torch.rand(60, 60), "name": str(index)}


class Drawing(Dataset[Any]):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return drawn(index)


class DrawingAtOnce(Drawing):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [drawn(index) for index in reversed(indices)]


class Counting(Drawing):
    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset[Any]):
    """Its workers share the samples, and one has less to do than the others."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        step, first = (info.num_workers, info.id) if info is not None else (1, 0)
        yield from map(drawn, range(first, LENGTH, step))


def as_arrays(samples: Any) -> Any:
    """A collate function of a program's own: arrays, a draw, and an attribute that it adds."""
    samples = samples if isinstance(samples, list) else [samples]
    images = np.stack([sample["image"].numpy() for sample in samples])
    return {"images": images, "first": images[0], "shift": np.random.rand(), "samples": samples}


COLLATES = {"default": None, "list": list, "torch's own": default_collate, "arrays": as_arrays}


@dataclass(frozen=True)
class Case:
    """One program."""

    dataset: type[Any] = Drawing
    batch_size: int | None = 3
    order: str = "in turn"
    drop_last: bool = False
    workers: int = 2
    prefetch: int = 2
    persistent: bool = False
    in_order: bool = True
    collate: str = "default"
    own_generator: bool = False
    left_after: int = 99
    """Batches after which the first epoch is left."""

    def arguments(self) -> dict[str, Any]:
        """Of a DataLoader; combinations that torch refuses are bent until it does not."""
        data = self.dataset()
        generator = torch.Generator().manual_seed(5) if self.own_generator else None
        given: dict[str, Any] = {"dataset": data, "num_workers": self.workers, "generator": generator}
        if self.workers:
            given |= {
                "prefetch_factor": self.prefetch,
                "persistent_workers": self.persistent,
                "in_order": self.in_order,
            }
        if not (self.collate == "torch's own" and self.batch_size is None):
            given["collate_fn"] = COLLATES[self.collate]
        if self.order == "batches" and self.batch_size is not None and self.dataset is not Stream:
            return given | {"batch_sampler": Restless(4, batch=self.batch_size)}
        given |= {"batch_size": self.batch_size, "drop_last": self.drop_last and self.batch_size is not None}
        if self.dataset is Stream:
            return given
        if self.order == "repeated":
            given["sampler"] = RandomSampler(data, replacement=True, num_samples=8, generator=generator)
        elif self.order == "restless":
            given["sampler"] = Restless(9)
        return given | {"shuffle": self.order == "shuffled"}

    def program(self, loader_class: type[TorchDataLoader[Any]], diary: Diary) -> None:
        """Two epochs, of which the first may be left."""
        loader = loader_class(**self.arguments())
        if self.in_order or self.workers < 2:
            diary.read(loader, at_most=self.left_after)
            diary.read(loader)
        else:
            diary.note("batches", sorted(str(batch) for batch in loader))
        if self.dataset is not Stream and self.order not in {"restless", "batches"}:
            diary.note("length", len(loader))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Contents may depend on who makes a batch only where it is certain who does."""
    in_order = draw(st.sampled_from([True, True, True, False]))
    dataset = draw(st.sampled_from([Drawing, DrawingAtOnce, Counting, Stream])) if in_order else Counting
    collates = ["default", "list"] if dataset is Counting else list(COLLATES)
    return Case(
        dataset,
        draw(st.sampled_from([None, 1, 2, 3, 20])),
        draw(st.sampled_from(["in turn", "shuffled", "repeated", "restless", "batches"])),
        draw(st.booleans()),
        draw(st.integers(0, 3)),
        draw(st.integers(1, 4)),
        draw(st.booleans()),
        in_order,
        draw(st.sampled_from(collates)),
        draw(st.booleans()),
        draw(st.sampled_from([0, 1, 3, 99])),
    )


@settings(
    max_examples=18,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@example(Case(order="shuffled", persistent=True, left_after=1))
@example(Case(dataset=Counting, in_order=False, order="shuffled", workers=3))
@given(cases())
def test_the_same_program_sees_the_same_under_both_loaders(case: Case) -> None:
    assert_same(case.program)
