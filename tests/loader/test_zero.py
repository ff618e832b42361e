"""A program that loads in its own process: when it is given workers, and that it never notices."""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from keepfed.errors import StoppedEarly
from keepfed.events import LoaderSeen, Moved
from keepfed.host.facts import read_host
from keepfed.loader import trial as trials
from keepfed.loader.identity import identify
from keepfed.plan import Plan
from keepfed.profile import HostProfile, LoaderProfile, Profile, write_profile
from tests.loader.side_by_side import describe, random_states, seed_all
from tests.loader.steered import Plain, Steered, decide, indices, move, read, steered


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path) as found:
        yield found


def verdict(host: Steered, dataset: Any, *, after: Callable[[int], None] | None = None, **options: Any) -> str:
    """Run an epoch in this process; why the loader may have no workers ("" when it may)."""
    loader = DataLoader(dataset, batch_size=4, **options)
    iterator = host.iterator(loader)
    read(iterator, host.pilot(loader), after=after)
    return decide(iterator)


# ------------------------------------------------------------------------------------------- datasets that must be refused


def test_a_curriculum_set_by_the_loop_batch_by_batch_stays(host: Steered) -> None:
    dataset: Any = Plain()
    dataset.difficulty = 0.0
    reason = verdict(host, dataset, after=lambda n: setattr(dataset, "difficulty", n + 1.0))
    assert "the training loop changes the dataset" in reason
    assert "Plain.difficulty" in reason


def test_a_curriculum_set_per_epoch_stays_from_the_second_epoch_on(host: Steered) -> None:
    dataset: Any = Plain(16)
    dataset.epoch = 0
    loader = DataLoader(dataset, batch_size=4)
    host.epoch(loader)
    dataset.epoch = 1
    iterator = host.iterator(loader)
    assert "Plain.epoch" in iterator.refused()
    assert indices(read(iterator, host.pilot(loader))) == list(range(16))


_cache: dict[int, Any] = {}


class _Cached(Plain):
    def __getitem__(self, index: int) -> Any:
        return self.__dict__.setdefault("cache", {}).setdefault(index, super().__getitem__(index))


class _CachedGlobally(Plain):
    def __getitem__(self, index: int) -> Any:
        return _cache.setdefault(index, super().__getitem__(index))


class _Counts(Plain):
    seen = 0

    def __getitem__(self, index: int) -> Any:
        self.seen += 1
        return super().__getitem__(index)


class _Grows(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []

    def __getitem__(self, index: int) -> Any:
        self.log.append(index)
        return super().__getitem__(index)


class _OwnGenerator(Plain):
    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def __getitem__(self, index: int) -> Any:
        getattr(self.generator, "random", lambda: torch.rand(1, generator=self.generator))()
        return super().__getitem__(index)


class _OpensLazily(Plain):
    file: Any = None

    def __getitem__(self, index: int) -> Any:
        if self.file is None:
            self.file = Path(__file__).open("rb")  # noqa: SIM115  # as such datasets do
        self.file.seek(index)
        return self.file.read(1), index


class _Slots:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        self.count += 1
        return index


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_Cached, "_Cached.cache"),
        (_CachedGlobally, "(global _cache)"),
        (_Counts, "_Counts.seen"),
        (_Grows, "_Grows.log"),
        (_Slots, "_Slots.count"),
        (lambda: _OwnGenerator(np.random.default_rng(0)), "generator"),
        (lambda: _OwnGenerator(random.Random(0)), "generator"),
        (lambda: _OwnGenerator(np.random.RandomState(0)), "generator"),
        (lambda: _OwnGenerator(torch.Generator()), "generator"),
    ],
)
def test_a_dataset_that_a_fetch_changes_stays(host: Steered, make: Callable[[], Any], what: str) -> None:
    reason = verdict(host, make())
    assert "loading a sample changes the dataset" in reason
    assert what in reason


def test_a_file_opened_at_the_first_access_stays(host: Steered) -> None:
    dataset = _OpensLazily()
    assert "_OpensLazily.file" in verdict(host, dataset)
    dataset.file.close()


def test_a_file_that_is_open_already_is_not_even_tried(host: Steered) -> None:
    """A child would move the position under the program's own reads."""
    dataset = _OpensLazily()
    with Path(__file__).open("rb") as dataset.file:
        loader = DataLoader(dataset, batch_size=4)
        iterator = host.iterator(loader)
        assert "open file (_OpensLazily.file)" in iterator.refused()
        assert iterator._trial._crew is None
        del iterator


