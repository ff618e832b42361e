"""`on_error="skip"`: one broken sample costs that sample, and nothing else."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
    get_worker_info,
)
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from keepfed.errors import EmptyBatch, SkippedTooMany, WorkerDied
from keepfed.loader import broken, channel, crew, epoch, skipped, stats
from keepfed.policy import order
from tests.loader.interrupting import Interrupter
from tests.loader.side_by_side import Diary, Noisy, Numbers, describe, diary_of, random_states, seed_all
from tests.loader.steered import decide, move, read, steered

METHODS = ["fork", "forkserver", "spawn"]
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher of ranks around these tests."""
    for name in (
        *skipped.WORLD_SIZES,
        "LOCAL_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "MPI_LOCALNRANKS",
        "SLURM_STEP_ID",
    ):
        monkeypatch.delenv(name, raising=False)


class Broken(Numbers):
    """0, 1, 2, …, and ValueError at some."""

    def __init__(self, length: int, *broken: int) -> None:
        super().__init__(length)
        self.broken = broken

    def __getitem__(self, index: int) -> int:
        if index in self.broken:
            raise ValueError(f"sample {index} is broken")
        return index


class Records:
    """An iterator that raises at some numbers, and goes on after that."""

    def __init__(self, numbers: Any, *broken: int) -> None:
        self.numbers, self.broken = iter(numbers), broken

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        number: int = next(self.numbers)
        if number in self.broken:
            raise OSError(f"record {number} is torn")
        return number


class Stream(IterableDataset[Any]):
    """Records, every worker a share of its own."""

    def __init__(self, length: int, *broken: int) -> None:
        self.length, self.broken = length, broken

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return Records(range(start, self.length, step), *self.broken)


def skipping(dataset: Any, **options: Any) -> Any:
    return keepfed.DataLoader(dataset, **{"on_error": "skip", **options})


def plain(batches: Any) -> list[Any]:
    return [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in batches]


# ----------------------------------------------------------------------------------------------------------------- batches


@WORKERS
def test_a_broken_sample_leaves_its_batch_and_no_other_batch_changes(workers: int) -> None:
    loader = skipping(Broken(10, 1, 6, 7), batch_size=4, num_workers=workers)
    assert plain(loader) == [[0, 2, 3], [4, 5], [8, 9]]
    assert loader.stats().skipped == 3
    assert loader.stats().skipped_indices == (1, 6, 7)


@WORKERS
@pytest.mark.parametrize("where", ["loader", "batch sampler"])
def test_with_drop_last_the_next_good_sample_of_the_batch_fills_the_hole(workers: int, where: str) -> None:
    options: dict[str, Any] = {"batch_size": 4, "drop_last": True}
    if where == "batch sampler":
        options = {"batch_sampler": BatchSampler(SequentialSampler(range(14)), 4, drop_last=True)}
    loader = skipping(Broken(14, 0, 1, 6, 11), num_workers=workers, **options)
    assert plain(loader) == [[2, 2, 2, 3], [4, 5, 7, 7], [8, 9, 10, 8]]
    assert loader.stats().skipped == 4


def test_the_sample_that_fills_a_hole_is_a_copy() -> None:
    """Collate functions take samples apart."""

    class Labelled(Broken):
        def __getitem__(self, index: int) -> Any:
            return {"image": super().__getitem__(index), "label": index % 2}

    def apart(samples: list[Any]) -> Any:
        return [sample.pop("label") for sample in samples], [sample.pop("image") for sample in samples]

    loader = skipping(Labelled(4, 1), batch_size=4, drop_last=True, collate_fn=apart)
    assert list(loader) == [([0, 0, 0, 1], [0, 2, 2, 3])]


@WORKERS
def test_a_batch_of_which_nothing_is_left_is_left_out(workers: int) -> None:
    loader = skipping(Broken(10, 0, 1, 4, 5, 9, 8), batch_size=2, num_workers=workers)
    assert plain(loader) == [[2, 3], [6, 7]]
    assert plain(loader) == [[2, 3], [6, 7]]
    assert loader.stats().skipped == 12


@WORKERS
def test_without_batching_a_broken_sample_is_left_out(workers: int) -> None:
    loader = skipping(Broken(6, 0, 3), batch_size=None, num_workers=workers)
    assert list(loader) == [1, 2, 4, 5]
    assert loader.stats().skipped_indices == (0, 3)


