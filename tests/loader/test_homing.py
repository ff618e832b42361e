"""num_workers="auto" without workers: what must be proven first, that batches stay the same, and the way back."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import random
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader, default_collate, get_worker_info

from keepfed.events import Moved
from keepfed.host.facts import read_host
from keepfed.loader import aside, crew, epoch, home, homing
from keepfed.loader.compare import first_difference
from keepfed.loader.count import WorkerCount
from keepfed.loader.draws import states
from keepfed.loader.home import READ_EPOCHS, own_of, why_not_home
from keepfed.loader.identity import identify
from keepfed.loader.pilot import Pilot
from keepfed.loader.requests import Requests
from keepfed.plan import Plan
from keepfed.policy import order
from keepfed.policy.controller import Decision, Hold, Move, Reason
from keepfed.profile import HostProfile, LoaderProfile, Profile, write_profile
from tests.loader.interrupting import Interrupter
from tests.loader.steered import Plain, Steered, indices, steered

HOLD = Hold(Reason("tune.reason_measuring", {}))
GO_HOME = Move(Plan(0), Reason("tune.reason_fewer", {}))
HERE = os.getpid()


class SendsHome:
    """A controller that sends a loader home once, as soon as it is asked."""

    def __init__(self, pilot: Pilot) -> None:
        self.bounds = pilot._controller.bounds
        self.log: list[Any] = []
        self.judged = 0
        self._left = [GO_HOME]

    def epoch_ended(self) -> Decision:
        return self._left.pop() if self._left else HOLD

    def observe(self, window: Any) -> Decision:
        return HOLD

    def estimate(self, plan: Plan) -> None:
        return None


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path) as found:
        yield found


def auto(dataset: Any, **options: Any) -> DataLoader[Any]:
    options = {"batch_size": 4, "num_workers": WorkerCount(2, Requests(auto=True)), **options}
    return DataLoader(dataset, **options)


def begun(host: Steered, loader: DataLoader[Any]) -> Any:
    """What `iter(loader)` returns."""
    if loader.persistent_workers and loader._iterator is not None:
        loader._iterator._reset(loader)
        return loader._iterator
    iterator = host.iterator(loader)
    if loader.persistent_workers:
        loader._iterator = iterator
    pilot = host.pilot(loader)
    if not isinstance(pilot._controller, SendsHome):
        pilot._controller = SendsHome(pilot)  # type: ignore[assignment]  # what a pilot asks of a controller
    return iterator


def epochs(host: Steered, loader: DataLoader[Any], count: int) -> list[list[Any]]:
    return [list(begun(host, loader)) for _ in range(count)]


def at_home(host: Steered, dataset: Any, **options: Any) -> tuple[DataLoader[Any], list[list[Any]]]:
    """A loader whose batches are made in this process by now."""
    loader = auto(dataset, **options)
    found = epochs(host, loader, READ_EPOCHS + 1)
    assert workers_of(host, loader) == 0, host.pilot(loader).no_home
    return loader, found


def workers_of(host: Steered, loader: DataLoader[Any]) -> int:
    return host.pilot(loader).plan.num_workers


class Drawing(Plain):
    """Every sample draws from all three generators, and says how many threads there are."""

    def __getitem__(self, index: int) -> Any:
        return index, torch.rand(3), random.random(), np.random.randn(), torch.get_num_threads()


def no_init(worker_id: int) -> None:
    """A worker_init_fn: with one, batches are never made in the training process."""


def program_draws() -> Any:
    """The program's own draws, of normal numbers one at a time: NumPy makes two and keeps one."""
    return torch.rand(1).item(), random.random(), np.random.randn()


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_and_the_programs_own_draws_are_the_same_without_workers(host: Steered, *, persistent: bool) -> None:
    found = []
    for init in (None, no_init):
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        loader = auto(Drawing(40), persistent_workers=persistent, shuffle=True, worker_init_fn=init)
        batches, drawn = [], []
        for _ in range(READ_EPOCHS + 2):
            for batch in begun(host, loader):
                batches.append(batch)
                drawn.append(program_draws() if len(batches) % 2 else 0)
        found.append((batches, drawn, pickle.dumps(states())))
        assert workers_of(host, loader) == (0 if init is None else 2)
        loader._iterator = None
    assert first_difference(found[0][0], found[1][0]) is None
    assert found[0][1:] == found[1][1:]


