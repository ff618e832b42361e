"""Workers are forked from an idle copy of the program as it was at `iter()`, and end with it."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from keepfed.loader.arena import Region
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.handle import Worker
from keepfed.loader.pool import Pool
from keepfed.loader.zygote import Zygote
from tests.loader.processes import program, wait_until, watching

REGION_BYTES = 1 << 30
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def told(pool: Pool, worker: Worker, seconds: float = 10.0) -> Any:
    """The next message of this worker, without its kind."""
    end_s = time.monotonic() + seconds
    while (message := worker.end.peek()) is None:
        assert not worker.gone, f"it ended with {worker.exitcode}"
        assert time.monotonic() < end_s, "it said nothing"
        pool.hear(0.2)
    worker.end.done_with_first()
    return message[1]


def ended(pool: Pool, worker: Worker, seconds: float = 5.0) -> bool:
    """Whether this worker is known to be gone after at most this time."""
    end_s = time.monotonic() + seconds
    while not worker.gone and (left_s := end_s - time.monotonic()) > 0:
        pool.hear(left_s)
    return worker.gone


Start = Callable[..., tuple[Pool, Worker]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Make a pool whose workers run this function, and add one worker."""
    pools = []

    def start(main: Callable[[int, WorkerEnd, Region], None]) -> tuple[Pool, Worker]:
        pool = Pool(Zygote.forked(main))
        pools.append(pool)
        return pool, pool.add(0, Region.create(REGION_BYTES))

    yield start
    while pools:
        pools.pop().shut_down()


def until_quit(_: int, end: WorkerEnd, __: Region) -> None:
    """Be a worker that does nothing."""
    while end.receive(block=True) != ("quit",):
        pass


def test_a_worker_that_is_added_later_sees_the_program_as_it_was_at_the_start(start: Start) -> None:
    dataset = {"transform": "old"}

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        end.send("done", dataset["transform"])
        until_quit(0, end, __)

    pool, first = start(main)
    assert told(pool, first) == "old"
    dataset["transform"] = "new"
    second = pool.add(1, Region.create(REGION_BYTES))
    assert told(pool, second) == "old"


def test_a_worker_looks_like_a_worker_of_multiprocessing(start: Start) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
        assert parent is not None
        facts = {
            "name": process.name,
            "daemon": process.daemon,
            "identity": process._identity,  # programs derive device numbers from it
            "pid": process.pid,
            "parent": parent.pid,
            "parent_alive": parent.is_alive(),
            "mark": os.environ.get("KEEPFED_WORKER"),
            "main_thread": threading.current_thread() is threading.main_thread(),
        }
        end.send("done", facts)
        until_quit(0, end, __)

    pool, worker = start(main)
    assert told(pool, worker) == {
        "name": worker.name,
        "daemon": True,
        "identity": (1,),
        "pid": worker.pid,
        "parent": os.getpid(),
        "parent_alive": True,
        "mark": "1",
        "main_thread": True,
    }
    assert "KEEPFED_WORKER" not in os.environ


def test_a_worker_holds_one_socket_and_no_end_of_its_siblings(start: Start) -> None:
    """Else the trainer's end of file would never reach a worker."""

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        end.send("done", sorted(link for link in links if link.startswith("socket:")))
        until_quit(0, end, __)

    inherited = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    pool, first = start(main)
    second = pool.add(1, Region.create(REGION_BYTES))
    others, own = [set(told(pool, worker)) - inherited for worker in (first, second)]
    assert len(others) == len(own) == 1
    assert others != own


def test_descriptors_of_workers_are_not_inherited_by_programs(start: Start) -> None:
    """Neither by those that the trainer starts nor by those that a dataset starts."""
    listing = [
        sys.executable,
        "-c",
        "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3'])",
    ]

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        links = [os.readlink(f"/proc/self/fd/{end.sock.fileno()}")]
        end.send("done", (links, subprocess.check_output(listing, close_fds=False, text=True)))
        until_quit(0, end, __)

    pool, worker = start(main)
    (own,), inherited = told(pool, worker)
    assert own not in inherited
    assert "memfd:keepfed" not in inherited
    assert worker.pid
    assert "pidfd" not in subprocess.check_output(listing, close_fds=False, text=True)


