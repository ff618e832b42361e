"""However a loop, an iterator or a program ends: nothing is left within a second, and nothing of somebody else's ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from keepfed.errors import ForkedIterator
from keepfed.loader.api import DataLoader
from tests.loader.processes import children_of, program, script, watching


class Numbers(Dataset[torch.Tensor]):
    """0, 1, 2, …; a worker that reaches `stuck_at` sleeps."""

    def __init__(self, count: int = 40, stuck_at: int = -1) -> None:
        self.count, self.stuck_at = count, stuck_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.stuck_at:
            time.sleep(600)
        return torch.tensor(index)


def loader_of(dataset: Dataset[torch.Tensor], **arguments: Any) -> DataLoader:
    return DataLoader(dataset, batch_size=4, num_workers=2, **arguments)


_before: set[int] = set()


@pytest.fixture(autouse=True)
def lasting_processes() -> None:
    """Others may have started what lasts as long as this process: a nursery, multiprocessing's resource tracker."""
    _before.clear()
    _before.update(children_of(os.getpid()))


def new_children() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if pid not in _before]


def processes_of(iterator: Any) -> list[int]:
    """Its workers and its zygote."""
    return [worker.pid for worker in iterator._workers] + new_children()


def rest_of(iterator: Any) -> list[int]:
    return [int(number) for batch in iterator for number in batch]


def test_dropping_the_iterator_in_mid_epoch_ends_its_workers_with_code_0() -> None:
    iterator: Any = iter(loader_of(Numbers()))
    next(iterator)
    workers = iterator._workers
    with watching(processes_of(iterator)) as watched:
        del iterator
        assert not watched.left_after(1)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not any(worker.is_alive() for worker in workers)


def test_the_end_of_the_epoch_ends_the_workers_with_code_0() -> None:
    iterator: Any = iter(loader_of(Numbers()))
    with watching(processes_of(iterator)) as watched:
        assert rest_of(iterator) == list(range(40))
        assert not watched.left_after(1)
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]
    with pytest.raises(StopIteration):
        next(iterator)


def test_persistent_workers_stay_until_the_loader_is_dropped() -> None:
    loader = loader_of(Numbers(), persistent_workers=True)
    assert rest_of(iter(loader)) == list(range(40))
    pids = processes_of(loader._iterator)
    with watching(pids) as watched:
        assert rest_of(iter(loader)) == list(range(40))
        assert watched.alive() == set(pids)
        del loader
        gc.collect()
        assert not watched.left_after(1)


def test_an_iterator_in_a_garbage_cycle_ends_its_workers() -> None:
    iterator: Any = iter(loader_of(Numbers()))
    pids = processes_of(iterator)
    cycle: list[Any] = [iterator]
    cycle.append(cycle)
    with watching(pids) as watched:
        del iterator, cycle
        gc.collect()
        assert not watched.left_after(1)


def test_an_exception_in_the_loop_ends_the_workers_with_it() -> None:
    def train(pids: list[int]) -> None:
        iterator: Any = iter(loader_of(Numbers()))
        pids += processes_of(iterator)
        for _ in iterator:
            raise ZeroDivisionError

    pids: list[int] = []
    with pytest.raises(ZeroDivisionError):
        train(pids)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert new_children() == []


def test_a_worker_in_a_long_sample_does_not_hold_up_the_end() -> None:
    iterator: Any = iter(loader_of(Numbers(stuck_at=4)))
    next(iterator)
    with watching(processes_of(iterator)) as watched:
        began_s = time.monotonic()
        del iterator
        assert time.monotonic() - began_s < 1
        assert not watched.alive()


AT_EXIT = """
import os, sys, time, torch
import keepfed.loader.api as keepfed

class Numbers(torch.utils.data.Dataset):
    def __len__(self): return 40
    def __getitem__(self, index): return torch.tensor(index)

loader = keepfed.DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers={persistent})
iterator = iter(loader)
batch = next(iterator)
children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
print(*children, *[worker.pid for worker in iterator._workers], flush=True)
sys.stdin.readline()
{end}
"""


@pytest.mark.parametrize(
    ("end", "persistent", "code"),
    [("pass", False, 0), ("sys.exit(5)", True, 5), ("os._exit(6)", False, 6), ("1 / 0", False, 1)],
)
def test_an_iterator_at_module_level_ends_with_the_interpreter(end: str, persistent: bool, code: int) -> None:
    with script(AT_EXIT.format(end=end, persistent=persistent)) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        with watching(map(int, running.stdout.readline().split())) as watched:
            assert len(watched.alive()) == 3
            running.stdin.write("\n")
            running.stdin.flush()
            assert running.wait(20) == code
            assert not watched.left_after(1)


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


def test_ctrl_c_during_next_ends_everything() -> None:
    def trainer(pipe: Connection) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        iterator: Any = iter(loader_of(Numbers(stuck_at=8)))
        next(iterator)
        next(iterator)
        pipe.send(processes_of(iterator))
        next(iterator)

    with program(trainer) as running, watching(running.hear()) as watched:
        interrupted_in_next(running)
        assert running.wait() == 130
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
@pytest.mark.parametrize("persistent", [False, True])
def test_a_forked_child_ends_nothing_of_its_parent(end: Callable[[], None], persistent: bool) -> None:
    loader = loader_of(Numbers(), persistent_workers=persistent)
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
