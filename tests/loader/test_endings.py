"""However a loop, an iterator or a program ends: nothing is left within a second, and nothing of somebody else's ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from keepfed.errors import ForkedIterator
from keepfed.loader.api import DataLoader
from tests.loader.processes import Watched, children_of, program, script, watching
from tests.loader.spawned import Numbers

METHODS = ["fork", "spawn", "forkserver"]
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whoever ends, ends without a traceback on the program's standard error."""
    yield
    assert capfd.readouterr().err == ""


def loader_of(dataset: Dataset[torch.Tensor], method: str = "fork", **arguments: Any) -> DataLoader:
    return DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method, **arguments)


def processes_of(iterator: Any) -> list[int]:
    """Its workers and its zygote."""
    return [*(worker.pid for worker in iterator._workers), iterator._crew.roster.pool()._zygote.pid]


def rest_of(iterator: Any) -> list[int]:
    return [int(number) for batch in iterator for number in batch]


@every_method
def test_dropping_the_iterator_in_mid_epoch_ends_its_workers_with_code_0(method: str) -> None:
    iterator: Any = iter(loader_of(Numbers(), method))
    next(iterator)
    workers = iterator._workers
    with watching(processes_of(iterator)) as watched:
        del iterator
        assert not watched.left_after(1)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not any(worker.is_alive() for worker in workers)


@every_method
def test_the_end_of_the_epoch_ends_the_workers_with_code_0(method: str) -> None:
    iterator: Any = iter(loader_of(Numbers(), method))
    with watching(processes_of(iterator)) as watched:
        assert rest_of(iterator) == list(range(40))
        assert not watched.left_after(1)
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]
    with pytest.raises(StopIteration):
        next(iterator)


@every_method
def test_persistent_workers_stay_until_the_loader_is_dropped(method: str) -> None:
    loader = loader_of(Numbers(), method, persistent_workers=True)
    assert rest_of(iter(loader)) == list(range(40))
    pids = processes_of(loader._iterator)
    with watching(pids) as watched:
        assert rest_of(iter(loader)) == list(range(40))
        assert watched.alive() == set(pids)
        del loader
        gc.collect()
        assert not watched.left_after(1)


@every_method
def test_an_iterator_in_a_garbage_cycle_ends_its_workers(method: str) -> None:
    iterator: Any = iter(loader_of(Numbers(), method))
    pids = processes_of(iterator)
    cycle: list[Any] = [iterator]
    cycle.append(cycle)
    with watching(pids) as watched:
        del iterator, cycle
        gc.collect()
        assert not watched.left_after(1)


def train(method: str, watched: list[Watched], *, fail: bool) -> None:
    """A loop that is left in mid-epoch."""
    iterator: Any = iter(loader_of(Numbers(), method))
    watched.append(Watched(processes_of(iterator)))
    for _ in iterator:
        if fail:
            raise ZeroDivisionError
        break


@every_method
@pytest.mark.parametrize("collects", [True, False], ids=["collected", "gc off"])
def test_a_loop_that_is_left_by_an_exception_or_a_break_ends_the_workers_with_it(method: str, collects: bool) -> None:
    """Also in programs that switch the garbage collector off to save its pauses."""
    watched: list[Watched] = []
    if not collects:
        gc.disable()
    try:
        train(method, watched, fail=False)
        with pytest.raises(ZeroDivisionError):
            train(method, watched, fail=True)
        assert not any(processes.left_after(1) for processes in watched)
    finally:
        gc.enable()
        for processes in watched:
            processes.close()


@every_method
def test_an_iterator_outlives_the_thread_that_made_it_and_ends_with_the_one_that_drops_it(method: str) -> None:
    def make() -> Any:
        iterator: Any = iter(loader_of(Numbers(), method))
        assert next(iterator).tolist() == [0, 1, 2, 3]
        return iterator

    def drop(iterators: list[Any]) -> None:
        iterators.clear()

    with ThreadPoolExecutor(1) as thread:
        iterators = [thread.submit(make).result()]
    with watching(processes_of(iterators[0])) as watched:
        assert next(iterators[0]).tolist() == [4, 5, 6, 7]
        assert len(watched.alive()) == 3
        with ThreadPoolExecutor(1) as thread:
            thread.submit(drop, iterators).result()
        assert not watched.left_after(1)