def test_death_is_seen_although_a_grandchild_holds_everything(start: Start) -> None:
    """The sentinel of multiprocessing, a pipe, would tell only when the grandchild ends as well."""
    hold, release = os.pipe()

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        grandchild = os.fork()
        if grandchild == 0:
            os.read(hold, 1)
            os._exit(0)
        end.send("done", grandchild)
        os.kill(os.getpid(), signal.SIGKILL)

    pool, worker = start(main)
    with watching([told(pool, worker)]) as grandchild:
        began_s = time.monotonic()
        assert ended(pool, worker)
        assert time.monotonic() - began_s < 2
        assert worker.exitcode == -signal.SIGKILL
        assert grandchild.alive()
        os.write(release, b"x")
        assert not grandchild.left_after(5)
    os.close(release)
    os.close(hold)


@pytest.mark.parametrize("code", [0, 7])
def test_exit_codes_are_known_although_the_program_ignores_sigchld(start: Start, code: int) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:

        def main(_: int, end: WorkerEnd, __: Region) -> None:
            end.send("done", signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)
            sys.exit(code)

        pool, worker = start(main)
        assert told(pool, worker) is True, "what a dataset sees is the program's own setting"
        assert ended(pool, worker)
        assert worker.exitcode == code
        assert not worker.is_alive()
        assert pool.shut_down() == [worker]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_program_that_waits_for_any_child_disturbs_nothing(start: Start) -> None:
    pool, worker = start(until_quit)
    assert worker.pid
    child = os.fork()
    if child == 0:
        os._exit(3)
    assert os.wait() == (child, 3 << 8), "workers are not children of the program"
    assert pool.shut_down() == [worker]
    assert worker.exitcode == 0


def test_a_zygote_whose_status_somebody_else_took_is_no_error(start: Start) -> None:
    pool, worker = start(until_quit)
    assert worker.pid
    os.kill(pool._zygote.pid, signal.SIGKILL)
    assert os.wait()[0] == pool._zygote.pid
    assert ended(pool, worker)
    assert pool.shut_down() == [worker]


