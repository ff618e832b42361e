"""A stream that can say where it is goes on from there after a death; one that cannot is read from its beginning."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, get_worker_info

import keepfed.loader.api as keepfed
from keepfed.errors import WorkerDied
from keepfed.loader import notes, place
from tests.loader.side_by_side import describe, random_states, seed_all

METHODS = ["fork", "forkserver", "spawn"]
LENGTH, BATCH, WORKERS = 80, 2, 2
RESUMED = "goes on from its last state_dict"
READ_AGAIN = "is read again from the beginning of the epoch"


class Stream(IterableDataset[Any]):
    """Samples from every random source of a worker, each worker a share of its own; every read leaves a byte in a file."""

    def __init__(self, reads: Path) -> None:
        self.reads = reads
        reads.touch()

    def sample(self, number: int) -> Any:
        with self.reads.open("ab") as file:
            file.write(b".")
        return number, torch.rand(60), random.gauss(0, 1), np.random.randn()

    def share(self, start: int = 0) -> range:
        info = get_worker_info()
        assert info is not None
        return range(info.id, LENGTH, info.num_workers)[start:]

    def __iter__(self) -> Iterator[Any]:
        return map(self.sample, self.share())


class Cursor:
    """An iterator with a state."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        share = self.stream.share()
        if self.at >= len(share):
            raise StopIteration
        self.at += 1
        return self.stream.sample(share[self.at - 1])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class OfIterator(Stream):
    """torchdata's way: the iterator is Stateful."""

    def __iter__(self) -> Iterator[Any]:
        return Cursor(self)


class OfDataset(Stream):
    """Hugging Face's way: the dataset is Stateful, its iterator a generator."""

    start = at = 0

    def __iter__(self) -> Iterator[Any]:
        self.at, self.start = self.start, 0
        for number in self.share(self.at):
            self.at += 1
            yield self.sample(number)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["at"]


class ItsOwnIterator(Stream):
    """A dataset that is its iterator."""

    at = 0

    def __iter__(self) -> Iterator[Any]:
        self.at = 0
        return self

    __next__ = Cursor.__next__
    state_dict, load_state_dict = Cursor.state_dict, Cursor.load_state_dict

    @property
    def stream(self) -> Stream:
        return self


class Unmoved(Stream):
    """Has a state, and not that of its position: a module of weights in it."""

    def state_dict(self) -> dict[str, Any]:
        return {"weights": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("nobody may call this")


class TooLarge(OfDataset):
    """A shuffle buffer in the state."""

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "buffer": bytes(1 << 20)}


class Unable(OfDataset):
    """Has the methods, for others."""

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError


class Unpicklable(OfDataset):
    """Its state holds what cannot be pickled."""

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "of": lambda: None}


@pytest.fixture
def notes_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they cost: forked workers have it from here."""
    monkeypatch.setattr(notes, "COST_SHARE", 0)


def run(loader: Any, *, epochs: int = 1, kill: Any = ()) -> list[Any]:
    """Every batch of these epochs with the random states of this process; kills a worker after some of the batches."""
    seed_all(3)
    seen: list[Any] = []
    for _ in range(epochs):
        iterator = iter(loader)
        for batch in iterator:
            seen.append((describe(batch), random_states()))
            if len(seen) in kill:
                with contextlib.suppress(ProcessLookupError):  # dead already, and nobody has missed it yet
                    os.kill(iterator._workers[len(seen) % WORKERS].pid, signal.SIGKILL)
        del iterator
    return seen


def loader_of(kind: Any, dataset: Stream, **options: Any) -> Any:
    return kind(dataset, batch_size=BATCH, num_workers=WORKERS, **options)


@pytest.mark.usefixtures("notes_at_every_batch")
@pytest.mark.parametrize("kind", [OfIterator, OfDataset, ItsOwnIterator])
def test_a_stream_with_a_state_is_not_read_from_its_beginning(
    kind: type[Stream], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = run(loader_of(TorchDataLoader, kind(tmp_path / "torchs")))
    dataset = kind(tmp_path / "ours")
    loader = loader_of(keepfed.DataLoader, dataset)
    with caplog.at_level(logging.WARNING, "keepfed"):
        assert run(loader, kill={5, 12, 20, 30}) == undisturbed
    assert loader.stats().restarts >= 3
    assert dataset.reads.stat().st_size <= LENGTH + loader.stats().restarts * 2 * BATCH
    assert RESUMED in caplog.text
    assert READ_AGAIN not in caplog.text


@pytest.mark.usefixtures("notes_at_every_batch")
@pytest.mark.parametrize("kind", [Stream, Unmoved, TooLarge, Unable, Unpicklable])
def test_a_stream_whose_state_cannot_be_used_is_read_from_its_beginning(
    kind: type[Stream], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = run(loader_of(TorchDataLoader, kind(tmp_path / "torchs")))
    dataset = kind(tmp_path / "ours")
    with caplog.at_level(logging.WARNING, "keepfed"):
        assert run(loader_of(keepfed.DataLoader, dataset), kill={30}) == undisturbed
    assert dataset.reads.stat().st_size > LENGTH + 10 * BATCH
    assert READ_AGAIN in caplog.text
    assert RESUMED not in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_streams_resume_under_every_start_method(method: str, tmp_path: Path) -> None:
    undisturbed = run(loader_of(TorchDataLoader, OfIterator(tmp_path / "torchs")))
    loader = loader_of(keepfed.DataLoader, OfIterator(tmp_path / "ours"), multiprocessing_context=method)
    assert run(loader, kill={9, 25}) == undisturbed
    assert loader.stats().restarts


@pytest.mark.usefixtures("notes_at_every_batch")
@pytest.mark.parametrize(("kind", "said"), [(OfIterator, RESUMED), (OfDataset, READ_AGAIN)])
def test_in_persistent_workers_only_an_iterators_state_is_trusted(
    kind: type[Stream], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dataset may begin its next epoch where it was told to go on in this one."""
    undisturbed = run(loader_of(TorchDataLoader, kind(tmp_path / "torchs"), persistent_workers=True), epochs=3)
    loader = loader_of(keepfed.DataLoader, kind(tmp_path / "ours"), persistent_workers=True)
    with caplog.at_level(logging.WARNING, "keepfed"):
        assert run(loader, epochs=3, kill={10, 35, 55, 56, 90, 105}) == undisturbed
    assert said in caplog.text
    assert len({RESUMED in caplog.text, READ_AGAIN in caplog.text}) == 2


