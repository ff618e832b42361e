"""Stuck workers: named, ended, their batches made again; slow ones left alone."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, get_worker_info

import keepfed.loader.api as keepfed
from keepfed.errors import WorkerDied, WorkerStuck
from keepfed.loader import watcher
from keepfed.policy import watchdog
from tests.loader.processes import program, wait_until
from tests.loader.side_by_side import Noisy, describe, random_states, seed_all

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
METHODS = ["fork", "forkserver", "spawn"]
lock = threading.Lock()


def once(folder: Path, name: object) -> bool:
    """Whether this is the first call for this name, in whichever process."""
    try:
        os.close(os.open(folder / str(name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Sticky(Noisy):
    """Some samples stick when they are made for the first time (`always`: whenever they are made)."""

    def __init__(self, folder: Path, sticks: Callable[[Path], None], at: set[int], *, always: bool = False) -> None:
        super().__init__(24)
        self.folder, self.sticks, self.at, self.always = folder, sticks, at, always

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        if index in self.at and (self.always or once(self.folder, index)):
            self.sticks(self.folder)
        return sample


class StickyStream(IterableDataset[Any]):
    """A stream whose 9th sample sticks when it is read for the first time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        noisy = Noisy(24)
        for number in range(info.id, 24, info.num_workers):
            sample = noisy[number]
            if number == 9 and once(self.folder, number):
                sleep(self.folder)
            yield sample


class Locking(Noisy):
    """Takes a lock of the program's for every sample."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        with lock:
            return super().__getitem__(index)


class LockingStream(IterableDataset[Any]):
    """The same as a stream."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        locking = Locking(24)
        for number in range(info.id, 24, info.num_workers):
            yield locking[number]


def sleep(folder: Path) -> None:
    """For ever, as far as a test is concerned."""
    del folder
    time.sleep(600)


def stop(folder: Path) -> None:
    """As `kill -STOP` would."""
    del folder
    os.kill(os.getpid(), signal.SIGSTOP)


def lock_twice(folder: Path) -> None:
    """What a lock that another thread held at fork looks like from inside."""
    del folder
    with lock:
        lock.acquire()


def wait_for_the_test(folder: Path) -> None:
    """Until the test says go."""
    wait_until((folder / "go").exists, "the test never said go")


def run(loader: Any) -> list[Any]:
    """Every batch of an epoch, with the random states of this process."""
    seed_all(3)
    return [(describe(batch), random_states()) for batch in loader]