def test_what_a_broken_sample_had_collated_does_not_travel_with_the_next_batch() -> None:
    class Collates(Numbers):
        def __init__(self, *, breaks: bool) -> None:
            super().__init__(4)
            self.breaks = breaks

        def __getitem__(self, index: int) -> Any:
            if index % 2 and not self.breaks:
                return index
            batch = default_collate([torch.full((100_000,), index, dtype=torch.int32)] * 2)
            return batch if index % 2 == 0 else 1 // 0

    broken_ones = skipping(Collates(breaks=True), batch_size=None, num_workers=1)
    others = skipping(Collates(breaks=False), batch_size=None, num_workers=1)
    assert [int(batch.sum()) for batch in broken_ones] == [0, 400_000]
    assert len(list(others)) == 4
    assert broken_ones.stats().bytes == others.stats().bytes


@WORKERS
def test_an_epoch_of_broken_samples_is_empty(workers: int) -> None:
    assert list(skipping(Broken(8, *range(8)), batch_size=2, num_workers=workers)) == []


@pytest.mark.parametrize("method", METHODS)
def test_every_start_method_skips(method: str) -> None:
    loader = skipping(Broken(8, 2, 4, 5), batch_size=2, num_workers=2, multiprocessing_context=method)
    assert plain(loader) == [[0, 1], [3], [6, 7]]


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
def test_batches_without_errors_are_torchs_with_torchs_random_states(options: dict[str, Any]) -> None:
    def program(loader_class: Any, diary: Diary) -> None:
        for workers in (0, 2):
            more = options if workers else {}
            loader = loader_class(Seeded(), batch_size=3, num_workers=workers, shuffle=True, **more)
            diary.read(loader)
            diary.read(loader, at_most=2)

    class Seeded(Noisy):
        def __getitem__(self, index: int) -> Any:
            return index, torch.rand(3)

    ours: Any = functools.partial(keepfed.DataLoader, on_error="skip")
    assert diary_of(program, ours) == diary_of(program, TorchDataLoader)


def test_batches_after_a_broken_one_have_the_draws_that_they_have_after_a_caught_error() -> None:
    class Draws(Broken):
        def __getitem__(self, index: int) -> Any:
            drawn = torch.rand(2)
            return super().__getitem__(index), drawn

    def batches(**options: Any) -> dict[int, Any]:
        seed_all(1)
        found: dict[int, Any] = {}
        iterator = iter(keepfed.DataLoader(Draws(12, 3), batch_size=2, num_workers=2, **options))
        for _ in range(7):
            try:
                batch = next(iterator)
                found[int(batch[0][-1])] = describe(batch), random_states()
            except ValueError:
                found[3] = None
            except StopIteration:
                break
        return found

    raised, skips = batches(), batches(on_error="skip")
    assert raised.pop(3) is None
    assert {number: skips[number] for number in raised} == raised
    assert set(skips) - set(raised) == {2}


# ----------------------------------------------------------------------------------------------- whole batches in one call


class AtOnce(Broken):
    """Makes a batch in one call."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        return [super(AtOnce, self).__getitem__(index) for index in indices]


class OnlyAtOnce(Dataset[Any]):
    """Cannot make one sample."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        if 3 in indices:
            raise ValueError("something of it is broken")
        return indices

    def __len__(self) -> int:
        return 6


@WORKERS
def test_a_batch_that_is_made_in_one_call_is_made_one_by_one_when_that_raises(workers: int) -> None:
    assert plain(skipping(AtOnce(8, 2), batch_size=4, num_workers=workers)) == [[0, 1, 3], [4, 5, 6, 7]]
    assert plain(skipping(Subset(Broken(9, 2), range(8)), batch_size=4)) == [[0, 1, 3], [4, 5, 6, 7]]


@WORKERS
def test_of_a_dataset_that_makes_only_batches_the_whole_batch_is_broken(workers: int) -> None:
    loader = skipping(OnlyAtOnce(), batch_size=2, num_workers=workers)
    assert plain(loader) == [[0, 1], [4, 5]]
    assert loader.stats().skipped_indices == (2, 3)


# ----------------------------------------------------------------------------------------------------------------- streams


@WORKERS
def test_a_stream_goes_on_after_its_iterator_raised(workers: int) -> None:
    loader = skipping(Stream(10, 3, 4, 5), batch_size=2, num_workers=min(workers, 1))
    assert plain(loader) == [[0, 1], [2], [6, 7], [8, 9]]
    assert loader.stats().skipped == 3