class Raises(OfDataset):
    """A generator that raises: whoever goes on finds it finished."""

    def sample(self, number: int) -> Any:
        if number == 20:
            raise ValueError("record 20 is torn")
        return super().sample(number)


@pytest.mark.usefixtures("notes_at_every_batch")
def test_a_generator_that_raised_is_finished_in_the_replacement_too(tmp_path: Path) -> None:
    def outcomes(loader_class: Any, *, kill: bool) -> list[Any]:
        seed_all(3)
        iterator = iter(loader_of(loader_class, Raises(tmp_path / loader_class.__module__)))
        seen: list[Any] = []
        while True:
            try:
                seen.append(describe(next(iterator)))
            except StopIteration:
                return seen
            except ValueError:
                seen.append("torn")
                if kill:
                    os.kill(iterator._workers[0].pid, signal.SIGKILL)

    assert outcomes(keepfed.DataLoader, kill=True) == outcomes(TorchDataLoader, kill=False)


class Torn:
    """A stateful iterator that raises at some numbers and goes on."""

    def __init__(self, dataset: TornStream) -> None:
        self.cursor = Cursor(dataset)
        self.dataset = dataset

    def __next__(self) -> Any:
        sample = next(self.cursor)
        if sample[0] in self.dataset.broken:
            raise OSError(f"record {sample[0]} is torn")
        return sample

    def state_dict(self) -> dict[str, Any]:
        return self.cursor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cursor.load_state_dict(state)


class TornStream(Stream):
    """Skipped samples and a state."""

    broken = frozenset({1, 8, 31, 44, 46, 70})

    def __iter__(self) -> Iterator[Any]:
        return Torn(self)  # type: ignore[return-value]  # torch calls next() only


@pytest.mark.usefixtures("notes_at_every_batch")
def test_skipped_samples_keep_their_places_in_a_resumed_stream(tmp_path: Path) -> None:
    def outcome(kill: set[int]) -> Any:
        dataset = TornStream(tmp_path / f"{len(kill)}")
        loader = loader_of(keepfed.DataLoader, dataset, on_error="skip")
        return run(loader, kill=kill), loader.stats().skipped_indices, loader.stats().restarts > 0

    seen, places, _ = outcome(set())
    assert places == (0, 4, 15, 22, 23, 35)
    assert outcome({4, 20, 28}) == (seen, places, True)


class Unloadable(OfIterator):
    """Can say where it is and cannot go there."""

    def __iter__(self) -> Iterator[Any]:
        cursor = Cursor(self)
        cursor.load_state_dict = _fails  # type: ignore[method-assign]  # of this one object
        return cursor


def _fails(state: Any) -> None:
    raise ValueError("cannot go there")


@pytest.mark.usefixtures("notes_at_every_batch")
def test_a_state_that_cannot_be_loaded_is_an_error_and_no_other_samples(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"could not be resumed by load_state_dict \(ValueError: cannot go there\)"):
        run(loader_of(keepfed.DataLoader, Unloadable(tmp_path / "ours")), kill={11})


# ------------------------------------------------------------------------------- what is known not to be exact, by itself


def hugging_face(name: str, **attributes: Any) -> Any:
    """An object of a class that looks like one of the library's."""
    kind = type(name, (), {"__module__": "datasets.iterable_dataset"})
    found = kind()
    vars(found).update(attributes)
    return found


def test_hugging_faces_shuffle_buffer_is_read_again_and_its_shards_are_resumed() -> None:
    shards = hugging_face("ShuffledDataSourcesArrowExamplesIterable")
    buffered = hugging_face("BufferShuffledExamplesIterable", ex_iterable=shards, buffer_size=1000)
    mixed = hugging_face("CyclingMultiSourcesExamplesIterable", ex_iterables=[shards, buffered])
    for parts, inexact in ((shards, False), (buffered, True), (mixed, True)):
        mapped = hugging_face("MappedExamplesIterable", ex_iterable=parts)
        assert place.is_inexact(hugging_face("IterableDataset", _ex_iterable=mapped, _formatting=None)) is inexact


@pytest.mark.parametrize("table", [True, False])
def test_hugging_faces_tables_are_read_again(table: bool) -> None:
    formatting = hugging_face("FormattingConfig", is_table=table)
    assert place.is_inexact(hugging_face("IterableDataset", _ex_iterable=None, _formatting=formatting)) is table
