"""A dataset arrives in every worker as multiprocessing and torch would bring it, or is refused with the place that is wrong."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from keepfed.loader import parcel
from keepfed.loader.api import DataLoader
from keepfed.loader.parcel import Parcel, preparation
from keepfed.loader.unpack import Contents
from keepfed.loader.worker import WorkerJob
from tests.loader.processes import SOURCE, program
from tests.loader.spawned import Holding

PROGRAMS = Path(__file__).parent / "programs"
LARGE = 100_000
"""Elements of what is too large to be pickled in place."""


@pytest.fixture(autouse=True, scope="module")
def _heap_of_multiprocessing() -> None:
    """multiprocessing keeps the memory file of the first mp.Value for the next ones."""
    multiprocessing.get_context("spawn").Value("i", 0)


def packed(dataset: Any) -> Parcel:
    return Parcel.pack(WorkerJob({"dataset": dataset}, False, False), preparation(), "spawn")


def in_worker(parcel: Parcel, look: Callable[[Any], Any]) -> Any:
    """What `look` sees of the dataset in a process that unpacks the parcel."""

    def run(pipe: Connection) -> None:
        torch.set_num_threads(1)  # those of the parent were not forked
        dataset = Contents([os.dup(fd) for fd in parcel.fds], *parcel.sizes).unpack().loop_arguments["dataset"]
        pipe.send(look(dataset))

    with program(run) as running:
        said = running.hear()
        assert running.wait() == 0
    return said


@pytest.fixture(params=["shared", "no room"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether torch can move storages into /dev/shm."""
    if request.param == "no room":
        without_room(monkeypatch)
    return bool(request.param == "shared")