def test_a_collate_function_that_remembers_stays(host: Steered) -> None:
    class Collate:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, samples: list[Any]) -> Any:
            self.calls += 1
            return samples

    seen: list[int] = []
    assert "Collate.calls" in verdict(host, Plain(), collate_fn=Collate())

    def remember(samples: list[Any]) -> Any:
        seen.append(len(samples))
        return samples

    assert "seen" in verdict(host, Plain(), collate_fn=remember)


_parent = os.getpid()


class _KnowsItsProcess(Plain):
    def __getitem__(self, index: int) -> Any:
        return index, os.getpid() == _parent


def test_a_dataset_that_behaves_differently_in_a_child_stays(host: Steered) -> None:
    assert "came out different in a child process" in verdict(host, _KnowsItsProcess())


class _FailsInChild(Plain):
    def __init__(self, how: Callable[[], Any]) -> None:
        super().__init__()
        self.how = how

    def __getitem__(self, index: int) -> Any:
        if os.getpid() != _parent:
            self.how()
        return super().__getitem__(index)


def _raise() -> None:
    raise OSError("no such database")


@pytest.mark.parametrize(
    ("how", "what"),
    [(_raise, "no such database"), (lambda: os.kill(os.getpid(), signal.SIGKILL), "is killed by signal")],
)
def test_a_child_that_fails_or_dies_is_the_answer_and_not_an_error(
    host: Steered, how: Callable[[], Any], what: str
) -> None:
    assert what in verdict(host, _FailsInChild(how))


def test_a_child_that_hangs_is_not_waited_for(host: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "PATIENCE_S", 0.2)
    dataset = _FailsInChild(lambda: time.sleep(60))
    dataset.length = 4000
    iterator = host.iterator(DataLoader(dataset, batch_size=4))
    for number, batch in enumerate(iterator):
        assert indices([batch])[0] == 4 * number
        time.sleep(0.01)
        if not iterator.undecided():
            break
    assert "no answer within" in iterator.refused()


class _Unpicklable(Plain):
    def __getitem__(self, index: int) -> Any:
        return lambda: index


class _NotCopied(Plain):
    def __getitem__(self, index: int) -> Any:
        return (number for number in range(index))


@pytest.mark.parametrize("dataset", [_Unpicklable(), _NotCopied()])
def test_batches_that_cannot_be_sent_or_copied_stay(host: Steered, dataset: Any) -> None:
    reason = verdict(host, dataset, collate_fn=list)
    assert "a child process could not make the first batches" in reason


def test_an_index_that_cannot_be_sent_stays(host: Steered) -> None:
    class Calls(Plain):
        def __getitem__(self, index: Any) -> Any:
            return index()

    loader = DataLoader(Calls(), batch_size=None, sampler=[lambda: 1, lambda: 2, lambda: 3])
    iterator = host.iterator(loader)
    assert read(iterator, host.pilot(loader)) == [1, 2, 3]
    assert "could not make" in iterator.refused()


def test_without_processes_to_be_had_the_program_runs_as_it_is(host: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_crew(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(trials, "Crew", no_crew)
    loader = DataLoader(Plain(16), batch_size=4)
    iterator = host.iterator(loader)
    assert "Resource temporarily unavailable" in iterator.refused()
    assert indices(read(iterator, host.pilot(loader))) == list(range(16))


def test_once_refused_no_child_is_forked_any_more(host: Steered) -> None:
    dataset = _Counts(16)

    def epoch() -> Any:
        loader = DataLoader(dataset, batch_size=4)
        iterator = host.iterator(loader)
        read(iterator, host.pilot(loader))
        host.pilot(loader).back_to_zero(decide(iterator))
        return iterator._trial

    first = epoch()
    assert first._crew is not None
    second = epoch()
    assert second._crew is None
    assert second.refused == first.refused


# ----------------------------------------------------------------------------------------------- datasets that must pass


class _Draws(Plain):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(2), random.random(), np.random.rand(2), index


@dataclasses.dataclass
class _Record:
    image: torch.Tensor
    name: str
    tags: set[str]


class _Everything(Plain):
    def __getitem__(self, index: int) -> Any:
        return {
            "none": None,
            "nan": float("nan"),
            "text": f"sample {index}",
            "array": np.full((3, 2), np.nan),
            "objects": np.array([None, "a"], dtype=object),
            "record": _Record(torch.full((30_000,), float(index)), "x", {"a", "b", str(index)}),
            "mapping": collections.UserDict(input_ids=torch.full((30_000,), index)),
            "sparse": torch.eye(3).to_sparse(),
            "conj": torch.full((3,), 1j).conj(),
            "empty": torch.zeros(0, 3),
        }


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (Plain(), {}),
        (_Draws(), {"shuffle": True}),
        (_Everything(), {"collate_fn": list}),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], {}),
        (range(12), {"drop_last": True}),
        (Plain(), {"worker_init_fn": lambda _: np.random.seed(0)}),
    ],
)
def test_an_honest_dataset_passes(host: Steered, dataset: Any, options: dict[str, Any]) -> None:
    assert verdict(host, dataset, **options) == ""


