"""Whenever a worker dies, and however: the same batches come out, in order, as in a run where nobody died."""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import os
import pickle
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

import keepfed.loader.api as keepfed
from keepfed.errors import WorkerDied
from keepfed.heartbeat import Phase
from keepfed.loader import arena, budget, channel, codec, collate, notes, queues, worker
from keepfed.loader.budget import Budget
from keepfed.loader.epoch import EpochIter
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from tests.loader.processes import wait_until, watching
from tests.loader.side_by_side import describe, random_states, seed_all
from tests.loader.spawned import Mortal, MortalStream
from tests.loader.understudies import pool_of, succeed

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
METHODS = ["fork", "forkserver", "spawn"]
BATCHES = 80
LARGE = 20_000  # as float32 large enough to be leased


def run(iterator: Any, after: Callable[[Any, int], None] = lambda _iterator, _count: None) -> list[Any]:
    """Every batch with this process' random states; something happens after each."""
    seen = []
    for batch in iterator:
        seen.append((describe(batch), random_states()))
        after(iterator, len(seen))
    return seen


def kill(iterator: Any, worker_id: int) -> None:
    """Kill this worker, as the kernel's OOM killer would."""
    iterator._workers[worker_id].kill()


# ---- at any instant --------------------------------------------------------------------------------------------------

WORKERS_FILES = {module.__file__ for module in (arena, channel, codec, collate, notes, queues, worker)}


class Rich(Dataset[Any]):
    """A leased tensor with draws, one that is copied out, and a pickle of several packets."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.rand(LARGE), index, {"name": [f"{index}" * 40_000]}


class Reaper:
    """A worker_init_fn: each worker makes a batch, and dies some lines of our code later; the next one a few lines later."""

    def __init__(self, folder: Path, step: int) -> None:
        self.births, self.places, self.step = folder / "births", folder / "places", step

    def __call__(self, _: int) -> None:
        with self.births.open("a") as file:
            file.write(".")
        self.left = self.births.stat().st_size * self.step
        self.armed = False
        sys.settrace(self.trace)

    def trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in WORKERS_FILES:
            return None
        if event == "return" and code.co_qualname == "WorkerEnd.send" and frame.f_locals["message"][0] == "done":
            self.armed = True
        elif event == "line" and self.armed:
            self.left -= 1
            if self.left == 0:
                with self.places.open("a") as file:
                    file.write(f"{code.co_qualname}\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def shared(loader: Any) -> Any:
    terms = Terms(Plan(2, 2), fixed=False, max_workers=2, lookahead=4, verify=True)
    return EpochIter(loader, terms, Tally())


@pytest.mark.parametrize("contract", [iter, shared], ids=["fixed", "shared"])
def test_a_kill_at_any_line_of_a_workers_code_costs_no_batch(contract: Callable[[Any], Any], tmp_path: Path) -> None:
    """At every seventh line: before and after each store into a slot, between two packets of a message, in a note."""
    settings: dict[str, Any] = {"batch_size": 1, "num_workers": 2}
    seed_all(3)
    undisturbed = run(contract(keepfed.DataLoader(Rich(BATCHES), **settings)))
    seed_all(3)
    reaper = Reaper(tmp_path, step=7)
    iterator = contract(keepfed.DataLoader(Rich(BATCHES), worker_init_fn=reaper, **settings))
    seen = run(iterator)
    assert [number for number, (ours, theirs) in enumerate(zip(seen, undisturbed, strict=True)) if ours != theirs] == []
    places = set(reaper.places.read_text().split())
    assert reaper.births.stat().st_size > 30
    assert len(places) > 12, "so many functions of ours"


def test_a_kill_in_mid_message_costs_no_batch(tmp_path: Path) -> None:
    """Once in each message of seven packets: after the first, after the second, and so on."""
    settings: dict[str, Any] = {"batch_size": 1, "num_workers": 2}
    undisturbed = [describe(batch) for batch in TorchDataLoader(Long(), **settings)]
    cut = channel.Packets.cut

    def deadly(packets: channel.Packets, message: bytes) -> Iterator[bytes]:
        """Between the sends of its packets."""
        for number, packet in enumerate(cut(packets, message)):
            batch = pickle.loads(message)[2] if len(message) > 6 * channel.PACKET_BYTES else -1
            mark = tmp_path / f"{batch}"
            if batch >= 0 and number == 1 + batch % 6 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield packet

    loader = keepfed.DataLoader(Long(), worker_init_fn=lambda _: setattr(channel.Packets, "cut", deadly), **settings)
    assert [describe(batch) for batch in loader] == undisturbed
    assert len(list(tmp_path.iterdir())) == loader.stats().restarts == len(Long())


class Long(Dataset[Any]):
    """Messages of seven packets: what is small travels in the message itself."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return [torch.full((1_250,), index, dtype=torch.float32) for _ in range(80)]


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    settings: dict[str, Any] = {"batch_size": 1, "num_workers": 2}
    seed_all(3)
    undisturbed = run(TorchDataLoader(Rich(20), **settings))
    seed_all(3)

    def after(iterator: Any, count: int) -> None:
        roster, made = iterator._crew.roster, [count // 2 + 2, (count + 1) // 2 + 1]
        if count in (3, 10):
            workers = pool_of(iterator).workers
            wait_until(lambda: all(roster.heartbeat(one).phase is Phase.IDLE for one in workers.values()), "idle", 10)
            assert made
            kill(iterator, count % 2)

    loader = keepfed.DataLoader(Rich(20), **settings)
    assert run(iter(loader), after) == undisturbed
    assert loader.stats().restarts == 2


def test_a_worker_that_is_killed_while_it_waits_for_room_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "shared", Budget(lambda: 3 << 20, worker_bytes=0))

    class Planes(Dataset[Any]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            return torch.full((1 << 18,), index, dtype=torch.int32)

    loader = keepfed.DataLoader(Planes(), batch_size=1, num_workers=2, prefetch_factor=4)
    iterator: Any = iter(loader)
    first = next(iterator)
    roster, workers = iterator._crew.roster, pool_of(iterator).workers
    wait_until(lambda: roster.heartbeat(workers[1]).phase is Phase.WAITING_FOR_ROOM, "a worker without room", 10)
    kill(iterator, 1)
    seen = [int(batch.amin()) for batch in [first, *iterator] if bool((batch == batch[0, 0]).all())]
    assert seen == list(range(12))
    assert loader.stats().restarts == 1


# ---- however, under every start method -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Mortal, MortalStream], ids=["map", "stream"])
@pytest.mark.parametrize("method", METHODS)
def test_deaths_of_every_kind_cost_no_batch(method: str, kind: Any, tmp_path: Path) -> None:
    """SIGKILL, a segmentation fault and os._exit in samples; then all workers at once, and the zygote."""
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 2}
    seed_all(3)
    undisturbed = run(TorchDataLoader(kind(None), **settings))
    seed_all(3)

    def after(iterator: Any, count: int) -> None:
        if count == 9:
            for worker_id in (0, 1):
                kill(iterator, worker_id)
        elif count == 11:
            succeed(pool_of(iterator))

    loader = keepfed.DataLoader(kind(tmp_path), multiprocessing_context=method, **settings)
    assert run(iter(loader), after) == undisturbed
    assert loader.stats().restarts >= 4
    assert len(list(tmp_path.iterdir())) == 3