@every_method
def test_a_worker_in_a_long_sample_does_not_hold_up_the_end(method: str) -> None:
    iterator: Any = iter(loader_of(Numbers(stuck_at=4), method))
    next(iterator)
    with watching(processes_of(iterator)) as watched:
        began_s = time.monotonic()
        del iterator
        assert time.monotonic() - began_s < 1
        assert not watched.alive()


AT_EXIT = """
import os, sys
sys.path.insert(0, {folder!r})
import keepfed.loader.api as keepfed
from tests.loader.spawned import Numbers

options = dict(persistent_workers={persistent}, multiprocessing_context={method!r})
iterator = iter(keepfed.DataLoader(Numbers(), batch_size=4, num_workers=2, **options))
batch = next(iterator)
children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
print(*children, *[worker.pid for worker in iterator._workers], flush=True)
sys.stdin.readline()
{end}
"""


@pytest.mark.parametrize(
    ("end", "persistent", "method", "code"),
    [
        ("pass", False, "fork", 0),
        ("sys.exit(5)", True, "fork", 5),
        ("os._exit(6)", False, "fork", 6),
        ("1 / 0", False, "fork", 1),
        ("1 / 0", True, "forkserver", 1),
    ],
)
def test_an_iterator_at_module_level_ends_with_the_interpreter(
    end: str, persistent: bool, method: str, code: int
) -> None:
    folder = str(Path(__file__).parents[2])
    with script(AT_EXIT.format(end=end, persistent=persistent, method=method, folder=folder)) as running:
        assert running.stdout is not None
        with watching(map(int, running.stdout.readline().split())) as watched:
            assert len(watched.alive()) >= 3
            _, errors = running.communicate("\n", timeout=20)
            assert not watched.left_after(1)
    assert running.returncode == code
    assert (errors.count("Traceback"), errors.count("ZeroDivisionError")) == ((1, 1) if code == 1 else (0, 0)), errors
    assert errors == "" or code == 1


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


class Gate(Dataset[torch.Tensor]):
    """Numbers, of which the one at `shut` waits until the gate is opened."""

    def __init__(self, shut: int) -> None:
        self.shut = shut
        self.wait, self.open = os.pipe()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.shut:
            os.read(self.wait, 1)
        return torch.tensor(index)


def interrupted_in_next(running: Any) -> None:
    """Ctrl-C in a terminal: to the trainer, the zygote and the workers alike."""
    time.sleep(0.2)  # into the wait inside next(); should it come before, the same must hold
    os.killpg(running.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "whom", "method", "code"),
    [
        (signal.SIGINT, os.killpg, "fork", 130),
        (signal.SIGINT, os.killpg, "forkserver", 130),
        (signal.SIGTERM, os.killpg, "fork", -signal.SIGTERM),
        (signal.SIGTERM, os.kill, "fork", -signal.SIGTERM),
        (signal.SIGTERM, os.killpg, "spawn", -signal.SIGTERM),
        (signal.SIGHUP, os.killpg, "fork", -signal.SIGHUP),
    ],
)
def test_a_signal_during_next_ends_everything(
    number: int, whom: Callable[[int, int], None], method: str, code: int
) -> None:
    """Ctrl-C and a closed terminal go to the whole group, as a scheduler's SIGTERM may; kill(1) to one process."""

    def trainer(pipe: Connection) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        iterator: Any = iter(loader_of(Numbers(stuck_at=8), method))
        next(iterator)
        next(iterator)
        pipe.send({*processes_of(iterator), *children_of(os.getpid())})
        next(iterator)

    with program(trainer) as running, watching(running.hear(40)) as watched:
        time.sleep(0.2)  # into the wait inside next(); should it come before, the same must hold
        whom(running.pid, number)
        assert running.wait() == code
        assert not watched.left_after(1)


