"""The zygote's own death ends nothing: a copy of it waits, takes its place, and forks the same workers anew."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader as TorchDataLoader

import keepfed.loader.api as keepfed
from keepfed.errors import LoaderError, WorkerDied
from keepfed.loader import channel, control, pool, zygote, zygote_process
from keepfed.loader.arena import Region
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.handle import Worker
from keepfed.loader.pool import Pool
from keepfed.loader.zygote import Zygote
from tests.loader.interrupting import Interrupter
from tests.loader.processes import children_of, program, wait_until, watching
from tests.loader.side_by_side import Noisy, describe, random_states, seed_all
from tests.loader.spawned import Drawing, Stream
from tests.loader.understudies import kill_zygote, pool_of, succeed, understudy_of

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
METHODS = ["fork", "forkserver", "spawn"]
NEVER_S = 600.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zygotes that are forked from here have their understudy as soon as they have nothing else to do."""
    monkeypatch.setattr(zygote_process, "UNDERSTUDY_AFTER_S", 0.0)


def region() -> Region:
    return Region.create(1 << 30)


def echo(_: int, end: WorkerEnd, __: Region) -> None:
    """Send back what comes, until told to quit."""
    while (message := end.receive(block=True)) is not None and message[0] != "quit":
        end.send(*message)


@contextmanager
def running(main: Any = echo) -> Iterator[Pool]:
    """A pool that is shut down at the end."""
    made = Pool(Zygote.forked(main))
    try:
        yield made
    finally:
        made.shut_down()


def hear_until(workers: Pool, true: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s, what
        workers.hear(0.2)


def answer(workers: Pool, worker: Worker, message: Any) -> Any:
    """What this worker says to this."""
    worker.end.send("task", message)
    heard: list[Any] = []

    def answered() -> bool:
        heard[:] = [worker.end.peek()]
        return heard != [None]

    hear_until(workers, answered, "an answer")
    worker.end.done_with_first()
    return heard[0][1]


def test_workers_are_forked_as_before_when_the_zygote_is_killed_again_and_again() -> None:
    dataset = {"transform": "old"}

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        while end.receive(block=True) != ("quit",):
            end.send("done", dataset["transform"])

    with running(main) as workers:
        dataset["transform"] = "new"
        killed: list[int] = []
        for generation in range(4):
            worker = workers.add(0, region())
            assert answer(workers, worker, "?") == "old", "as it was when the first zygote was forked"
            assert worker.generation == generation
            killed.append(succeed(workers))
            worker.join(10)
            assert worker.gone
            assert worker.orphaned
            workers.forget(worker)
            if generation == 0:  # the only one that is a child of this process
                assert workers.fallen() == (killed[0], -signal.SIGKILL)
        assert len(set(killed)) == 4


def test_a_worker_that_died_by_itself_is_no_orphan() -> None:
    with running() as workers:
        worker = workers.add(0, region())
        understudy_of(workers)
        worker.kill()
        worker.join(10)
        assert (worker.exitcode, worker.orphaned) == (-signal.SIGKILL, False)


def test_a_zygote_that_is_killed_before_it_has_an_understudy_leaves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_process, "UNDERSTUDY_AFTER_S", NEVER_S)
    with running() as workers:
        first, second = workers.add(0, region()), workers.add(1, region())
        pids = [first.pid or 0, second.pid or 0]
        with watching(pids) as watched:
            os.kill(workers._zygote.pid, signal.SIGKILL)
            assert not watched.left_after(1)
        hear_until(workers, lambda: first.gone and second.gone, "their ends")
        assert workers.barren()
        with pytest.raises(LoaderError, match="before a copy of it could take its place"):
            workers.add(2, region())
        assert not workers.hear(None), "nothing will come any more"


def test_an_understudy_that_is_killed_is_replaced() -> None:
    with running() as workers:
        for _ in range(3):
            understudy = understudy_of(workers)
            os.kill(understudy, signal.SIGKILL)
            wait_until(lambda gone=understudy: understudy_of(workers) != gone, "another understudy")  # type: ignore[misc]  # bound here
        succeed(workers)
        assert answer(workers, workers.add(0, region()), "here") == "here"