class Telling(Plain):
    """Where each batch was made: in a list that is out of sight, since samples must not differ."""

    def __getitem__(self, index: int, made_here: list[int] = []) -> Any:  # noqa: B006  # out of sight
        if os.getpid() == HERE:
            made_here.append(index)
        return super().__getitem__(index)


def made_here() -> list[int]:
    (found,) = Telling.__getitem__.__defaults__ or ()
    taken = list(found)
    found.clear()
    return taken


def test_two_batches_are_compared_and_come_from_the_worker_then_they_are_made_here(host: Steered) -> None:
    loader = auto(Telling(24))
    epochs(host, loader, READ_EPOCHS)
    assert made_here() == []
    (third,) = epochs(host, loader, 1)
    assert [int(index) for batch in third for index in batch[1]] == list(range(24))
    first = [*range(4), *range(4), *range(4, 8), *range(4, 8)]  # made twice: does each have memory of its own?
    assert made_here()[:16] == first
    epochs(host, loader, 1)
    assert made_here() == list(range(24))
    assert host.pilot(loader).tally.plan == Plan(0)
    while host.pilot(loader).tally.workers:  # the one of the comparison is on its way out
        epochs(host, loader, 1)


def test_without_order_every_batch_comes_once(host: Steered) -> None:
    loader, found = at_home(host, Plain(40), in_order=False)
    (here,) = epochs(host, loader, 1)
    assert [sorted(int(batch[1][0]) for batch in epoch) for epoch in (found[-1], here)] == [list(range(0, 40, 4))] * 2


def test_epochs_of_one_batch_are_proven_together(host: Steered) -> None:
    loader, _ = at_home(host, Telling(4))
    made_here()
    epochs(host, loader, 2)
    assert made_here() == [*range(4), *range(4), *range(4)]  # the second comparison, then by itself


class Counting(Plain):
    seen = 0

    def __getitem__(self, index: int) -> Any:
        self.seen += 1
        return super().__getitem__(index)


class Opening(Plain):
    """Opens a file at the first access, where nothing can be seen of it: as a C extension does."""

    def __getitem__(self, index: int, kept: list[Any] = []) -> Any:  # noqa: B006  # out of sight
        if not kept:
            kept.append(tempfile.TemporaryFile())  # noqa: SIM115  # kept open
        return super().__getitem__(index)


class Mapping(Plain):
    """Maps a file and closes it, as LMDB does."""

    def __getitem__(self, index: int, kept: list[Any] = []) -> Any:  # noqa: B006  # out of sight
        if not kept:
            with tempfile.TemporaryFile() as file:
                file.truncate(4096)
                kept.append(mmap.mmap(file.fileno(), 4096))
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", [Counting, Opening, Mapping])
def test_a_dataset_that_leaves_something_behind_is_never_loaded_from_here(host: Steered, kind: Any) -> None:
    loader = auto(kind(16))
    epochs(host, loader, READ_EPOCHS + 1)
    assert workers_of(host, loader) == 2
    assert "behind" in host.pilot(loader).no_home
    (kept,) = kind.__getitem__.__defaults__ or ([],)
    assert kept == []
    assert loader.dataset.seen == 0 if kind is Counting else True  # type: ignore[attr-defined]  # Counting's


class InWorkers(Plain):
    def __getitem__(self, index: int) -> Any:
        if get_worker_info() is None:
            raise ValueError("only in a worker")
        return super().__getitem__(index)


class OtherHere(Plain):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index if get_worker_info() is not None else 0)