def test_handlers_of_the_program_do_not_run_in_workers(start: Start) -> None:
    """A handler that saves a checkpoint at SIGUSR1 is the trainer's alone; Ctrl-C does not end a worker either."""
    saved, save = os.pipe()
    numbers = [signal.SIGUSR1, signal.SIGINT, signal.SIGHUP]
    before = {number: signal.signal(number, lambda *_: os.write(save, b"saved")) for number in numbers}
    try:

        def main(_: int, end: WorkerEnd, __: Region) -> None:
            for number in numbers:
                os.kill(os.getpid(), number)
            end.send("done", "alive")
            until_quit(0, end, __)

        pool, worker = start(main)
        assert told(pool, worker) == "alive"
        os.set_blocking(saved, False)
        with pytest.raises(BlockingIOError):
            os.read(saved, 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(saved)
        os.close(save)


def test_programs_that_a_dataset_starts_still_die_of_ctrl_c(start: Start) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        with subprocess.Popen(["sleep", "60"]) as ffmpeg:
            ffmpeg.send_signal(signal.SIGINT)
            end.send("done", ffmpeg.wait(20))
        until_quit(0, end, __)

    pool, worker = start(main)
    assert told(pool, worker) == -signal.SIGINT


def test_a_worker_that_ignores_quit_is_terminated(start: Start) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        end.send("done", "deaf")
        time.sleep(600)

    pool, worker = start(main)
    told(pool, worker)
    began_s = time.monotonic()
    assert pool.shut_down() == [worker]
    assert time.monotonic() - began_s < 1.5
    assert worker.exitcode == -signal.SIGTERM


def test_a_worker_that_ignores_terminate_too_is_killed(start: Start) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end.send("done", "deaf")
        while True:
            time.sleep(600)

    pool, worker = start(main)
    told(pool, worker)
    began_s = time.monotonic()
    assert pool.shut_down() == [worker]
    assert 0.9 < time.monotonic() - began_s < 2.5
    assert worker.exitcode == -signal.SIGKILL


def test_a_stopped_worker_is_killed(start: Start) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        end.send("done", "stopping")
        os.kill(os.getpid(), signal.SIGSTOP)

    pool, worker = start(main)
    told(pool, worker)
    assert pool.shut_down() == [worker]
    assert worker.exitcode == -signal.SIGKILL


def test_ctrl_c_while_ending_leaves_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        end.send("done", "deaf")
        time.sleep(600)

    pool, worker = start(main)
    told(pool, worker)

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_wait_for_end", interrupted)
    assert worker.pid
    with watching([worker.pid]) as watched:
        with pytest.raises(KeyboardInterrupt):
            pool.shut_down()
        assert not watched.left_after(1)
    assert pool.closed


def deaf_in_c(end: WorkerEnd) -> None:
    """Hold the interpreter in a call in C, with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    end.send("done", os.getpid())
    ctypes.PyDLL(None).pause()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_when_the_trainer_dies_everything_is_gone_within_a_second(number: int) -> None:
    def trainer(pipe: Connection) -> None:
        def main(worker_id: int, end: WorkerEnd, _: Region) -> None:
            if worker_id == 2:
                deaf_in_c(end)
            end.send("done", os.getpid())
            if worker_id == 1:
                time.sleep(600)
            until_quit(0, end, _)

        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest's faulthandler would write to the terminal
        pool = Pool(Zygote.forked(main))
        workers = [pool.add(worker_id, Region.create(REGION_BYTES)) for worker_id in range(3)]
        pipe.send([told(pool, worker) for worker in workers] + [pool._zygote.pid])
        time.sleep(600)

    with program(trainer) as running, watching(running.hear()) as started:
        os.kill(running.pid, number)
        assert running.wait() == -number
        assert not started.left_after(1)


def test_a_worker_is_gone_only_when_its_process_is(start: Start) -> None:
    """Its region is handed on then: that the zygote is dead does not mean that the worker no longer writes."""
    pool, worker = start(until_quit)
    assert worker.pid
    with watching([worker.pid]) as watched:
        os.kill(pool._zygote.pid, signal.SIGKILL)
        while not worker.gone:
            pool.hear(1)
        assert not watched.alive()


def test_a_refused_fork_is_told_and_ends_no_other_worker(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    real, forks = os.fork, []

    def fork() -> int:
        forks.append(1)
        if len(forks) == 3:  # the first is the zygote's, the second the first worker's
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    pool, first = start(until_quit)
    second = pool.add(1, Region.create(REGION_BYTES))
    assert ended(pool, second)
    assert "Resource temporarily unavailable" in second.why
    assert second.pid is None
    assert first.is_alive()
    pool.forget(second)
    third = pool.add(1, Region.create(REGION_BYTES))
    assert third.pid
    assert third.is_alive()


def test_a_pool_that_a_thread_made_outlives_the_thread(start: Start) -> None:
    """PR_SET_PDEATHSIG is tied to the thread that forks (prctl(2))."""
    made: list[tuple[Pool, Worker]] = []

    def main(_: int, end: WorkerEnd, __: Region) -> None:
        while (message := end.receive(block=True)) is not None and message[0] == "task":
            end.send("done", message[1])

    thread = threading.Thread(target=lambda: made.append(start(main)))
    thread.start()
    thread.join()
    wait_until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists(), "the thread ends")
    pool, worker = made[0]
    later = pool.add(1, Region.create(REGION_BYTES))
    for each in (worker, later):
        each.end.send("task", "still here")
        assert told(pool, each) == "still here"


def test_the_trainer_inherits_no_zombies_as_the_first_process_of_a_container() -> None:
    """There, orphans become its children, and nobody waits for them."""

    def trainer(pipe: Connection) -> None:
        def main(worker_id: int, end: WorkerEnd, _: Region) -> None:
            end.send("done", os.getpid())
            if worker_id:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            until_quit(0, end, _)

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for _ in range(3):
            pool = Pool(Zygote.forked(main))
            workers = [pool.add(worker_id, Region.create(REGION_BYTES)) for worker_id in range(2)]
            for worker in workers:
                told(pool, worker)
            pool._end_workers = lambda: None  # type: ignore[method-assign]  # so that all is left to the zygote
            pool.shut_down()
        try:
            pipe.send(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            pipe.send("no children")

    with program(trainer) as running:
        assert running.hear() == "no children"
        assert running.wait() == 0
