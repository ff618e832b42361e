"""A pool's workers behave as the Process objects for which frameworks take them, and news of them is never lost."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keepfed.loader import channel, control, pool, zygote
from keepfed.loader.arena import Region
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.pool import Pool
from keepfed.loader.zygote import Zygote
from tests.loader.interrupting import Interrupter
from tests.loader.processes import wait_until, watching


def region() -> Region:
    return Region.create(1 << 30)


def echo(_: int, end: WorkerEnd, __: Region) -> None:
    """Send back what comes, until told to quit; "exit" with a code at once."""
    while (message := end.receive(block=True)) is not None and message[0] != "quit":
        if message[0] == "exit":
            os._exit(message[1])
        if message[0] == "hang up":
            end.sock.close()
            time.sleep(600)
        end.send(*message)


@contextmanager
def running(main: Any = echo) -> Iterator[Pool]:
    """A pool that is shut down at the end."""
    made = Pool(Zygote.forked(main))
    try:
        yield made
    finally:
        made.shut_down()


def test_a_worker_answers_as_a_process_of_multiprocessing_does() -> None:
    with running() as workers:
        worker = workers.add(0, region())
        assert worker.pid
        assert worker.is_alive()
        assert worker.exitcode is None
        began_s = time.monotonic()
        worker.join(0.05)
        assert 0.04 < time.monotonic() - began_s < 1
        assert worker.is_alive()
        worker.end.send("exit", 3)
        worker.join()
        assert not worker.is_alive()
        assert worker.exitcode == 3
        worker.terminate()
        worker.kill()
        worker.join(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_terminate_and_kill_end_a_worker(number: int) -> None:
    with running() as workers:
        worker = workers.add(0, region())
        (worker.terminate if number == signal.SIGTERM else worker.kill)()
        worker.join(10)
        assert worker.exitcode == -number


def test_a_worker_answers_after_its_pool_is_gone() -> None:
    with running() as workers:
        worker = workers.add(0, region())
        pid = worker.pid
    del workers
    gc.collect()
    assert (worker.pid, worker.exitcode, worker.is_alive()) == (pid, 0, False)
    worker.join()
    worker.terminate()


def test_a_worker_that_is_asked_twice_to_quit_is_told_once() -> None:
    with running() as workers:
        worker = workers.add(0, region())
        workers.quit(worker)
        workers.quit(worker)
        worker.join(10)
        assert worker.exitcode == 0


def test_what_a_worker_said_before_it_died_is_heard() -> None:
    def main(_: int, end: WorkerEnd, __: Region) -> None:
        for number in range(50):
            end.send("done", number)
        os.kill(os.getpid(), signal.SIGKILL)

    with running(main) as workers:
        worker = workers.add(0, region())
        worker.join(10)
        heard = []
        while (message := worker.end.peek()) is not None:
            heard.append(message[1])
            worker.end.done_with_first()
        assert heard == list(range(50))


def test_a_worker_that_hangs_up_with_tasks_unsent_disturbs_nothing() -> None:
    """Its socket is watched no more, while there are packets that wait to be sent to it."""
    with running() as workers:
        deaf, other = workers.add(0, region()), workers.add(1, region())
        assert deaf.pid
        os.kill(deaf.pid, signal.SIGSTOP)
        deaf.end.send("hang up")
        deaf.end.send("task", bytes(1 << 20))
        assert deaf.end.outbox
        os.kill(deaf.pid, signal.SIGCONT)
        wait_until(lambda: workers.hear(0.1) and deaf.end.ended, "the end of its file")
        assert deaf.is_alive(), "a socket is not a process"
        other.end.send("task", "still")
        wait_until(lambda: workers.hear(0.1) and other.end.peek() == ("task", "still"), "the other one answers")


def test_an_id_that_is_used_again_does_not_get_the_exit_code_of_the_one_before() -> None:
    with running() as workers:
        first = workers.add(0, region())
        assert first.pid
        first.end.send("exit", 9)
        with watching([first.pid]) as watched:
            assert not watched.left_after(10)
        workers.forget(first)
        second = workers.add(0, region())
        assert second.pid != first.pid
        workers.hear(0.2)
        assert second.exitcode is None
        assert second.is_alive()


def test_many_workers_come_and_go_and_leave_nothing() -> None:
    with running() as workers:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(15):
            for worker_id in range(3):
                workers.add(worker_id, region())
            for worker in list(workers.workers.values()):
                workers.quit(worker)
                worker.join(10)
                assert worker.exitcode == 0
                workers.forget(worker)
        del worker
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_pool_that_is_shut_down_twice_or_closed_says_nothing_more() -> None:
    with running() as workers:
        workers.add(0, region())
        assert len(workers.shut_down()) == 1
        assert workers.shut_down() == []
        assert not workers.hear(None)
        workers.close()


def test_the_region_of_a_worker_that_cannot_be_killed_is_not_handed_on() -> None:
    """It is left behind with whoever may still write there, also where the pool ends before anybody forgets the worker."""
    with running() as workers:
        dead, left = workers.add(0, region()), workers.add(1, region())
        dead.kill()
        dead.join(10)
        assert left.pid
        workers.abandon(left)
        assert workers.shut_down() == [dead]


# ---- Ctrl-C at every line of what hears and watches ------------------------------------------------------------------

INTERRUPTED = {module.__file__ for module in (channel, control, pool, zygote)}


def life(workers: Pool, interrupter: Interrupter) -> list[Any]:
    """A worker's birth, two messages each way and its death, as the trainer hears of them; what was heard."""
    worker = workers.add(0, region())
    heard: list[Any] = []

    def take() -> None:
        while (message := worker.end.peek()) is not None:
            if message not in heard:
                heard.append(message)
            worker.end.done_with_first()

    def hear_until(done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 10
        while not done():
            assert time.monotonic() < end_s, f"lost after an interrupt at {interrupter.at}"
            interrupter.run(lambda: workers.hear(1.0))
            interrupter.run(take)

    worker.end.send("task", 0, bytes(70_000))
    worker.end.send("task", 1, b"")
    hear_until(lambda: len(heard) == 2)
    hear_until(lambda: worker.forked_pid is not None)
    worker.end.send("exit", 5)
    hear_until(lambda: worker.gone)
    assert worker.exitcode == 5
    interrupter.run(lambda: workers.forget(worker))
    workers.forget(worker)
    return [message[1] for message in heard]


@pytest.mark.leaves("descriptors", reason="an interrupt just before os.close costs that one; closing twice is worse")
def test_ctrl_c_at_a_line_loses_no_birth_no_message_and_no_death() -> None:
    """One line after the other (every fourth, for the time that a life takes); what was interrupted is done again."""
    with running() as workers:
        for position in itertools.count(1, 4):
            interrupter = Interrupter(INTERRUPTED, position)
            try:
                assert life(workers, interrupter) == [0, 1], f"interrupted at {interrupter.at}"
            finally:
                interrupter.close()
            if not interrupter.at:
                break
        assert position > 80, "so many lines were interrupted"


@pytest.mark.leaves("descriptors", reason="an interrupt just before os.close costs that one; closing twice is worse")
def test_ctrl_c_closes_no_descriptor_that_has_become_somebody_elses() -> None:
    """The pidfd of a worker that nobody knows any more is closed; its number is given to the next file that is opened."""
    for position in itertools.count(1):
        interrupter = Interrupter(INTERRUPTED, position)
        ours, theirs = control.control_pair()
        reading, writing = os.pipe()
        workers = Pool(Zygote(ours))
        try:
            control.tell(theirs, ("forked", 1, os.getpid()), [writing])
            interrupter.run(functools.partial(workers.hear, 0))
            others = [os.dup(reading) for _ in range(3)]
            workers.hear(0)
            workers.hear(0)
            for fd in (*others, reading, writing):
                os.close(fd)  # EBADF for one that was closed meanwhile
        finally:
            interrupter.close()
            workers.close()
        theirs.close()
        if not interrupter.at:
            break
    assert position > 10, "so many lines were interrupted"