# ---- how often -------------------------------------------------------------------------------------------------------


class Slow(Dataset[Any]):
    """Batches of a few milliseconds; whoever makes one of these dies: each time, or the first time."""

    def __init__(self, length: int, deadly: set[int] = frozenset(), marks: Path | None = None) -> None:  # type: ignore[assignment]  # read only
        self.length, self.deadly, self.marks = length, deadly, marks

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        time.sleep(0.004)
        if index in self.deadly and not (self.marks and (self.marks / str(index)).exists()):
            if self.marks is not None:
                (self.marks / str(index)).touch()
            faulthandler.disable()
            ctypes.string_at(0)
        return index


def numbers(loader: Any, contract: Callable[[Any], Any], after: Any = lambda _iterator, _count: None) -> list[int]:
    found = []
    iterator = contract(loader)
    for batch in iterator:
        found += batch.tolist()
        after(iterator, len(found))
    return found


@pytest.mark.parametrize("contract", [iter, shared], ids=["fixed", "shared"])
def test_twenty_kills_a_second_of_whoever_it_is_are_survived(contract: Callable[[Any], Any]) -> None:
    turn, last_s = itertools.count(), [time.monotonic()]

    def after(iterator: Any, _: int) -> None:
        if time.monotonic() - last_s[0] > 0.05:
            last_s[0] = time.monotonic()
            pool_of(iterator).workers[next(turn) % 2].kill()

    loader = keepfed.DataLoader(Slow(160), batch_size=2, num_workers=2)
    assert numbers(loader, contract, after) == list(range(160))
    assert next(turn) > 4


@pytest.mark.parametrize("contract", [iter, shared], ids=["fixed", "shared"])
def test_batches_that_each_kill_one_worker_are_survived(contract: Callable[[Any], Any], tmp_path: Path) -> None:
    loader = keepfed.DataLoader(Slow(40, set(range(0, 40, 2)), tmp_path), batch_size=2, num_workers=2)
    assert numbers(loader, contract) == list(range(40))
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("contract", [iter, shared], ids=["fixed", "shared"])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_dataset_that_kills_every_worker_ends_soon_in_an_error(contract: Callable[[Any], Any], workers: int) -> None:
    loader = keepfed.DataLoader(Slow(40, set(range(40))), batch_size=2, num_workers=workers)
    began_s = time.monotonic()
    with pytest.raises(WorkerDied, match=r"Segmentation fault.*\n.*indices \[.*num_workers=0"):
        numbers(loader, contract)
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("contract", [iter, shared], ids=["fixed", "shared"])
def test_a_batch_is_made_three_times_at_most(contract: Callable[[Any], Any], tmp_path: Path) -> None:
    class Counting(Slow):
        def __getitem__(self, index: int) -> int:
            if index == 20:
                with (tmp_path / "made").open("a") as file:
                    file.write(".")
            return super().__getitem__(index)

    with pytest.raises(WorkerDied, match=r"indices \[20, 21\].*sample 20"):
        numbers(keepfed.DataLoader(Counting(40, {20}), batch_size=2, num_workers=2), contract)
    assert (tmp_path / "made").read_text() == "..."


def test_a_death_is_made_good_within_a_second() -> None:
    """From the kill to the batch that the dead worker had in hand; the best of three, for the sake of busy machines."""
    seconds = []
    for _ in range(3):
        iterator: Any = iter(keepfed.DataLoader(Slow(40), batch_size=4, num_workers=2))
        next(iterator)
        with watching([worker.pid for worker in iterator._workers]) as watched:
            for worker in iterator._workers:
                worker.kill()
            began_s = time.monotonic()
            assert not watched.left_after(5)
            pids = {worker.pid for worker in iterator._workers}
            for _batch in iterator:
                if pids.isdisjoint({worker.pid for worker in iterator._workers}):
                    break
            seconds.append(time.monotonic() - began_s)
    assert min(seconds) < 1