def without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch fails on a full /dev/shm."""

    def full(storage: torch.UntypedStorage) -> Any:
        if storage.nbytes() == 0 or storage.is_shared():
            return inherited(storage)
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    reducers = parcel.ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # where types are registered
    inherited = reducers[torch.UntypedStorage]
    monkeypatch.setitem(reducers, torch.UntypedStorage, full)


# ---- tensors ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Sparse :UserWarning")
def test_tensors_arrive_as_they_are(room: bool) -> None:
    base = torch.arange(LARGE, dtype=torch.float32)
    held: dict[str, Any] = {
        "plain": base.clone(),
        "small": torch.tensor([1, 2, 3], dtype=torch.int16),
        "empty": torch.empty(0, 3),
        "strided": base.view(100, -1).t(),
        "leaf": base.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(base.clone(), requires_grad=False),
        "expanded": torch.ones(1).expand(LARGE),
        "sparse": torch.eye(300).to_sparse(),
        "rows": torch.eye(300).to_sparse_csr(),
        "bfloat": base.to(torch.bfloat16),
        "storage": base.clone().untyped_storage(),
        "module": torch.nn.Linear(4, 4),
    }

    def look(dataset: Any) -> list[str]:
        wrong = []
        for name, want in held.items():
            got = getattr(dataset, name)
            same = type(got) is type(want)
            if isinstance(want, torch.Tensor):
                same = same and got.layout == want.layout and got.dtype == want.dtype and got.shape == want.shape
                same = same and got.requires_grad == want.requires_grad and torch.equal(got.to_dense(), want.to_dense())
                if want.layout is torch.strided:
                    same = same and got.stride() == want.stride()
            elif isinstance(want, torch.UntypedStorage):
                same = bytes(got) == bytes(want)
            else:
                same = torch.equal(got.weight, want.weight)
            if not same:
                wrong.append(name)
        return wrong

    assert in_worker(packed(Holding(**held)), look) == []


def test_views_of_one_storage_still_share_it(room: bool) -> None:
    whole = torch.zeros(LARGE)
    dataset = Holding(whole=whole, part=whole[10:20], again=whole)

    def look(dataset: Any) -> tuple[float, bool]:
        dataset.part[0] = 7
        return float(dataset.whole[10]), dataset.again is dataset.whole

    assert in_worker(packed(dataset), look) == (7.0, True)


def test_a_write_to_a_tensor_is_seen_by_the_other_workers_and_where_there_is_room_by_the_trainer(room: bool) -> None:
    whole = torch.zeros(LARGE)
    sent = packed(Holding(whole=whole))

    def write(dataset: Any) -> None:
        dataset.whole[3] = 5

    in_worker(sent, write)
    assert in_worker(sent, lambda dataset: float(dataset.whole[3])) == 5
    assert float(whole[3]) == (5 if room else 0)


def test_what_is_shared_already_stays_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "SHARED_STORAGES", 0)
    counter: Any = torch.zeros(1)
    counter.share_memory_()

    def count(dataset: Any) -> None:
        dataset.counter += 1

    sent = packed(Holding(counter=counter))
    in_worker(sent, count)
    in_worker(sent, count)
    assert int(counter) == 2


def test_thousands_of_tensors_need_no_descriptor_each() -> None:
    tensors = [torch.full((20,), float(number)) for number in range(2_000)]
    sent = packed(Holding(tensors=tensors))
    assert len(sent.fds) < 150
    assert in_worker(sent, lambda dataset: [float(tensor[7]) for tensor in dataset.tensors]) == list(range(2_000))


def test_a_tensor_that_is_part_of_a_graph_is_refused_as_torch_refuses_it() -> None:
    dataset = Holding(weights=[torch.ones(2, requires_grad=True) * 2])
    with pytest.raises(RuntimeError, match=r"(?s)Cowardly refusing .*cannot be pickled: dataset\.weights\[0\]"):
        packed(dataset)


# ---- arrays -------------------------------------------------------------------------------------------------------------


def test_arrays_arrive_writable_whatever_they_were() -> None:
    records = np.zeros(LARGE, [("a", "i4"), ("b", "f8", (2,))])
    records["b"][5] = 1, 2
    held: dict[str, Any] = {
        "rows": np.arange(LARGE, dtype=np.float32).reshape(100, -1),
        "columns": np.asfortranarray(np.arange(LARGE).reshape(100, -1)),
        "every_other": np.arange(4 * LARGE)[::2],
        "records": records,
        "objects": np.array([{"a": 1}] * LARGE, dtype=object),
        "times": np.zeros(LARGE, "datetime64[ns]"),
        "small": np.arange(3),
        "scalar": np.array(3.5),
        "huge_item": np.array(b"x" * LARGE),
    }
    held["frozen"] = held["rows"].copy()
    held["frozen"].flags.writeable = False

    def look(dataset: Any) -> list[str]:
        return [
            name
            for name, want in held.items()
            if not np.array_equal(getattr(dataset, name), want)
            or getattr(dataset, name).dtype != want.dtype
            or not getattr(dataset, name).flags.writeable
            or getattr(dataset, name).flags.f_contiguous != pickle.loads(pickle.dumps(want)).flags.f_contiguous
        ]

    assert in_worker(packed(Holding(**held)), look) == []


def test_an_array_is_each_workers_own() -> None:
    own = np.zeros(LARGE)
    sent = packed(Holding(own=own))

    def write(dataset: Any) -> float:
        dataset.own += 1
        return float(dataset.own.sum())

    assert in_worker(sent, write) == LARGE
    assert in_worker(sent, write) == LARGE
    assert own.sum() == 0


# ---- what holds descriptors ---------------------------------------------------------------------------------------------


def test_values_locks_queues_and_events_of_multiprocessing_work() -> None:
    spawn = multiprocessing.get_context("spawn")
    held: dict[str, Any] = {"value": spawn.Value("i", 1), "lock": spawn.Lock(), "event": spawn.Event()}
    held["queue"] = spawn.SimpleQueue()
    reader, writer = spawn.Pipe(duplex=False)
    sent = packed(Holding(**held, writer=writer))
    writer.close()

    def use(dataset: Any) -> None:
        with dataset.lock, dataset.value.get_lock():
            dataset.value.value += 1
        dataset.queue.put(dataset.value.value)
        dataset.writer.send("from the worker")
        dataset.event.set()

    for number in (2, 3):
        in_worker(sent, use)
        assert held["queue"].get() == held["value"].value == number
        assert reader.recv() == "from the worker"
        assert held["event"].is_set()
    reader.close()
    held["queue"].close()


def test_more_descriptors_than_one_message_takes_arrive() -> None:
    values = [multiprocessing.get_context("spawn").Value("i", number) for number in range(300)]
    loader = DataLoader(Holding(values=values), num_workers=1, multiprocessing_context="spawn", collate_fn=_first)
    assert list(loader) == [0, 1, 2, 3]


def _first(samples: list[Any]) -> Any:
    return samples[0]


def test_a_refused_parcel_leaves_no_descriptors() -> None:
    """The leak fixture looks; so does this."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TypeError):
        packed(Holding(value=multiprocessing.get_context("spawn").Value("i", 1), lock=threading.Lock()))
    assert len(os.listdir("/proc/self/fd")) == len(before)