def undisturbed(dataset: Any = None, **settings: Any) -> list[Any]:
    return run(TorchDataLoader(Noisy(24) if dataset is None else dataset, **settings))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks ten times as often, and needs a tenth of the proof."""
    monkeypatch.setattr(watcher, "SLICE_S", 0.1)
    monkeypatch.setattr(watcher, "GRACE_S", 0.2)
    monkeypatch.setattr(watchdog, "PROOF_S", 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_never_comes_costs_a_worker_and_nothing_else(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2, "multiprocessing_context": method}
    loader = keepfed.DataLoader(Sticky(tmp_path, sleep, {10}), stall_timeout=1, **settings)
    assert run(loader) == undisturbed(**settings)
    assert loader.stats().restarts == 1
    said = next(record.getMessage() for record in caplog.records if "no progress" in record.getMessage())
    assert "in the dataset's code, sample 10 (dataset Sticky, batch 2, indices [8, 9, 10, 11])" in said
    assert "nanosleep" in said, "where it stands"


def test_a_stream_goes_on_where_its_stuck_worker_was(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 2}
    loader = keepfed.DataLoader(StickyStream(tmp_path), stall_timeout=0.5, **settings)
    stuck = run(loader)
    assert stuck == undisturbed(StickyStream(tmp_path), **settings)
    assert loader.stats().restarts == 1


def test_a_steered_loader_goes_on_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": "auto"}

    def images(dataset: Noisy) -> list[Any]:
        seed_all(3)
        return [describe(batch["image"]) for batch in keepfed.DataLoader(dataset, stall_timeout=0.5, **settings)]

    assert images(Sticky(tmp_path, sleep, {10})) == images(Noisy(24))
    keepfed.uninstall()


def test_all_workers_stuck_at_once_are_replaced_where_the_user_gave_the_limit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 3}
    loader = keepfed.DataLoader(Sticky(tmp_path, sleep, {0, 5, 10}), stall_timeout=0.4, **settings)
    assert run(loader) == undisturbed(**settings)
    assert loader.stats().restarts == 3


def test_a_batch_that_sticks_every_time_ends_the_epoch_and_is_named(tmp_path: Path) -> None:
    loader = keepfed.DataLoader(
        Sticky(tmp_path, sleep, {10}, always=True), batch_size=4, num_workers=2, stall_timeout=0.3
    )
    with pytest.raises(WorkerDied, match=r"stuck(.|\n)*\[8, 9, 10, 11\]"):
        run(loader)
    assert loader.stats().restarts == 2


@pytest.mark.usefixtures("hasty")
def test_a_worker_that_is_stopped_before_its_first_heartbeat_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    loader = keepfed.DataLoader(Noisy(24), batch_size=4, num_workers=2)
    iterator: Any = iter(loader)
    os.kill(iterator._workers[1].pid, signal.SIGSTOP)
    assert len(list(iterator)) == 6
    assert "SIGSTOP" in caplog.text


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("sticks", "why"), [(stop, "SIGSTOP"), (lock_twice, "locks inside it")])
def test_a_worker_that_provably_cannot_go_on_is_replaced_without_any_setting(
    sticks: Callable[[Path], None], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    loader = keepfed.DataLoader(Sticky(tmp_path, sticks, {10, 17}), **settings)
    assert run(loader) == undisturbed(**settings)
    assert loader.stats().restarts == 2
    assert sum(why in record.getMessage() for record in caplog.records) == 2


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", ["map", "stream"])
def test_workers_are_forked_anew_where_a_lock_was_held_at_the_fork(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset: Any = Locking() if kind == "map" else LockingStream()
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    expected = undisturbed(dataset, **settings)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    seed_all(3)
    try:
        loader = keepfed.DataLoader(dataset, **settings)
        batches = iter(loader)
    finally:
        release.set()
        thread.join()
    assert [(describe(batch), random_states()) for batch in batches] == expected
    assert sum("forked anew" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.usefixtures("hasty")
def test_a_batch_that_always_locks_itself_up_ends_the_epoch_and_is_named(tmp_path: Path) -> None:
    loader = keepfed.DataLoader(Sticky(tmp_path, lock_twice, {10}, always=True), batch_size=4, num_workers=2)
    with pytest.raises(WorkerDied, match=r"stuck(.|\n)*\[8, 9, 10, 11\]"):
        run(loader)


@pytest.mark.usefixtures("hasty")
def test_where_no_process_can_be_had_to_fork_workers_from_the_stuck_one_is_replaced_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    loader = keepfed.DataLoader(Sticky(tmp_path, lock_twice, {10}, always=True), batch_size=4, num_workers=2)
    batches = iter(loader)
    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(WorkerDied, match=r"batch 2, indices \[8, 9, 10, 11\]"):
        list(batches)
    assert not any("forked anew" in record.getMessage() for record in caplog.records)


@pytest.mark.usefixtures("hasty")
def test_a_slow_sample_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    loader = keepfed.DataLoader(Sticky(tmp_path, wait_for_the_test, {10}), **settings)
    timer = threading.Timer(2.0, (tmp_path / "go").touch)
    timer.start()
    try:
        assert run(loader) == undisturbed(**settings)
    finally:
        timer.join()
    assert loader.stats().restarts == 0
    assert not caplog.records


def test_a_program_that_asked_for_an_error_gets_one_and_may_go_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    expected = undisturbed(**settings)
    loader = keepfed.DataLoader(
        Sticky(tmp_path, wait_for_the_test, {10}), stall_timeout=0.4, on_stall="raise", **settings
    )
    seed_all(3)
    iterator = iter(loader)
    seen = [(describe(next(iterator)), random_states()) for _ in range(2)]
    with pytest.raises(WorkerStuck, match=r"sample 10(.|\n)*on_stall"):
        next(iterator)
    (tmp_path / "go").touch()
    seen += [(describe(batch), random_states()) for batch in iterator]
    assert seen == expected
    assert loader.stats().restarts == 0


def test_a_program_that_asked_for_a_warning_gets_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}

    class Opener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            (tmp_path / "go").touch()

    opener = Opener()
    logging.getLogger("keepfed").addHandler(opener)
    try:
        loader = keepfed.DataLoader(
            Sticky(tmp_path, wait_for_the_test, {10}), stall_timeout=0.4, on_stall="warn", **settings
        )
        assert run(loader) == undisturbed(**settings)
    finally:
        logging.getLogger("keepfed").removeHandler(opener)
    assert loader.stats().restarts == 0
    assert len([record for record in caplog.records if "left alone" in record.getMessage()]) == 1


def test_torchs_own_timeout_raises_as_torchs_does_when_it_comes_first(tmp_path: Path) -> None:
    loader = keepfed.DataLoader(
        Sticky(tmp_path, wait_for_the_test, {10}), batch_size=4, num_workers=2, timeout=0.5, stall_timeout=300
    )
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.5 seconds"):
        run(loader)
    (tmp_path / "go").touch()


def test_a_stuck_worker_may_close_its_files_before_it_is_killed(tmp_path: Path) -> None:
    def sticks(folder: Path) -> None:
        def end(*_: object) -> None:
            (folder / "closed").touch()
            os._exit(0)

        signal.signal(signal.SIGTERM, end)
        time.sleep(600)

    loader = keepfed.DataLoader(Sticky(tmp_path, sticks, {10}), batch_size=4, num_workers=2, stall_timeout=0.4)
    run(loader)
    assert (tmp_path / "closed").exists()


def test_a_stuck_worker_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    def sticks(folder: Path) -> None:
        del folder
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    loader = keepfed.DataLoader(Sticky(tmp_path, sticks, {10}), stall_timeout=0.4, **settings)
    assert run(loader) == undisturbed(**settings)


def test_a_worker_that_cannot_be_killed_is_left_behind_with_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one in state D: here signals to it are swallowed."""
    monkeypatch.setattr(watcher, "GRACE_S", 0.2)
    monkeypatch.setattr(watcher, "ABANDON_S", 0.2)
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 2}
    expected = undisturbed(**settings)
    loader = keepfed.DataLoader(Sticky(tmp_path, sleep, {10}), stall_timeout=0.4, persistent_workers=True, **settings)
    seed_all(3)
    iterator: Any = iter(loader)
    seen = [(describe(next(iterator)), random_states())]
    stuck = iterator._workers[0]
    pid, region = stuck.pid, stuck.book.region
    monkeypatch.setattr(stuck, "_signal", lambda _number: None)
    seen += [(describe(batch), random_states()) for batch in iterator]
    assert seen == expected
    assert "cannot even be killed" in caplog.text
    os.kill(pid, 0)  # it is still there, and may write whatever it likes where it likes
    region.memory[: 64 << 20] = b"\xa5" * (64 << 20)
    assert all(worker.book.region is not region for worker in iterator._workers)
    assert len(run(loader)) == len(expected)
    os.kill(pid, signal.SIGKILL)


def test_a_job_that_was_suspended_is_not_stuck(tmp_path: Path) -> None:
    """Ctrl-Z and `fg`: all its processes stand still for longer than the limit."""

    def main(pipe: Connection) -> None:
        watchdog.LONGEST_SLICE_S = 0.8  # in this process only
        loader = keepfed.DataLoader(
            Sticky(tmp_path, wait_for_the_test, {10}), batch_size=4, num_workers=2, stall_timeout=1.5
        )
        iterator = iter(loader)
        batches = [next(iterator), next(iterator)]
        pipe.send("waits")
        batches += iterator
        pipe.send((len(batches), loader.stats().restarts))

    with program(main) as running:
        assert running.hear() == "waits"
        wait_until((tmp_path / "10").exists, "sample 10 was never begun")
        os.killpg(running.pid, signal.SIGSTOP)
        time.sleep(2.0)  # nothing to wait for: this is the length of the suspension
        os.killpg(running.pid, signal.SIGCONT)
        (tmp_path / "go").touch()
        assert running.hear() == (6, 0)
        assert running.wait() == 0