def test_an_order_that_the_dead_zygote_had_not_read_is_never_carried_out() -> None:
    """Its worker is replaced, and its region handed on: it must not come to life after that."""
    with running() as workers:
        understudy_of(workers)
        os.kill(workers._zygote.pid, signal.SIGSTOP)
        unborn = workers.add(0, region())
        unborn.end.send("task", "lost")
        os.kill(workers._zygote.pid, signal.SIGKILL)
        hear_until(workers, lambda: unborn.gone, "its end")
        assert unborn.orphaned
        assert unborn.pid is None
        assert unborn.end.peek() is None
        born = workers.add(1, region())
        assert answer(workers, born, "here") == "here"
        understudy = understudy_of(workers)
        assert set(children_of(workers._zygote.pid)) == {born.pid, understudy}


def test_a_worker_of_a_successor_holds_one_socket_and_nothing_of_its_zygote() -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        end.send("done", sorted(link for link in links if link.startswith("socket:") or "pidfd" in link))
        echo(0, end, __)

    inherited = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    counts = []
    with running(main) as workers:
        for _ in range(2):
            both = [workers.add(worker_id, region()) for worker_id in range(2)]
            hear_until(workers, lambda two=both: all(worker.end.peek() for worker in two), "both")  # type: ignore[misc]  # bound here
            held = [(worker.end.peek() or ())[1] for worker in both]
            sockets = [{link for link in links if "pidfd" not in link} - inherited for links in held]
            assert [len(own) for own in sockets] == [1, 1]
            assert sockets[0] != sockets[1]
            counts.append([len(links) for links in held])
            kill_zygote(workers)
            hear_until(workers, lambda two=both: all(worker.gone for worker in two), "their ends")  # type: ignore[misc]  # bound here
            for worker in both:
                workers.forget(worker)
    assert counts[0] == counts[1], "no more pidfds than the first ones"


def test_a_zygote_does_not_obey_sigterm_and_its_workers_do() -> None:
    """A scheduler sends it to the whole process group, and the trainer may want its last batches."""
    with running() as workers:
        worker = workers.add(0, region())
        assert answer(workers, worker, "up") == "up"
        for pid in (workers._zygote.pid, understudy_of(workers)):
            os.kill(pid, signal.SIGTERM)
        assert answer(workers, workers.add(1, region()), "here") == "here"
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == -signal.SIGTERM


def test_an_understudy_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SUCCESSION_WAITS", 1)
    with running() as workers:
        worker = workers.add(0, region())
        assert worker.pid
        understudy = understudy_of(workers)
        with watching([understudy]) as watched:
            os.kill(understudy, signal.SIGSTOP)
            os.kill(workers._zygote.pid, signal.SIGSTOP)
            unborn = workers.add(1, region())
            os.kill(workers._zygote.pid, signal.SIGKILL)
            hear_until(workers, lambda: worker.gone and unborn.gone, "their ends")
            assert workers.barren()
            assert not workers.hear(None)
            os.kill(understudy, signal.SIGCONT)
            assert not watched.left_after(5), "it finds that nobody listens"


# ---- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_shutting_down_ends_the_understudy_too(deaths: int) -> None:
    with running() as workers:
        for _ in range(deaths):
            succeed(workers)
        worker = workers.add(0, region())
        assert answer(workers, worker, "here") == "here"
        with watching([understudy_of(workers), workers._zygote.pid]) as watched:
            assert workers.shut_down() == [worker]
            assert worker.exitcode == 0
            assert not watched.left_after(1)


def test_shutting_down_between_the_zygotes_death_and_the_word_of_its_successor_leaves_nothing() -> None:
    with running() as workers:
        worker = workers.add(0, region())
        assert worker.pid
        understudy = understudy_of(workers)
        with watching([understudy, worker.pid]) as watched:
            os.kill(workers._zygote.pid, signal.SIGKILL)
            workers.shut_down()
            assert not watched.left_after(1)


@pytest.mark.parametrize("deaths", [0, 1])
def test_when_the_trainer_is_killed_the_understudy_is_gone_within_a_second(deaths: int) -> None:
    def trainer(pipe: Connection) -> None:
        workers = Pool(Zygote.forked(echo))
        for _ in range(deaths):
            succeed(workers)
        pipe.send([workers.add(0, region()).pid, workers._zygote.pid, understudy_of(workers)])
        time.sleep(600)

    with program(trainer) as run, watching(run.hear()) as started:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert not started.left_after(1)