class Owning(Plain):
    """Its samples are views of one array; a collate function that stacks nothing hands them out."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.data = torch.arange(length)

    def __getitem__(self, index: int) -> Any:
        return self.data[index : index + 1]


def as_they_are(samples: Any) -> Any:
    return samples


@pytest.mark.parametrize(
    ("dataset", "why", "options"),
    [
        (InWorkers(16), "only in a worker", {}),
        (OtherHere(16), "came out different", {}),
        (Owning(16), "memory of its own", {"collate_fn": as_they_are}),
    ],
)
def test_whatever_does_not_mean_the_same_here_stays_in_workers_and_no_batch_is_lost(
    host: Steered, dataset: Any, why: str, options: Any
) -> None:
    loader = auto(dataset, **options)
    *before, tried, after = epochs(host, loader, READ_EPOCHS + 2)
    assert workers_of(host, loader) == 2
    (moved,) = host.events(Moved)
    assert (moved.plan, moved.kept) == (Plan(0), False)
    assert why in moved.reason
    assert first_difference(before[0], tried) is None
    assert first_difference(before[0], after) is None


def test_a_program_that_changes_its_dataset_between_epochs_keeps_its_workers(host: Steered) -> None:
    loader = auto(Telling(16))
    for number in range(READ_EPOCHS + 2):
        loader.dataset.epoch = number  # type: ignore[attr-defined]  # as samplers of stages do
        list(begun(host, loader))
    assert made_here() == []
    assert "changes the dataset" in host.pilot(loader).no_home


class Difficult(Telling):
    difficulty = 0

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]  # out of sight in Telling alone
        super().__getitem__(index)
        return index, self.difficulty


@pytest.mark.parametrize("persistent", [False, True])
def test_a_change_in_mid_epoch_is_seen_by_the_next_epochs_workers_alone(host: Steered, *, persistent: bool) -> None:
    """As with workers all along; persistent ones never see it, as torch's."""
    loader, _ = at_home(host, Difficult(40), persistent_workers=persistent)
    iterator = begun(host, loader)
    first = [next(iterator) for _ in range(2)]
    loader.dataset.difficulty = 5  # type: ignore[attr-defined]  # what curricula do
    iterator._home._rest_until_s = 0.0
    seen = [int(batch[1].max()) for batch in [*first, *iterator]]
    (later,) = epochs(host, loader, 1)
    assert seen == [0] * 10
    assert {int(batch[1].max()) for batch in later} == ({0} if persistent else {5})
    assert workers_of(host, loader) == 2
    loader._iterator = None


def test_workers_that_come_back_are_forked_from_before_the_first_access_here(host: Steered) -> None:
    loader, _ = at_home(host, Seen(40))
    for _ in range(2):  # in mid-epoch, then of an epoch that begins with workers
        iterator = begun(host, loader)
        batches = [next(iterator)]
        host.pilot(loader)._change(Plan(2), iterator)
        batches += list(iterator)
        assert [int(index) for batch in batches for index in batch[0]] == list(range(40))
        assert int(batches[-1][1].max()) <= 40  # what one worker has seen, not this process in the epochs before


def test_each_epoch_has_all_its_workers_though_those_of_the_last_one_have_just_been_let_go(host: Steered) -> None:
    """As many as there may be at once: nobody is left over to begin with."""
    loader, _ = at_home(host, Plain(160))
    pilot = host.pilot(loader)
    most = pilot._bounds.max_workers
    iterator = begun(host, loader)
    next(iterator)
    pilot._change(Plan(most), iterator)
    list(iterator)
    for _ in range(2):
        iterator = begun(host, loader)
        assert len(iterator.active_workers()) == most
        assert [int(batch[1][0]) for batch in iterator] == list(range(0, 160, 4))


class Seen(Plain):
    """How often this process was asked, out of sight, in the last batches only."""

    def __getitem__(self, index: int, seen: list[int] = []) -> Any:  # noqa: B006  # out of sight
        seen.append(index)
        return index, len(seen) if index >= 36 else 0