@pytest.mark.parametrize("persistent", [False, True])
def test_after_an_interrupted_cell_the_iterator_and_the_loader_go_on(persistent: bool) -> None:
    """Jupyter: interrupt, run the cell again. torch's persistent workers are dead then."""

    def trainer(pipe: Connection) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        dataset = Gate(shut=8)
        loader = loader_of(dataset, persistent_workers=persistent)
        iterator: Any = iter(loader)
        seen = [int(number) for _ in range(2) for number in next(iterator)]
        pids = [worker.pid for worker in iterator._workers]
        pipe.send("waiting")
        try:
            next(iterator)
        except KeyboardInterrupt:
            pipe.send("interrupted")
        os.write(dataset.open, bytes(2))
        seen += rest_of(iterator)
        pipe.send((seen, [worker.pid for worker in iterator._workers] == pids))
        pipe.send(rest_of(iter(loader)))

    with program(trainer) as running:
        assert running.hear() == "waiting"
        interrupted_in_next(running)
        assert running.hear() == "interrupted"
        assert running.hear() == (list(range(40)), True), "nothing lost, nothing twice, the same workers"
        assert running.hear() == list(range(40))
        assert running.wait() == 0


# ---- forks of the program --------------------------------------------------------------------------------------------


def leave() -> None:
    """End as an interpreter does, with its finalizers."""
    import atexit

    atexit._run_exitfuncs()


@pytest.mark.parametrize("end", [leave, gc.collect, lambda: os._exit(0)], ids=["exits", "collects", "_exits"])
@pytest.mark.parametrize(
    ("method", "persistent"), [("fork", False), ("fork", True), ("spawn", True), ("forkserver", False)]
)
def test_a_forked_child_ends_nothing_of_its_parent(end: Callable[[], None], method: str, persistent: bool) -> None:
    loader = loader_of(Numbers(), method, persistent_workers=persistent)
    iterators: list[Any] = [iter(loader)]
    next(iterators[0])

    def child(pipe: Connection) -> None:
        iterators.clear()
        loader._iterator = None
        end()
        pipe.send("done")

    with program(child) as running:
        running.wait()
    assert rest_of(iterators[0]) == list(range(4, 40))
    assert [worker.exitcode for worker in iterators[0]._workers] == ([None, None] if persistent else [0, 0])


def test_next_on_an_inherited_iterator_says_whose_it_is() -> None:
    iterator: Any = iter(loader_of(Numbers()))
    next(iterator)

    def child(pipe: Connection) -> None:
        try:
            next(iterator)
        except ForkedIterator as error:
            pipe.send(str(error))

    with program(child) as running:
        assert "iter(loader)" in running.hear()
        assert running.wait() == 0
    assert rest_of(iterator) == list(range(4, 40))


@pytest.mark.parametrize("persistent", [False, True])
def test_a_forked_child_iterates_the_inherited_loader_with_workers_of_its_own(persistent: bool) -> None:
    loader = loader_of(Numbers(), persistent_workers=persistent)
    iterator: Any = iter(loader)
    next(iterator)
    pids = {worker.pid for worker in iterator._workers}

    def child(pipe: Connection) -> None:
        for _ in range(2):
            own: Any = iter(loader)
            pipe.send(pids.isdisjoint({worker.pid for worker in own._workers}))
            pipe.send(rest_of(own))

    with program(child) as running:
        for _ in range(2):
            assert running.hear() is True
            assert running.hear() == list(range(40))
        assert running.wait() == 0
    assert rest_of(iterator) == list(range(4, 40))


def test_a_child_that_outlives_the_parents_iterator_keeps_no_worker_alive() -> None:
    """It closed its copies of the sockets, so that a worker's end of file still means that the trainer is gone."""
    iterator: Any = iter(loader_of(Numbers()))
    next(iterator)

    def child(pipe: Connection) -> None:
        pipe.send("here")
        pipe.poll(60)

    with watching(processes_of(iterator)) as watched, program(child) as running:
        assert running.hear() == "here"
        del iterator
        assert not watched.left_after(1)
        assert sys.exc_info() == (None, None, None)


def test_what_the_program_printed_is_not_printed_again_by_its_workers(tmp_path: Path) -> None:
    """Standard output is buffered in a pipe: whoever is forked has a copy of the unwritten text, and writes it at its end."""
    program = tmp_path / "train.py"
    program.write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nimport keepfed\n"
        "print('only once')\n"
        "for _ in keepfed.DataLoader(TensorDataset(torch.arange(8)), batch_size=2, num_workers=2): pass\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, program], env=environ, capture_output=True, text=True, check=True, timeout=50
    )
    assert ended.stdout == "only once\n"
