"""Programs with forked, spawned and fork-served workers see what they see under torch, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from keepfed.errors import WorkerNotReady
from keepfed.loader import nursery
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from tests.loader.processes import SOURCE, children_of, program, watching
from tests.loader.side_by_side import Diary, Program, diary_of
from tests.loader.spawned import Drawing, Facts, Holding, Refusing, Stream, Stuck, Told, fail, note_id
from tests.loader.steered import Plain, decide, indices, read, steered

METHODS = ["fork", "spawn", "forkserver"]
CLEAN = ["spawn", "forkserver"]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(autouse=True, scope="module")
def _heap_of_multiprocessing() -> None:
    """multiprocessing keeps the memory file of the first mp.Value for the next ones."""
    multiprocessing.get_context("spawn").Value("i", 0)


def assert_same(ours: Program, theirs: Program) -> None:
    """What a program sees with our loader is what a program sees with torch's."""
    our, their = diary_of(ours, DataLoader), diary_of(theirs, TorchDataLoader)
    for number, (left, right) in enumerate(zip(our[0], their[0], strict=False)):
        assert left == right, f"note {number}"
    assert len(our[0]) == len(their[0])
    assert our[1] == their[1]


def persistent(method: str) -> Program:
    """Two epochs of the same workers."""

    def run(kind: type[TorchDataLoader[Any]], diary: Diary) -> None:
        dataset = Drawing(context=method)
        options: Any = {"multiprocessing_context": method, "persistent_workers": True, "worker_init_fn": note_id}
        loader = kind(dataset, batch_size=3, shuffle=True, num_workers=2, **options)
        for _ in range(2):
            diary.read(loader)
            diary.note("samples", dataset.count.value)
        loader._iterator = None

    return run


@pytest.mark.parametrize("method", CLEAN)
def test_batches_and_random_states_are_torchs_under_the_same_method(method: str) -> None:
    assert_same(persistent(method), persistent(method))


def anew(method: str) -> Program:
    """New workers in each epoch, with the dataset as it is then; a sample that raises; a break in mid-epoch."""

    def run(kind: type[TorchDataLoader[Any]], diary: Diary) -> None:
        dataset = Drawing(bad=5, context=method)
        generator = torch.Generator().manual_seed(4)
        options: Any = {"multiprocessing_context": method, "prefetch_factor": 3, "generator": generator}
        loader = kind(dataset, batch_size=2, num_workers=2, **options)
        for epoch in range(2):
            dataset.epoch = epoch
            diary.read(loader, raises=True)
        diary.read(loader, at_most=2)

    return run


@pytest.mark.parametrize("method", CLEAN)
def test_without_persistent_workers_each_epoch_sees_the_dataset_as_it_is_then(method: str) -> None:
    """What torch delivers does not depend on the method, and its fork is quick."""
    assert_same(anew(method), anew("fork"))


@pytest.mark.parametrize("method", CLEAN)
def test_an_error_of_worker_init_fn_is_torchs(method: str) -> None:
    def starting_by(method: str) -> Program:
        def run(kind: type[TorchDataLoader[Any]], diary: Diary) -> None:
            options: Any = {"multiprocessing_context": method, "worker_init_fn": fail}
            diary.read(kind(Drawing(context=method), num_workers=1, **options), at_most=2, raises=True)

        return run

    assert_same(starting_by(method), starting_by("fork"))


def streaming(method: str) -> Program:
    """Two epochs of an iterable dataset and of a shuffled datapipe."""

    def run(kind: type[TorchDataLoader[Any]], diary: Diary) -> None:
        pipe = IterableWrapper(list(range(20)), deepcopy=False).shuffle().sharding_filter()
        for dataset in (Stream(), pipe):
            loader = kind(dataset, batch_size=3, num_workers=2, multiprocessing_context=method)
            for _ in range(2):
                diary.read(loader)

    return run


@pytest.mark.parametrize("method", CLEAN)
def test_streams_are_torchs(method: str) -> None:
    assert_same(streaming(method), streaming("fork"))


def facts(**options: Any) -> dict[str, Any]:
    """What the only worker of a loader says about itself."""
    (said,) = list(DataLoader(Facts(), batch_size=2, num_workers=1, collate_fn=_first, **options))
    assert isinstance(said, dict)
    return said


def _first(samples: list[Any]) -> Any:
    return samples[0]