def test_a_change_that_shows_late_sends_the_loader_back_to_workers(
    host: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, _ = at_home(host, Late(80))
    monkeypatch.setenv("KEEPFED_TEST_LATE", "1")
    iterator = begun(host, loader)
    found = []
    for batch in iterator:
        iterator._home._rest_until_s = 0.0
        found += batch[1].tolist()
    assert found == list(range(80))
    assert workers_of(host, loader) == 2
    assert "behind" in host.pilot(loader).no_home


class Late(Plain):
    """From its fortieth sample on it keeps something, once told to."""

    def __getitem__(self, index: int) -> Any:
        if index >= 40 and "KEEPFED_TEST_LATE" in os.environ:
            self.cache = index
        return super().__getitem__(index)


class Broken(Plain):
    def __getitem__(self, index: int) -> Any:
        if index == 13:
            raise ValueError("sample 13 is broken")
        return super().__getitem__(index)


def test_an_exception_comes_out_of_next_and_the_batches_after_it_come(host: Steered) -> None:
    loader, _ = at_home_of_broken(host)
    iterator = begun(host, loader)
    got, errors = [], []
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            break
        except ValueError as error:
            errors.append(str(error))
    assert [int(batch[1][0]) for batch in got] == [0, 4, 8, 16, 20]
    assert len(errors) == 1
    assert "Caught ValueError in the training process" in errors[0]
    assert "sample 13 is broken" in errors[0]


def at_home_of_broken(host: Steered) -> tuple[DataLoader[Any], None]:
    loader = auto(Broken(24))
    for _ in range(READ_EPOCHS + 1):
        iterator = begun(host, loader)
        for _ in range(3):
            next(iterator)
    assert workers_of(host, loader) == 0
    return loader, None


def test_a_sample_that_is_skipped_in_workers_is_skipped_here(host: Steered) -> None:
    count = WorkerCount(2, Requests(auto=True, on_error="skip"))
    loader, found = at_home(host, Broken(24), num_workers=count)
    (here,) = epochs(host, loader, 1)
    assert first_difference(found[0], here) is None
    assert host.pilot(loader).tally.skips.count == READ_EPOCHS + 2


def test_a_second_iterator_at_the_same_time_has_workers_and_so_has_the_first_from_then_on(host: Steered) -> None:
    loader, _ = at_home(host, Plain(40))
    one = begun(host, loader)
    first = [next(one)]
    other = begun(host, loader)
    pairs = list(zip(one, other, strict=False))
    assert first_difference([*first, *(pair[0] for pair in pairs)], [*(pair[1] for pair in pairs), next(other)]) is None
    assert workers_of(host, loader) == 2


def test_a_loader_that_is_read_in_another_thread_leaves_the_programs_random_numbers_alone(host: Steered) -> None:
    loader, _ = at_home(host, Telling(40))
    iterator = begun(host, loader)
    batches = [next(iterator)]
    made_here()
    reader = threading.Thread(target=lambda: batches.extend(iterator))
    reader.start()
    reader.join()
    assert indices(batches) == list(range(40))
    assert (made_here(), workers_of(host, loader)) == ([], 2)


def test_an_iterator_whose_loader_was_replaced_in_its_epoch_goes_back_to_workers_with_it(host: Steered) -> None:
    dataset = Plain(40)
    loader, _ = at_home(host, dataset)
    iterator = begun(host, loader)
    batches, pilot = [next(iterator)], host.pilot(loader)
    del loader
    gc.collect()
    loader = auto(dataset)
    assert len(epochs(host, loader, 1)[0]) == 10
    assert host.pilot(loader) is pilot
    batches.append(next(iterator))
    assert iterator.working_crew.plan.num_workers == 2
    assert indices([*batches, *iterator]) == list(range(40))


def test_a_kept_zygote_ends_with_the_epoch_in_which_steering_was_ended(host: Steered) -> None:
    loader, _ = at_home(host, Plain(40))
    iterator = begun(host, loader)
    next(iterator)
    host.fleet.close()
    assert len(list(iterator)) == 9
    assert not iterator.working_crew.shut_down.alive
    assert not own_of(loader).kept.usable()


def negated(samples: list[Any]) -> Any:
    return [-values for values in default_collate(samples)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_function_that_is_assigned_anew_is_used_from_the_next_epoch_on(host: Steered, workers: int) -> None:
    loader, _ = at_home(host, Plain(40))
    iterator = begun(host, loader)
    batches = [next(iterator)]
    host.pilot(loader)._change(Plan(workers), iterator)
    loader.collate_fn = negated
    assert indices([*batches, *iterator]) == list(range(40))
    for found in epochs(host, loader, 2):
        assert indices(found) == [-index for index in range(40)]


def test_a_forked_child_of_the_program_has_workers_of_its_own(host: Steered, tmp_path: Path) -> None:
    loader, _ = at_home(host, Plain(40))
    child = os.fork()
    if child == 0:
        with steered(tmp_path) as own:
            read = indices(epochs(own, loader, 1)[0]) == list(range(40))
            os._exit(read and own.pilot(loader).tally.fallback == "" and workers_of(own, loader) == 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert indices(epochs(host, loader, 1)[0]) == list(range(40))
    assert workers_of(host, loader) == 0


def test_a_shallow_copy_of_a_loader_has_a_proof_of_its_own(host: Steered) -> None:
    loader, _ = at_home(host, Plain(40))
    other = copy.copy(loader)
    assert own_of(other) is not own_of(loader)
    assert own_of(loader).kept.usable()


@pytest.mark.parametrize("persistent", [False, True])
def test_when_all_idle_processes_were_killed_the_next_epoch_that_wants_workers_has_some(
    host: Steered, *, persistent: bool
) -> None:
    others = set(psutil.Process().children())  # multiprocessing's resource tracker and its like stay
    loader, _ = at_home(host, Plain(40), persistent_workers=persistent)
    iterator = begun(host, loader)
    batches = [next(iterator)]
    pool = iterator.working_crew.roster.pool()
    while not pool.barren():
        for process in set(psutil.Process().children()) - others:
            process.kill()
    assert indices([*batches, *iterator]) == list(range(40))
    iterator._home.refuse("the test says so")
    (found,) = epochs(host, loader, 1)
    assert indices(found) == list(range(40))
    assert workers_of(host, loader) == 2
    loader._iterator = None


def test_a_loader_that_is_built_anew_goes_back_to_workers(host: Steered) -> None:
    dataset = Telling(16)
    loader, _ = at_home(host, dataset)
    made_here()
    loader = auto(dataset)
    assert len(epochs(host, loader, 1)[0]) == 4
    assert (made_here(), workers_of(host, loader)) == ([], 2)


class Trainer:
    """A program's object that has the loader, and is known to its collate function."""

    def __init__(self) -> None:
        def collate(samples: Any, owner: Any = self) -> Any:
            return default_collate(samples)

        self.loader = auto(Plain(16), collate_fn=collate)


def test_a_loader_that_its_own_collate_function_refers_to_is_collected_with_its_zygote(host: Steered) -> None:
    trainer = Trainer()
    epochs(host, trainer.loader, READ_EPOCHS + 1)
    assert workers_of(host, trainer.loader) == 0
    gone = weakref.ref(trainer.loader)
    copied = copy.deepcopy(trainer.loader)
    assert pickle.loads(pickle.dumps(own_of(trainer.loader))).home is None  # our own
    assert own_of(copied).home is None
    del trainer, copied
    gc.collect()
    assert gone() is None


def test_a_plan_file_that_says_0_is_followed_at_once_by_auto_and_never_by_a_number(tmp_path: Path) -> None:
    for count, workers in ((WorkerCount(2, Requests(auto=True)), 0), (2, 1)):
        loader, path = auto(Telling(24), num_workers=count), tmp_path / f"{workers}.toml"
        loader._keepfed_site = "train.py:41"  # as the hook notes it
        entry = LoaderProfile(identify(loader), Plan(0))
        write_profile(path, Profile(HostProfile(read_host().fingerprint), (entry,)))
        with steered(tmp_path / str(workers), plan_file=str(path)) as host:
            epochs(host, loader, 2)
            assert workers_of(host, loader) == workers
            assert made_here()[-24:] == ([] if workers else list(range(24)))


@pytest.mark.parametrize(
    ("requests", "options"),
    [
        (Requests(), {}),
        (Requests(auto=True), {"worker_init_fn": no_init}),
        (Requests(auto=True), {"timeout": 60}),
        (Requests(auto=True, stall_timeout_s=60.0), {}),
        (Requests(auto=True, device="cuda:0"), {}),
    ],
)
def test_only_auto_without_an_init_function_or_time_limit_may_do_without_workers(
    requests: Requests, options: Any
) -> None:
    assert why_not_home(auto(Plain(), num_workers=WorkerCount(2, requests), **options)) != ""
    assert why_not_home(auto(Plain())) == ""


LINES = {module.__file__ for module in (aside, crew, epoch, home, homing, order)}
VERY_RETURN = {
    "Crew.deliver: if unusual:",
    "Crew.deliver: return batch",
    "EpochIter._next_data: self._reader = 0",
    "EpochIter.__next__: self._num_yielded += 1",
    "EpochIter.__next__: return batch",
}
"""Here the batch is the program's already."""


def test_ctrl_c_at_any_line_loses_no_batch_and_leaves_the_programs_random_states(host: Steered) -> None:
    loader, _ = at_home(host, Drawing(4 * 400))
    iterator = begun(host, loader)
    iterator._home._rest_until_s = 0.0
    own, expected = pickle.dumps(states()), 0
    interrupter = Interrupter(LINES)
    try:
        for position in range(1, 1000):
            iterator._home._rest_until_s = 0.0
            interrupter.next_at(position)
            batch, error = interrupter.run(lambda: next(iterator))
            if error is None:
                assert not interrupter.at
                break
            assert isinstance(error, KeyboardInterrupt)
            expected += interrupter.at in VERY_RETURN
            interrupter.next_at(0)
            batch, _ = interrupter.run(lambda: next(iterator))
            assert int(batch[0][0]) == 4 * expected, interrupter.at
            assert pickle.dumps(states()) == own, interrupter.at
            expected += 1
        else:
            raise AssertionError("never through")
    finally:
        interrupter.close()
    assert position > 50
