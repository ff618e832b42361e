"""How much memory batches may take: one budget for all loaders of the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from keepfed.loader import budget
from keepfed.loader.api import DataLoader
from keepfed.loader.arena import Region
from keepfed.loader.budget import Budget, available_bytes
from keepfed.loader.epoch import EpochIter
from keepfed.loader.lease import LeaseBook
from keepfed.loader.room import largest_region_bytes, why_too_little
from keepfed.loader.shelf import Shelf, shelf_of
from tests.loader.processes import SOURCE, wait_until
from tests.loader.steered import Plain

MIB = 1 << 20


class Planes(Plain):
    """Samples of 1 MiB, each its index all over."""

    def __getitem__(self, index: int) -> Any:
        return torch.full((MIB // 4,), index, dtype=torch.int32)


def loader_of(samples: int, workers: int = 2, **arguments: Any) -> DataLoader:
    return DataLoader(Planes(samples), batch_size=2, num_workers=workers, **arguments)


def numbers(batch: torch.Tensor) -> list[int]:
    """The indices in this batch, if it holds nothing else."""
    low, high = batch.amin(dim=1), batch.amax(dim=1)
    assert torch.equal(low, high)
    return [int(number) for number in low]


def in_use(*loaders: Any) -> int:
    """What the batches of these loaders take: beside a few pages of notes."""
    return sum(shelf_of(loader).bytes_in_use() // MIB * MIB for loader in loaders)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Budget:
    """A process with room for ten batches on its way and in the program's hands."""
    found = Budget(lambda: 25 * MIB, worker_bytes=0)
    monkeypatch.setattr(budget, "shared", found)
    return found


# ---- the parts ------------------------------------------------------------------------------------------------------


def test_ranks_of_one_host_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = available_bytes()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert available_bytes() == pytest.approx(alone / 8, rel=0.1)


def test_all_workers_together_leave_a_fifth_of_the_free_memory() -> None:
    shared = Budget(lambda: 1000 * MIB, worker_bytes=0)
    for workers in (1, 4):
        account = shared.open(Shelf(), workers)
        assert account.allowance_bytes() == account.fair_bytes
        assert workers * account.fair_bytes == pytest.approx(800 * MIB, rel=0.01)
        assert workers * account.held_bytes == pytest.approx(500 * MIB, rel=0.01)
        account.end()


@pytest.mark.parametrize(("free", "left"), [(10_000, 9_744), (400, 300)])
def test_workers_keep_something_for_themselves_but_no_more_than_a_quarter(free: int, left: int) -> None:
    shared = Budget(lambda: free * MIB, worker_bytes=64 * MIB)
    account = shared.open(Shelf(), 4)
    assert 4 * account.fair_bytes == pytest.approx(0.8 * left * MIB, rel=0.01)


def test_every_worker_of_an_active_loader_has_the_same_part() -> None:
    shared = Budget(lambda: 1000 * MIB, worker_bytes=0)
    shelves = Shelf(), Shelf()
    one, other = shared.open(shelves[0], 1), shared.open(shelves[1], 3)
    assert one.fair_bytes == other.fair_bytes == 200 * MIB
    one.resize(5)
    assert one.fair_bytes == other.fair_bytes == 100 * MIB
    one.end()
    assert other.fair_bytes == pytest.approx(800 * MIB / 3, rel=0.01)
    one.begin()
    assert other.fair_bytes == 100 * MIB
    del one
    gc.collect()
    other.resize(4)
    assert other.fair_bytes == 200 * MIB


def written(shelf: Shelf, nbytes: int) -> Region:
    region = shelf.take(1 << 30)
    region.owner(0, nbytes)[:] = 1
    return region


def test_a_newcomer_gets_what_is_there_until_the_others_keep_to_their_part() -> None:
    shared = Budget(lambda: 100 * MIB, worker_bytes=0)
    first, second = Shelf(), Shelf()
    here = shared.open(first, 1)
    region = written(first, 70 * MIB)
    shared._available = lambda: 30 * MIB
    newcomer = shared.open(second, 1)
    assert here.allowance_bytes() == newcomer.fair_bytes == 40 * MIB
    assert newcomer.allowance_bytes() == 10 * MIB
    region.punch(0, 50 * MIB)
    assert newcomer.allowance_bytes() == 40 * MIB