# ---- what cannot be pickled ---------------------------------------------------------------------------------------------


class Local:
    """Found by its name, but for what a test puts into it."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


def local() -> Any:
    class Transform:
        pass

    return Transform()


@pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")  # torch's; ours is in the error's text
@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"dataset": Local(transform=Local(fn=lambda x: x))}, "dataset.transform.fn (<function"),
        ({"dataset": Local(steps=[1, {"crop": (2, lambda x: x)}])}, "dataset.steps[1]['crop'][1] (<function"),
        ({"dataset": Local(lock=threading.Lock())}, "dataset.lock (lock object)"),
        ({"dataset": Local(transform=local())}, "dataset.transform (<class"),
        ({"dataset": Local(rows=(n for n in range(3)))}, "dataset.rows (generator object)"),
        ({"dataset": Local(step=functools.partial(print, lambda: 0))}, "dataset.step (<function"),
        ({"dataset": [0], "collate_fn": lambda samples: samples}, "collate_fn (<function"),
        ({"dataset": [0], "worker_init_fn": lambda _: None}, "worker_init_fn (<function"),
    ],
    ids=["attribute", "container", "lock", "class", "generator", "partial", "collate", "init"],
)
def test_what_cannot_be_pickled_is_named_by_its_path_in_an_error_of_torchs_type(
    arguments: dict[str, Any], path: str
) -> None:
    options: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "spawn", **arguments}
    with pytest.raises(Exception) as theirs:
        iter(TorchDataLoader(**options))
    with pytest.raises(Exception) as ours:
        iter(DataLoader(**options))
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value).startswith(str(theirs.value))
    assert f"What cannot be pickled: {path}" in str(ours.value)
    for caught in (ours, theirs):
        caught.value.__traceback__ = caught.value.__cause__ = caught.value.__context__ = None


def test_an_error_that_is_not_made_of_a_text_gets_a_note() -> None:
    class Odd(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(first, second)

    class Part:
        def __reduce__(self) -> Any:
            raise Odd(1, 2)

    with pytest.raises(Odd) as raised:
        packed(Local(parts={"x": Part()}))
    assert raised.value.args == (1, 2)
    assert "cannot be pickled: dataset.parts['x'] (" in raised.value.__notes__[0]


# ---- a small /dev/shm ---------------------------------------------------------------------------------------------------


def may_mount() -> bool:
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def test_a_tensor_dataset_of_64_mib_works_with_a_dev_shm_of_1_mib() -> None:
    """torch's fails before any worker runs: unable to allocate shared memory."""
    if not may_mount():
        pytest.skip("this user may not mount a tmpfs in a namespace of its own (unshare -m)")
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, str(PROGRAMS / "tensors.py"), "spawn"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["64", "MiB", "in", "a", "/dev/shm", "of", "1", "MiB:", "8", "batches"]