def test_a_trainer_that_adopts_orphans_is_left_no_zombies() -> None:
    """As the first process of a container does: workers and understudy of a dead zygote become its children."""

    def trainer(pipe: Connection) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        codes = []
        for deaths in range(3):
            workers = Pool(Zygote.forked(echo))
            worker = workers.add(0, region())
            for _ in range(deaths):
                assert answer(workers, worker, "up") == "up"
                kill_zygote(workers)
                worker.join(10)
                codes.append(worker.exitcode)
                workers.forget(worker)
                worker = workers.add(0, region())
            workers.shut_down()
        try:
            left: Any = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            left = "no children"
        pipe.send((left, codes))

    with program(trainer) as run:
        assert run.hear() == ("no children", [-signal.SIGKILL] * 3)
        assert run.wait() == 0


# ---- whole loaders ---------------------------------------------------------------------------------------------------


def run(loader: Any, *, epochs: int = 2, kill: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]  # read only
    """Every batch of these epochs with this process' random states; kills the zygote after some of the batches."""
    seed_all(3)
    seen: list[Any] = []
    for _ in range(epochs):
        iterator = iter(loader)
        for batch in iterator:
            seen.append((describe(batch), random_states()))
            if len(seen) in kill:
                workers = pool_of(iterator)
                hear_until(workers, lambda pool=workers: pool._zygote.hatched, "the zygote")  # type: ignore[misc]  # bound here
                succeed(workers)
        del iterator
    return seen


@pytest.mark.parametrize("dataset", [Drawing(24), Stream()], ids=["map", "stream"])
@pytest.mark.parametrize("method", METHODS)
def test_batches_are_torchs_when_the_zygote_is_killed(dataset: Any, method: str) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 2, "persistent_workers": True}
    undisturbed = run(TorchDataLoader(dataset, **settings))
    loader = keepfed.DataLoader(dataset, multiprocessing_context=method, **settings)
    assert run(loader, kill={1, 8}) == undisturbed
    assert loader.stats().restarts == 4


def test_nobodys_batch_is_blamed_and_one_line_says_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            time.sleep(0.05)
            return super().__getitem__(index)

    loader = keepfed.DataLoader(Slow(36), batch_size=6, num_workers=2, prefetch_factor=1)
    with caplog.at_level(logging.WARNING, "keepfed"):
        seen = run(loader, epochs=1, kill={1, 2, 3})
    assert len(seen) == 6
    said = [record.message for record in caplog.records]
    assert 1 <= len(said) <= 3, "of a death in the last moment nobody hears"
    assert all("has taken over" in line for line in said)
    assert len(set(said)) == len(said)


def test_a_dataset_that_kills_its_zygote_ends_in_an_error() -> None:
    class Patricidal(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 5:
                time.sleep(0.1)  # so that there is an understudy
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            return super().__getitem__(index)

    with pytest.raises(WorkerDied, match="exited unexpectedly"):
        run(keepfed.DataLoader(Patricidal(12), batch_size=2, num_workers=2), epochs=1)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------

INTERRUPTED = {module.__file__ for module in (channel, control, pool, zygote)}


def life(workers: Pool, interrupter: Interrupter) -> None:
    """The zygote dies beside a worker and one that has yet to be forked; others take their places."""
    born = workers.add(0, region())
    assert born.pid
    kill = workers._zygote.pid
    understudy_of(workers)
    os.kill(kill, signal.SIGSTOP)
    unborn = workers.add(1, region())
    os.kill(kill, signal.SIGKILL)
    end_s = time.monotonic() + 10
    while not (born.gone and unborn.gone):
        assert time.monotonic() < end_s, f"lost after an interrupt at {interrupter.at}"
        interrupter.run(lambda: workers.hear(1.0))
    assert (born.orphaned, unborn.orphaned) == (True, True), interrupter.at
    assert workers._zygote.pid != kill
    for worker in (born, unborn):
        workers.forget(worker)


@pytest.mark.leaves("descriptors", reason="an interrupt just before os.close costs that one; closing twice is worse")
def test_ctrl_c_at_a_line_loses_no_succession() -> None:
    """One line after the other (every third); what was interrupted is done again."""
    with running() as workers:
        for position in itertools.count(1, 3):
            interrupter = Interrupter(INTERRUPTED, position)
            try:
                life(workers, interrupter)
            finally:
                interrupter.close()
            if not interrupter.at:
                break
        assert position > 40, "so many lines were interrupted"
    gc.collect()