def test_what_an_idle_loader_holds_is_missing_from_the_others_parts() -> None:
    shared = Budget(lambda: 100 * MIB, worker_bytes=0)
    idle, active = Shelf(), Shelf()
    resting = shared.open(idle, 1)
    region = written(idle, 20 * MIB)
    resting.end()
    shared._available = lambda: 80 * MIB
    assert shared.open(active, 1).fair_bytes == pytest.approx(0.8 * 80 * MIB, rel=0.01)
    assert region.bytes_in_use() == 20 * MIB


def test_a_region_on_the_shelf_of_an_idle_loader_gives_its_memory_back_when_another_begins() -> None:
    shared = Budget(lambda: 100 * MIB, worker_bytes=0)
    idle, active = Shelf(), Shelf()
    resting = shared.open(idle, 1)
    region = written(idle, 20 * MIB)
    resting.end()
    idle.put_back(LeaseBook(region))
    shared.open(active, 1)
    assert region.bytes_in_use() == 0
    assert idle.take(1 << 30) is region


def test_a_region_of_which_the_program_holds_a_part_is_left_alone() -> None:
    shelf = Shelf()
    region = written(shelf, 4 * MIB)
    book = LeaseBook(region)
    owner = book.lease((0, 1), 4096)
    shelf.put_back(book)
    shelf.trim()
    assert owner.sum() == 4096
    assert region.bytes_in_use() == 4 * MIB


def test_a_region_that_must_keep_its_pages_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    region = written(shelf, MIB)
    shelf.put_back(LeaseBook(region))
    monkeypatch.setattr(Region, "may_be_punched", lambda self: False)
    shelf.trim()
    assert region.bytes_in_use() == MIB


# ---- loaders --------------------------------------------------------------------------------------------------------


def test_two_loaders_at_once_stay_within_one_budget_and_bring_torchs_batches(small: Budget) -> None:
    first, second = (loader_of(80, persistent_workers=True, prefetch_factor=4) for _ in range(2))
    most = 0
    for _ in range(2):
        for number, (ours, others) in enumerate(zip(first, second, strict=True)):
            assert numbers(ours) == numbers(others) == [2 * number, 2 * number + 1]
            most = max(most, in_use(first, second))
            del ours, others
    # A worker whose batch the program waits for goes past its part by one slot; alone, each would take 20 MiB.
    assert 8 * MIB <= most <= small.slots_bytes + 2 * 2 * MIB


def test_a_loader_that_begins_beside_a_full_one_stays_within_the_budget_with_it(small: Budget) -> None:
    first, second = loader_of(80, prefetch_factor=8), loader_of(40, prefetch_factor=8)
    iterator: Any = iter(first)
    kept = [next(iterator) for _ in range(10)]
    assert in_use(first) <= small.slots_bytes
    for number, batch in enumerate(second):
        assert numbers(batch) == [2 * number, 2 * number + 1]
        assert in_use(first, second) <= small.slots_bytes + 2 * 2 * MIB  # a worker never waits for its first slot
        del batch
    kept += list(iterator)
    assert [number for batch in kept for number in numbers(batch)] == list(range(80))


def test_an_idle_pool_gives_its_memory_back_and_the_next_epoch_is_right() -> None:
    loader = loader_of(40, persistent_workers=True)
    theirs: Any = TorchDataLoader(Planes(40), batch_size=2)
    for _ in range(2):
        expected = iter(theirs)
        for ours in loader:
            assert torch.equal(ours, next(expected))
            del ours
        iterator: Any = loader._iterator
        assert isinstance(iterator, EpochIter)
        wait_until(lambda: in_use(loader) == 0, "the workers keep their memory")


def test_an_idle_pool_keeps_what_the_program_holds_until_that_is_dropped() -> None:
    loader, another = loader_of(40, workers=1, persistent_workers=True), loader_of(2, workers=1)
    for _ in range(2):
        kept = list(loader)[-2:]
        list(another)
        wait_until(lambda: in_use(loader) <= 4 * MIB, "the worker keeps its memory")
        assert [number for batch in kept for number in numbers(batch)] == [36, 37, 38, 39]
        assert in_use(loader) == 4 * MIB


