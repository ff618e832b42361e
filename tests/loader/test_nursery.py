"""One clean interpreter per process hatches every zygote; nobody waits for it, and it outlives nobody."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from keepfed.errors import WorkerDied
from keepfed.loader import nursery
from keepfed.loader.api import DataLoader
from tests.loader.processes import SOURCE, children_of, program, script, wait_until, watching
from tests.loader.spawned import Told


def loader_of(**options: Any) -> DataLoader:
    return DataLoader(Told(), batch_size=4, num_workers=2, multiprocessing_context="spawn", **options)


def kept() -> nursery.Nursery:
    """The nursery of this process."""
    (found,) = nursery._nurseries.values()
    return found


@pytest.fixture(autouse=True)
def _one_nursery() -> Iterator[None]:
    """Others that tests before left are ended, so that `kept` is the only one; it stays for the tests after."""
    if len(nursery._nurseries) != 1:
        nursery.close()
        list(loader_of())
    yield
    gc.collect()


def test_all_iterators_share_one_nursery() -> None:
    before = kept().pid
    assert [len(list(loader_of())) for _ in range(2)] == [8, 8]
    first, second = iter(loader_of()), iter(loader_of())
    assert next(first)[0].tolist() == next(second)[0].tolist()
    assert kept().pid == before
    assert kept().pid in children_of(os.getpid())


def test_the_zygote_of_an_ended_iterator_is_reaped() -> None:
    list(loader_of())
    wait_until(lambda: not children_of(kept().pid), "the nursery waits for its zygotes")


def test_the_trainer_does_not_wait_for_the_nursery() -> None:
    """Neither at `iter()`, nor when the iterator is dropped before anything came."""
    os.kill(kept().pid, signal.SIGSTOP)
    try:
        iterator: Any = iter(loader_of())
        dropped: Any = iter(loader_of())
        del dropped
    finally:
        os.kill(kept().pid, signal.SIGCONT)
    assert len(list(iterator)) == 8
    wait_until(lambda: not children_of(kept().pid), "what was dropped is gone as well")


def test_a_nursery_that_was_killed_is_replaced_and_what_it_hatched_goes_on() -> None:
    iterator = iter(loader_of())
    next(iterator)
    first = kept().pid
    os.kill(first, signal.SIGKILL)
    assert len(list(iterator)) == 7
    assert len(list(loader_of())) == 8
    assert kept().pid != first


def test_a_nursery_that_dies_before_it_hatches_is_told_of() -> None:
    os.kill(kept().pid, signal.SIGSTOP)
    iterator: Any = iter(loader_of())
    os.kill(kept().pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="the interpreter that starts this program's DataLoader workers could not"):
        next(iterator)
    del iterator


def test_an_interpreter_that_does_not_start_is_an_error_at_iter(monkeypatch: pytest.MonkeyPatch) -> None:
    nursery.close()
    executable = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/nowhere/python")
    try:
        with pytest.raises(FileNotFoundError, match="/nowhere/python"):
            iter(loader_of())
    finally:
        multiprocessing.set_executable(os.fsdecode(executable))
    assert len(list(loader_of())) == 8


def test_it_holds_nothing_of_the_program() -> None:
    """Descriptors, even inheritable ones; and after an iterator is gone, nothing of its parcel."""
    nursery.close()
    secret, other = os.pipe()
    os.set_inheritable(secret, True)
    pipe = os.readlink(f"/proc/self/fd/{secret}")
    list(loader_of())
    os.close(secret)
    os.close(other)
    links = [os.readlink(link) for link in Path(f"/proc/{kept().pid}/fd").iterdir()]
    assert pipe not in links
    assert not [link for link in links if "memfd" in link]
    assert "memfd" not in Path(f"/proc/{kept().pid}/maps").read_text(encoding="utf-8")


def links_of(pid: int) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_forked_child_has_a_nursery_of_its_own() -> None:
    before = kept().pid

    def run(pipe: Connection) -> None:
        pipe.send((len(nursery._nurseries), len(list(loader_of())), kept().pid))

    with program(run) as running:
        started, batches, other = running.hear(40)
        with watching([other]) as watched:
            assert running.wait() == 0
            assert not watched.left_after(1)
    assert (started, batches) == (0, 8)
    assert other != before
    assert kept().usable()
    assert len(list(loader_of())) == 8


def test_threads_that_iterate_at_the_same_time_start_one_nursery() -> None:
    nursery.close()
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(len(list(loader_of())))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [8, 8]
    wait_until(lambda: not Path(f"/proc/self/task/{threads[0].native_id}").exists(), "the starting thread ends")
    assert kept().usable(), "its end is not the end of the trainer"
    assert len(list(loader_of())) == 8


def test_what_the_program_lets_its_fork_server_preload_is_imported_once() -> None:
    command = [sys.executable, str(Path(__file__).parent / "programs" / "preloaded.py")]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=True).stdout
    (first, worker), (second, other) = (line.split() for line in said.splitlines())
    assert first == second
    assert len({first, worker, other}) == 3


def test_at_exit_nothing_is_left_and_nothing_is_said() -> None:
    text = (
        "import keepfed, os\n"
        "from tests.loader.spawned import Told\n"
        "from keepfed.loader import nursery\n"
        "loader = keepfed.DataLoader(Told(), num_workers=1, multiprocessing_context='spawn', persistent_workers=True)\n"
        "next(iter(loader))\n"
        "print(*[kept.pid for kept in nursery._nurseries.values()], loader._iterator._workers[0].pid, flush=True)\n"
        "input()\n"
    )
    with script(f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{text}") as running:
        assert running.stdout is not None
        with watching(map(int, running.stdout.readline().split())) as started:
            _, errors = running.communicate("\n", timeout=20)
            assert not started.left_after(1)
    assert (running.returncode, errors) == (0, "")


def test_a_trainer_that_is_killed_while_its_nursery_starts_takes_it_along() -> None:
    def run(pipe: Connection) -> None:
        iterator = iter(loader_of())
        pipe.send(kept().pid)
        time.sleep(600)
        del iterator

    with program(run) as running, watching([running.hear()]) as started:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert not started.left_after(1)