@WORKERS
def test_a_stream_has_as_many_batches_as_without_the_error(workers: int) -> None:
    """Other ranks count on it."""
    options: dict[str, Any] = {"batch_size": 3, "drop_last": True, "num_workers": workers}
    assert len(list(skipping(Stream(24, 7, 10, 21), **options))) == len(list(skipping(Stream(24), **options)))


@WORKERS
def test_a_generator_that_raises_is_finished_and_so_raises_with_that_reason(workers: int) -> None:
    class Generated(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            for number in range(6):
                yield number if number != 2 else 1 // 0

    with pytest.raises(ZeroDivisionError) as caught:
        list(skipping(Generated(), batch_size=2, num_workers=min(workers, 1)))
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "a generator is finished once it raises" in text


@WORKERS
def test_a_stream_that_only_raises_is_given_up(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken, "MOST_IN_A_ROW", 5)
    endless = Stream(1 << 40, *range(4, 100))
    with pytest.raises(OSError, match="record 9 is torn"):
        list(skipping(endless, batch_size=2, num_workers=min(workers, 1)))


def test_a_stream_that_ends_right_after_an_error_is_said_to_have_lost_its_rest_perhaps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert plain(skipping(Stream(4, 3), batch_size=2)) == [[0, 1], [2]]
    assert "of type Records ended right after a sample that raised" in caplog.text


# ------------------------------------------------------------------------------------------------------ what is not skipped


@WORKERS
def test_what_a_collate_function_raises_is_raised(workers: int) -> None:
    def collate(samples: list[int]) -> list[int]:
        return [1 // (sample - 5) for sample in samples]

    loader = skipping(Broken(8, 4), batch_size=2, num_workers=workers, collate_fn=collate)
    with pytest.raises(ZeroDivisionError):
        list(loader)
    assert loader.stats().skipped_indices == (4,)


def test_what_a_worker_init_fn_raises_is_raised() -> None:
    def init(worker_id: int) -> None:
        raise ValueError("not here")

    with pytest.raises(ValueError, match="not here"):
        list(skipping(Broken(4), num_workers=1, worker_init_fn=init))


def test_an_exit_of_the_worker_is_no_broken_sample() -> None:
    class Exits(Broken):
        def __getitem__(self, index: int) -> int:
            return index if index != 1 else os._exit(3)

    with pytest.raises(WorkerDied):
        list(skipping(Exits(4), num_workers=1))


def test_an_exception_class_of_the_worker_and_one_without_words_are_skipped() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Raises(Broken):
        def __getitem__(self, index: int) -> int:
            if index == 1:
                raise Mute
            return index

    loader = skipping(Raises(3), num_workers=1)
    assert plain(loader) == [[0], [2]]


def test_a_loader_that_does_not_ask_for_it_raises() -> None:
    with pytest.raises(ValueError, match="sample 1 is broken"):
        list(keepfed.DataLoader(Broken(4, 1)))


# ------------------------------------------------------------------------------------------------------------------- limit


@WORKERS
def test_more_than_max_skipped_end_the_run_with_count_limit_and_indices(workers: int) -> None:
    loader = skipping(Broken(12, 1, 4, 9), batch_size=2, num_workers=workers, max_skipped=4)
    assert len(list(loader)) == 6
    with pytest.raises(SkippedTooMany, match=r"5 samples .* allows 4.*\[1, 4, 9, 1, 4\].*sample 4 is broken"):
        list(loader)


@WORKERS
def test_a_limit_of_none_at_all_raises_at_the_first(workers: int) -> None:
    loader = skipping(Broken(4, 0, 1), batch_size=2, num_workers=workers, max_skipped=0)
    with pytest.raises(SkippedTooMany):
        next(iter(loader))


def test_after_ten_only_the_hundredth_and_the_thousandth_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    loader = skipping(Broken(1200, *range(1, 1200)), batch_size=100, num_workers=1)
    with caplog.at_level(logging.WARNING, "keepfed"):
        assert plain(loader) == [[0]]
    lines = [record.message for record in caplog.records]
    assert [line.rpartition("skipped so far")[0].rpartition(". ")[2] for line in lines] == [
        *(f"{count} " for count in range(1, 11)), "100 ", "1000 ",
    ]  # fmt: skip
    assert "sample 1 of dataset Broken" in lines[0]
    assert "ValueError: sample 1 is broken" in lines[0]
    assert loader.stats().skipped == 1199
    assert loader.stats().skipped_indices == tuple(range(1100, 1200))


# ------------------------------------------------------------------------------------------------------------------- ranks


@WORKERS
def test_among_ranks_an_empty_batch_is_an_error_and_a_smaller_one_is_not(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    iterator = iter(skipping(Broken(8, 1, 4, 5), batch_size=2, num_workers=workers))
    assert plain([next(iterator), next(iterator)]) == [[0], [2, 3]]
    with pytest.raises(EmptyBatch, match=r"batch 2, indices \[4, 5\](.|\n)*sample 5 is broken(.|\n)*wait for it"):
        next(iterator)
    assert plain(iterator) == [[6, 7]]


@pytest.mark.parametrize("variable", [*skipped.WORLD_SIZES, "LOCAL_WORLD_SIZE"])
def test_ranks_are_known_from_what_their_launcher_says(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not skipped.several_ranks()
    for said, several in (("", False), ("no number", False), ("1", False), ("2", True)):
        monkeypatch.setenv(variable, said)
        assert skipped.several_ranks() is several


@pytest.mark.parametrize(("size", "several"), [(1, False), (2, True)])
def test_a_process_group_says_better_than_the_environment_how_many_ranks_there_are(
    size: int, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(3 - size))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: size)
    assert skipped.several_ranks() is several


# ------------------------------------------------------------------------------------------------ deaths, Ctrl-C, steering


class Deadly(Broken):
    """Skips a sample and then dies in the same batch, once."""

    def __init__(self, mark: Path, length: int, *broken: int) -> None:
        super().__init__(length, *broken)
        self.mark = mark

    def __getitem__(self, index: int) -> int:
        if index == 7 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_sample_that_is_skipped_again_after_a_death_counts_once(tmp_path: Path) -> None:
    loader = skipping(Deadly(tmp_path / "died", 16, 2, 6, 14), batch_size=2, num_workers=2)
    assert plain(loader) == [[0, 1], [3], [4, 5], [7], [8, 9], [10, 11], [12, 13], [15]]
    assert loader.stats().restarts == 1
    assert loader.stats().skipped_indices == (2, 6, 14)


def test_ctrl_c_at_any_line_loses_no_batch_and_counts_no_sample_twice() -> None:
    """One interrupt per epoch, at one line later each time, until there is no such line."""
    loader = skipping(Broken(5, 0, 2), batch_size=None, num_workers=1, prefetch_factor=1, persistent_workers=True)
    files = {module.__file__ for module in (channel, crew, epoch, order, skipped, stats)}
    at_the_very_return = {
        "Crew.deliver: if unusual:",
        "Crew.deliver: return batch",
        "EpochIter._next_data: self._reader = 0",
        "EpochIter.__next__: self._num_yielded += 1",
        "EpochIter.__next__: return batch",
    }
    interrupter = Interrupter(files)
    try:
        for position in itertools.count(1):
            before = loader.stats().skipped
            iterator = iter(loader)
            interrupter.next_at(position)
            got: list[Any] = []
            error: BaseException | None = None
            while not isinstance(error, StopIteration):
                batch, error = interrupter.run(functools.partial(next, iterator))
                assert error is None or isinstance(error, KeyboardInterrupt | StopIteration), interrupter.at
                got += [batch] if error is None else []
            assert got == [1, 3, 4] or interrupter.at in at_the_very_return, interrupter.at
            assert loader.stats().skipped - before == 2, interrupter.at
            if not interrupter.at:
                break
    finally:
        interrupter.close()
    assert position > 200


@pytest.mark.parametrize("start", [0, 1])
def test_a_steered_loader_skips_with_workers_without_and_while_it_moves(start: int, tmp_path: Path) -> None:
    with steered(tmp_path) as host:
        loader = skipping(Broken(80, 5, 8, 9, 50, 60, 61), batch_size=2, num_workers=start)
        iterator = host.iterator(loader)
        moves = {12: 2, 20: 3} if start else {}
        seen = read(iterator, host.pilot(loader), moves=moves, after=_moving(iterator, host, loader, start))
        found = plain(seen)
        assert [4] in found
        assert found == [[n for n in (k, k + 1) if n not in {5, 50}] for k in range(0, 80, 2) if k not in {8, 60}]
        assert keepfed.stats(loader).skipped == 6
        assert not iterator.refused()


def _moving(iterator: Any, host: Any, loader: Any, start: int) -> Callable[[int], None]:
    """Off num_workers=0 after some batches, and home again."""

    def after(number: int) -> None:
        if start == 0 and number in {12, 24}:
            assert not decide(iterator)
            move(iterator, host.pilot(loader), 2 if number == 12 else 0)

    return after