def test_batches_edited_by_the_program_are_compared_as_they_were(host: Steered) -> None:
    loader = DataLoader(Plain(), batch_size=4)
    iterator = host.iterator(loader)
    for _ in range(3):
        image, index = next(iterator)
        image.zero_()
        index.fill_(-1)
    assert decide(iterator) == ""


def test_epochs_of_one_batch_are_compared_across_epochs(host: Steered) -> None:
    loader = DataLoader(Plain(4), batch_size=4)
    for _ in range(2):
        iterator = host.iterator(loader)
        assert iterator.undecided()
        read(iterator, host.pilot(loader))
    assert decide(host.iterator(loader)) == ""


def test_an_empty_dataset_gives_no_batch(host: Steered) -> None:
    assert host.epoch(DataLoader(Plain(0), batch_size=4)) == []


def test_a_timeout_is_refused_in_torchs_own_way(host: Steered) -> None:
    loader = DataLoader(Plain(4), batch_size=4, timeout=3)
    with pytest.raises(AssertionError):
        iter(loader)
    with pytest.raises(AssertionError):
        host.iterator(loader)


def test_the_program_s_own_exception_in_the_first_batches_does_not_decide(host: Steered) -> None:
    class Broken(Plain):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise ValueError("sample 1 is broken")
            return super().__getitem__(index)

    loader = DataLoader(Broken(32), batch_size=4)
    iterator = host.iterator(loader)
    with pytest.raises(ValueError, match="sample 1 is broken") as caught:
        next(iterator)
    assert str(caught.value) == "sample 1 is broken"
    assert caught.value.__context__ is None
    caught.value.__traceback__ = None
    for _ in range(4):
        next(iterator)
    assert decide(iterator) == ""


# ------------------------------------------------------------------------------------------- the program notices nothing