def test_training_and_validation_in_turns_hold_the_memory_of_one() -> None:
    training, validation = loader_of(40), loader_of(20)
    for _ in range(2):
        for loader, other in ((training, validation), (validation, training)):
            for number, batch in enumerate(loader):
                assert in_use(other) == 0
                assert numbers(batch) == [2 * number, 2 * number + 1]
                del batch
            gc.collect()
            assert in_use(loader) > 0


def test_a_forked_child_has_a_budget_of_its_own(small: Budget) -> None:
    iterator = iter(loader_of(40))
    next(iterator)
    pid = os.fork()
    if pid == 0:
        account = small.open(Shelf(), 1)
        os._exit(0 if account.fair_bytes == 20 * MIB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- limits of the process ------------------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys, torch
from keepfed.loader.api import DataLoader

class Planes(torch.utils.data.Dataset):
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return torch.full((1 << 18,), index)

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
name, nbytes = sys.argv[1:]
resource.setrlimit(getattr(resource, name), (int(nbytes), int(nbytes)))
loader = DataLoader(Planes(), batch_size=2, num_workers=2)
print([int(batch[1, -1]) for batch in loader] == list(range(1, 16, 2)), loader.stats().fallback)
"""


def limited(name: str, nbytes: int) -> str:
    command = [sys.executable, "-c", LIMITED, name, str(nbytes)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_limit_of_file_size_bounds_the_regions_and_kills_nobody() -> None:
    assert limited("RLIMIT_FSIZE", 3 << 30) == "True \n"


def test_a_limit_of_address_space_bounds_the_regions() -> None:
    assert limited("RLIMIT_AS", 14 << 30) == "True \n"


def test_below_a_gibibyte_torch_runs_the_loader_and_the_limit_is_named() -> None:
    out = limited("RLIMIT_FSIZE", 100 * MIB)
    assert out == "True ulimit -f leaves less than 1 GiB of address space for each of 2 workers\n"


def test_without_limits_regions_are_as_large_as_memory_asks() -> None:
    if largest_region_bytes(1) is None:
        assert not why_too_little(64)
        assert Budget(lambda: 10 << 30).region_bytes(4) >= 1 << 30


# ---- zygotes --------------------------------------------------------------------------------------------------------


def regions_mapped_by(pid: int) -> set[str]:
    """Memory files that this process maps or holds open, by inode."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    mapped = {line.split()[4] for line in maps if "/memfd:keepfed" in line}
    opened = {
        entry.stat().st_ino for entry in Path(f"/proc/{pid}/fd").iterdir() if "memfd:keepfed" in os.readlink(entry)
    }
    return mapped | {str(inode) for inode in opened}


def zygote_of(iterator: Any) -> int:
    pid: int = iterator._crew.roster.pool()._zygote.pid
    return pid


def test_a_zygote_lets_go_of_the_regions_of_other_loaders() -> None:
    first: Any = iter(loader_of(40))
    next(first)
    second: Any = iter(loader_of(40))
    zygote, worker = zygote_of(second), second._workers[0].pid
    assert numbers(next(second)) == [0, 1]
    wait_until(lambda: not regions_mapped_by(zygote), "the zygote keeps a region")
    assert len(regions_mapped_by(worker)) == 1
    assert [number for batch in first for number in numbers(batch)] == list(range(2, 40))
    assert [number for batch in second for number in numbers(batch)] == list(range(2, 40))


class Replay(Planes):
    """Serves what another loader delivered."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        super().__init__(2 * len(kept))
        self.kept = kept

    def __getitem__(self, index: int) -> Any:
        return self.kept[index // 2][index % 2]


def test_a_dataset_may_hold_batches_of_another_loader() -> None:
    iterator = iter(loader_of(40))
    kept = [next(iterator) for _ in range(4)]
    replay = DataLoader(Replay(kept), batch_size=2, num_workers=1)
    assert [number for batch in replay for number in numbers(batch)] == list(range(8))