@pytest.mark.parametrize("method", CLEAN)
def test_a_worker_is_what_a_child_of_multiprocessing_is(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts(multiprocessing_context=method)  # the nursery is up, and all that follows comes later
    monkeypatch.setenv("TOLD", "after the nursery was started")
    monkeypatch.setattr(sys, "argv", ["train.py", "--fast"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "late"))
    secret, other = os.pipe()
    held = {os.readlink(f"/proc/self/fd/{fd}") for fd in (secret, other)}
    os.set_inheritable(secret, True)
    said = facts(multiprocessing_context=method)
    os.close(secret)
    os.close(other)
    assert said["method"] == method
    assert said["daemon"] is True
    assert said["name"] == "keepfed-0"
    assert said["authkey"] == bytes(multiprocessing.current_process().authkey)
    assert (said["parent"], said["parent_alive"]) == (os.getpid(), True)
    assert said["folder"] == str(tmp_path)
    assert said["path"] == sys.path
    assert said["argv"] == ["train.py", "--fast"]
    assert (said["mark"], said["told"]) == ("1", "after the nursery was started")
    assert said["cores"] == os.sched_getaffinity(0)
    assert said["threads"] == 1
    assert not held & set(said["open"]), "descriptors of the trainer"
    assert said["nursery"] not in (os.getpid(), 1), "it is forked from the zygote"


def test_the_default_start_method_is_heeded() -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert facts()["method"] == "spawn"
        assert facts(multiprocessing_context="fork")["method"] == "fork"
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_daemonic_process_may_have_spawned_workers() -> None:
    """Where torch's cannot."""

    def run(pipe: Connection) -> None:
        multiprocessing.current_process()._config["daemon"] = True  # type: ignore[attr-defined]  # what its parent sets
        pipe.send([int(index) for batch in loader_of("spawn") for index in batch[0]])

    with program(run) as running:
        assert running.hear(40) == list(range(32))
        assert running.wait() == 0


def loader_of(method: str, told: str = "", **options: Any) -> DataLoader:
    """A loader of `Told` with one worker; the default collate."""
    return DataLoader(Told(told), batch_size=2, num_workers=1, multiprocessing_context=method, **options)


# ---- the shared contract ------------------------------------------------------------------------------------------------


def shared(loader: DataLoader, workers: int, tally: Tally | None = None) -> Any:
    """An iterator whose worker count may change."""
    return EpochIter(loader, Terms(Plan(workers), fixed=False, max_workers=4, lookahead=12), tally or Tally())


def drawn(batches: Any) -> list[tuple[list[float], list[float]]]:
    return [(batch[0].tolist(), batch[1].tolist()) for batch in batches]


@pytest.mark.parametrize("method", CLEAN)
def test_workers_that_come_later_unpack_the_same_parcel(method: str) -> None:
    """Added or in the place of a dead one, in mid-epoch, when the program has changed its dataset."""
    torch.manual_seed(1)
    expected = drawn(shared(loader_of("fork"), 1))
    torch.manual_seed(1)
    loader, tally = loader_of(method, "before"), Tally()
    iterator = shared(loader, 1, tally)
    loader.dataset.told = "after"  # type: ignore[attr-defined]  # `Told` has it
    batches = [next(iterator)]
    os.kill(iterator._workers[0].pid, signal.SIGKILL)
    batches += [next(iterator) for _ in range(5)]
    iterator.change_plan(Plan(3))
    batches += list(iterator)
    assert drawn(batches) == expected
    assert {told for batch in batches for told in batch[2]} == {"before"}
    assert len({int(pid) for batch in batches for pid in batch[3]}) >= 2
    assert tally.restarts == 1


@pytest.mark.parametrize("method", CLEAN)
def test_a_steered_loader_has_spawned_workers(method: str, tmp_path: Path) -> None:
    loader = DataLoader(Told("auto"), batch_size=2, num_workers="auto", multiprocessing_context=method)
    with steered(tmp_path) as host:
        batches = host.epoch(loader, moves={4: 2, 9: 1})
    assert [index for batch in batches for index in batch[0].tolist()] == list(range(32))
    assert os.getpid() not in {int(pid) for batch in batches for pid in batch[3]}
    assert loader.stats().fallback == ""


def active(iterator: Any) -> int:
    return len(iterator.active_workers())


@pytest.mark.parametrize("method", CLEAN)
def test_a_program_without_workers_gets_them_by_its_default_start_method(method: str, tmp_path: Path) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    loader = DataLoader(Plain(), batch_size=2)
    try:
        with steered(tmp_path) as host:
            iterator = host.iterator(loader)
            seen: set[int] = set()
            moves = {6: 2}
            batches = read(iterator, host.pilot(loader), moves=moves, after=lambda _: seen.add(active(iterator)))
            assert decide(iterator) == "", "the same batches came out of the child"
            assert seen == {0, 2}
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert indices(batches) == list(range(64))


# ---- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CLEAN)
def test_a_dataset_that_cannot_be_unpickled_says_so_out_of_next(method: str) -> None:
    loader = DataLoader(Holding(part=Refusing()), num_workers=2, multiprocessing_context=method)
    iterator = iter(loader)
    with pytest.raises(
        WorkerNotReady, match="DataLoader worker 0 could not be made ready: LookupError: not in the"
    ) as e:
        next(iterator)
    assert "in _refuse" in str(e.value), "where it happened"
    e.value.__traceback__ = None
    with pytest.raises(WorkerNotReady, match="DataLoader worker 1 could"):
        next(iterator)


def run_script(name: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run one of the programs beside this file."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [*before, sys.executable, str(PROGRAMS / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("method", CLEAN)
def test_a_program_without_a_guard_is_told_how_to_write_one_and_starts_no_workers_from_workers(method: str) -> None:
    ended = run_script("unguarded.py", method)
    assert ended.returncode == 1
    assert "WorkerNotReady: " in ended.stderr
    assert "if __name__ == '__main__':" in ended.stderr
    assert "before the\n        current process has finished its bootstrapping phase" in ended.stderr
    runs = ended.stdout.count("the main module runs")
    assert 2 <= runs <= 4, (
        "in the program, in each of its two workers, in the nursery where the fork server preloads it"
    )


@pytest.mark.parametrize("method", METHODS)
def test_when_the_trainer_is_killed_everything_is_gone_within_a_second(method: str) -> None:
    def trainer(pipe: Connection) -> None:
        theirs, ours = Pipe()
        loader = DataLoader(Stuck(ours), num_workers=2, multiprocessing_context=method)
        iterator: Any = iter(loader)
        pids = {int(theirs.recv_bytes()) for _ in range(2)}
        assert pids == {worker.pid for worker in iterator._workers}
        kept = [kept.pid for kept in nursery._nurseries.values()]
        pipe.send([*pids, iterator._crew.roster.pool()._zygote.pid, *kept])
        signal.pause()

    with program(trainer) as running, watching(running.hear(40)) as started:
        assert len(started.alive()) == (3 if method == "fork" else 4)
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert not started.left_after(1)


@pytest.mark.parametrize("method", CLEAN)
def test_ctrl_c_is_for_the_trainer_alone(method: str) -> None:
    """The terminal sends it to every process of the group; the notebook's next cell goes on with the same workers."""

    def trainer(pipe: Connection) -> None:
        loader = loader_of(method, persistent_workers=True)
        first = list(loader)
        try:
            pipe.send("ready")
            signal.pause()
        except KeyboardInterrupt:
            pipe.send("interrupted")
        second = list(loader)
        pipe.send((int(first[0][3][0]) == int(second[0][3][0]), len(second)))
        loader._iterator = None
        assert len(list(loader)) == 16
        pipe.send("the nursery lives")

    with program(trainer) as running:
        assert running.hear(40) == "ready"
        os.killpg(running.pid, signal.SIGINT)
        assert [running.hear() for _ in range(3)] == ["interrupted", (True, 16), "the nursery lives"]
        assert running.wait() == 0


@pytest.mark.parametrize("method", CLEAN)
def test_dropping_the_iterator_ends_its_workers_with_code_0(method: str) -> None:
    iterator: Any = iter(loader_of(method))
    next(iterator)
    workers = iterator._workers
    zygote = iterator._crew.roster.pool()._zygote.pid
    with watching([zygote, *(worker.pid for worker in workers)]) as watched:
        del iterator
        assert not watched.left_after(1)
    assert [worker.exitcode for worker in workers] == [0]


@pytest.mark.parametrize("method", CLEAN)
def test_a_program_that_ends_in_mid_epoch_leaves_nothing(method: str) -> None:
    def trainer(pipe: Connection) -> None:
        iterator: Any = iter(loader_of(method))
        next(iterator)
        pipe.send([*(worker.pid for worker in iterator._workers), *children_of(os.getpid())])
        pipe.poll(20)

    with program(trainer) as running, watching(running.hear(40)) as started:
        running.pipe.send("end")
        assert running.wait() == 0
        assert not started.left_after(1)