class _CountingSampler:
    """Draws at every step, and counts."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.steps = 0

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.length):
            self.steps += 1
            yield int(torch.randint(0, 64, ()))

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize("dataset", [_Draws(), _Cached(), [5] * 64])
@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": True}, {"shuffle": True, "drop_last": True}])
def test_until_it_moves_every_draw_is_torchs(host: Steered, dataset: Any, options: dict[str, Any]) -> None:
    def notes(of: Callable[[DataLoader[Any]], Any]) -> list[Any]:
        seed_all(3)
        sampler = _CountingSampler(10)
        loader: Any = DataLoader(dataset, batch_size=3, **({"sampler": sampler} if "sampler" in options else options))
        found: list[Any] = []
        for _ in range(2):
            iterator = of(loader)
            found.append((random_states(), len(iterator)))
            found += [(describe(batch), random_states(), sampler.steps, torch.rand(1).item()) for batch in iterator]
        return found

    assert notes(host.iterator) == notes(iter)


def test_a_move_in_mid_epoch_loses_and_repeats_nothing(host: Steered) -> None:
    loader = DataLoader(Plain(400), batch_size=4)
    got = host.epoch(loader, moves={5: 1, 20: 3, 40: 2, 60: 0, 70: 2})
    assert indices(got) == list(range(400))
    assert host.pilot(loader).plan.num_workers == 2


def test_after_the_move_every_epoch_has_each_sample_once(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4, shuffle=True)
    host.epoch(loader, moves={4: 2})
    pids = set()
    for _ in range(3):
        iterator = host.iterator(loader)
        assert iterator._with_crew
        pids |= {worker.pid for worker in iterator._trial.crew.roster.members}
        got = indices(read(iterator, host.pilot(loader)))
        assert got != list(range(100))
        assert sorted(got) == list(range(100))
    assert len(pids) == 2  # the same workers in every epoch


def test_an_epoch_left_half_way_is_followed_by_a_whole_one(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    host.epoch(loader, moves={4: 2})
    iterator = host.iterator(loader)
    for _ in range(3):
        next(iterator)
    iterator = host.iterator(loader)
    assert indices(read(iterator, host.pilot(loader))) == list(range(100))


def test_two_iterators_at_once_have_each_their_own_epoch(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    host.epoch(loader, moves={4: 2})
    pairs = list(zip(host.iterator(loader), host.iterator(loader), strict=True))
    assert indices([one for one, _ in pairs]) == indices([other for _, other in pairs]) == list(range(100))


def test_a_dataset_changed_between_epochs_brings_the_program_home(host: Steered) -> None:
    dataset: Any = Plain(100)
    dataset.level = 0
    loader = DataLoader(dataset, batch_size=4)
    host.epoch(loader, moves={4: 2})
    dataset.level = 1
    iterator = host.iterator(loader)
    assert not iterator._with_crew
    assert indices(read(iterator, host.pilot(loader))) == list(range(100))
    assert host.pilot(loader).plan.num_workers == 0
    assert "Plain.level" in host.events(Moved)[-1].reason


class _Levelled(Plain):
    level = 0

    def __getitem__(self, index: int) -> Any:
        return self.level, index


def test_a_dataset_changed_in_mid_epoch_after_the_move_gives_no_stale_batch(host: Steered) -> None:
    dataset = _Levelled(400)
    loader = DataLoader(dataset, batch_size=4)

    def loop(number: int) -> None:
        if number == 50:
            dataset.level = 7
            time.sleep(0.2)  # longer than the looks at the dataset rest

    got = host.epoch(loader, moves={4: 2}, after=loop)
    assert indices(got) == list(range(400))
    assert [int(batch[0][0]) for batch in got] == [0] * 51 + [7] * 49
    assert "_Levelled.level" in host.events(Moved)[-1].reason


class _BreaksAt(Plain):
    def __getitem__(self, index: int) -> Any:
        if index == 50:
            raise KeyError("sample 50")
        if index == 90:
            raise StopIteration("the source is dry")
        return super().__getitem__(index)


def test_with_workers_exceptions_are_those_of_the_program(host: Steered) -> None:
    loader = DataLoader(_BreaksAt(100), batch_size=4)
    iterator = host.iterator(loader)
    pilot = host.pilot(loader)
    for _ in range(4):
        next(iterator)
    move(iterator, pilot, 2)
    for _ in range(8):
        next(iterator)
    with pytest.raises(KeyError) as caught:
        next(iterator)
    assert caught.value.args == ("sample 50",)
    assert indices([next(iterator)]) == [52, 53, 54, 55]
    for _ in range(8):
        next(iterator)
    with pytest.raises(StoppedEarly, match="batch 22, indices"):
        next(iterator)
    assert indices(list(iterator)) == [*range(92, 100)]
    caught.value.__traceback__ = None


def test_an_error_of_the_sampler_comes_where_the_program_would_have_met_it(host: Steered) -> None:
    def sampler() -> Iterator[int]:
        yield from range(60)
        raise OSError("the list is on a drive that is gone")

    class Once:
        def __iter__(self) -> Iterator[int]:
            return sampler()

    loader: DataLoader[Any] = DataLoader(Plain(100), batch_size=4, sampler=Once())
    iterator = host.iterator(loader)
    got = [next(iterator) for _ in range(4)]
    move(iterator, host.pilot(loader), 2)
    got += [next(iterator) for _ in range(11)]
    with pytest.raises(OSError, match="drive"):
        next(iterator)
    assert indices(got) == list(range(60))
    with pytest.raises(StopIteration):
        next(iterator)


def test_workers_that_are_killed_over_and_over_bring_the_program_home(host: Steered, tmp_path: Path) -> None:
    def die_when_told() -> None:
        if (tmp_path / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    dataset = _FailsInChild(die_when_told)
    dataset.length = 100
    loader = DataLoader(dataset, batch_size=4)
    got = host.epoch(loader, moves={4: 2}, after=lambda n: (tmp_path / f"{'die' if n >= 6 else n}").touch())
    assert indices(got) == list(range(100))
    assert "killed by signal" in host.pilot(loader).refused
    assert host.pilot(loader).plan.num_workers == 0


def test_a_forked_child_of_the_program_goes_on_by_itself(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    iterator = host.iterator(loader)
    got = [next(iterator) for _ in range(4)]
    move(iterator, host.pilot(loader), 2)
    got += [next(iterator) for _ in range(4)]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if indices(list(iterator)) == list(range(32, 100)) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert indices(got + list(iterator)) == list(range(100))


# ------------------------------------------------------------------------------------------------------------- plan files


def with_plan_file(tmp_path: Path, dataset: Any) -> tuple[list[Any], Any, Steered]:
    """Two epochs, the plan file says three workers; what was read, the second iterator, the host (closed)."""
    loader = DataLoader(dataset, batch_size=4)
    loader._keepfed_site = "train.py:41"  # as the hook sets it
    path = tmp_path / "keepfed.toml"
    entry = LoaderProfile(identify(loader), Plan(3))
    write_profile(path, Profile(HostProfile(read_host().fingerprint), (entry,)))
    with steered(tmp_path, plan_file=str(path)) as found:
        first = found.iterator(loader)
        assert not first._with_crew
        got = [next(first), next(first)]
        decide(first)
        got += read(first, found.pilot(loader))
        second = found.iterator(loader)
        with_crew = second._with_crew
        got += read(second, found.pilot(loader))
    return got, with_crew, found


def test_a_plan_file_takes_effect_as_soon_as_the_dataset_has_passed(tmp_path: Path) -> None:
    got, with_crew, host = with_plan_file(tmp_path, Plain(100))
    assert indices(got) == list(range(100)) * 2
    assert with_crew
    (seen,) = host.events(LoaderSeen)
    assert (seen.asked, seen.used, seen.source) == (Plan(0), Plan(3), "plan")
    assert "only if a child makes the same batches" in seen.note


def test_a_plan_file_does_not_force_workers_on_a_dataset_that_must_not_have_them(tmp_path: Path) -> None:
    got, with_crew, host = with_plan_file(tmp_path, _Counts(100))
    assert indices(got) == list(range(100)) * 2
    assert not with_crew
    (moved,) = host.events(Moved)
    assert (moved.plan, moved.kept) == (Plan(3), False)
    assert "_Counts.seen" in moved.reason


# ------------------------------------------------------------------------------------------------------ ends and beginnings


def test_a_loader_that_lives_only_in_the_for_statement_is_steered_too(host: Steered) -> None:
    seen = []
    dataset = Plain(100)
    for _ in range(3):
        iterator = host.iterator(DataLoader(dataset, batch_size=4, sampler=RandomSampler(dataset)))
        got = []
        for number, batch in enumerate(iterator):
            got.append(batch)
            if number == 4 and not iterator._with_crew:
                (pilot,) = host.fleet._pilots.values()
                move(iterator, pilot, 2)
        seen.append(sorted(indices(got)))
        del iterator
    assert seen == [list(range(100))] * 3


def test_a_loader_built_anew_is_compared_anew_and_then_has_workers_at_once(host: Steered) -> None:
    dataset = Plain(400)
    for epoch in range(3):
        loader = DataLoader(dataset, batch_size=4)
        iterator = host.iterator(loader)
        pilot = host.pilot(loader)
        assert len(host.fleet._pilots) == 1
        got = [next(iterator), next(iterator)]
        if epoch == 0:
            move(iterator, pilot, 2)
        else:
            decide(iterator)
        got += [next(iterator), next(iterator)]
        assert iterator._with_crew
        assert indices(got + read(iterator, pilot)) == list(range(400))
        del loader, iterator


def test_a_dropped_loader_leaves_no_worker(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    host.epoch(loader, moves={4: 2})
    pool = host.pilot(loader).trials
    (trial,) = pool
    members = trial.crew.roster.members
    del trial, loader
    assert not pool
    assert all(worker.gone for worker in members)


def test_a_fleet_that_is_closed_lets_iterators_go_on(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    iterator = host.iterator(loader)
    got = [next(iterator) for _ in range(4)]
    move(iterator, host.pilot(loader), 2)
    got += [next(iterator) for _ in range(4)]
    host.fleet.close()
    assert indices(got + list(iterator)) == list(range(100))


def test_stats_count_what_was_delivered_whoever_made_it(host: Steered) -> None:
    loader = DataLoader(Plain(100), batch_size=4)
    host.epoch(loader, moves={4: 2})
    host.epoch(loader)
    stats = host.pilot(loader).tally.snapshot()
    assert (stats.batches, stats.samples, stats.epochs) == (50, 200, 2)
    assert stats.epoch_s > 0
