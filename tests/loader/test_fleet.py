"""The loaders of one process, each with its pilot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from keepfed.events import Ended, Joined, LoaderSeen
from keepfed.loader import fleet as fleets
from keepfed.loader.epoch import EpochIter
from keepfed.loader.single import SingleIter
from keepfed.loader.zero import ZeroIter
from keepfed.plan import Plan
from tests.loader.side_by_side import Noisy, describe, random_states, seed_all
from tests.loader.steered import Plain, Steered, indices, steered


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path) as found:
        yield found


def loader_of(workers: int, dataset: Any = None, **options: Any) -> Any:
    return DataLoader(Plain(16) if dataset is None else dataset, batch_size=4, num_workers=workers, **options)


def test_each_loader_has_a_pilot_and_is_announced_once(host: Steered) -> None:
    one, other = loader_of(1), loader_of(0)
    for _ in range(3):
        assert indices(list(host.iterator(one))) == indices(list(host.iterator(other))) == list(range(16))
    assert len(host.fleet._pilots) == 2
    assert [seen.asked for seen in host.events(LoaderSeen)] == [Plan(1), Plan(0)]
    assert len(host.events(Joined)) == 1


def test_a_loader_with_workers_and_one_without_get_their_kind_of_iterator(host: Steered) -> None:
    assert isinstance(host.iterator(loader_of(1)), EpochIter)
    assert isinstance(host.iterator(loader_of(0)), ZeroIter)


def test_what_is_left_to_torch_is_announced_once_with_the_reason(
    host: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    loader = loader_of(1)
    for _ in range(2):
        assert indices(list(host.iterator(loader))) == list(range(16))
    (seen,) = host.events(LoaderSeen)
    assert (seen.handled, seen.source) == (False, "program")
    assert "memfd" in seen.reason
    assert host.fleet._pilots == {}


def test_exact_keeps_the_programs_counts_and_torchs_draws(tmp_path: Path) -> None:
    def notes(of: Any) -> list[Any]:
        seed_all(1)
        loader = loader_of(2, Noisy(), shuffle=True)
        return [(describe(batch), random_states()) for _ in range(2) for batch in of(loader)]

    with steered(tmp_path, exact=True) as host:
        assert notes(host.iterator) == notes(iter)
        iterator = host.iterator(loader_of(2))
        assert iterator._crew.terms.fixed
        zero = host.iterator(loader_of(0))
        assert isinstance(zero, SingleIter)
        assert {seen.source for seen in host.events(LoaderSeen)} == {"exact"}
        assert host.fleet._pilots == {}


def test_a_failure_of_ours_leaves_the_loader_to_torch(host: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(fleets, "Pilot", fails)
    iterator = host.iterator(loader_of(1))
    assert not isinstance(iterator, EpochIter)
    assert indices(list(iterator)) == list(range(16))


def test_more_workers_than_a_plan_may_have_are_no_error(host: Steered) -> None:
    loader = loader_of(0)
    loader._DataLoader__initialized = False
    loader.prefetch_factor = 5000
    assert indices(list(host.iterator(loader))) == list(range(16))


def test_a_child_that_the_program_forks_is_not_steered(host: Steered) -> None:
    loader = loader_of(0)
    pid = os.fork()
    if pid == 0:
        fine = not isinstance(host.iterator(loader), ZeroIter) and not host.fleet._pilots
        host.fleet.close()
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(list(host.run.path.glob("events-*"))) == 1


def test_closing_tells_the_last_words_and_forgets(host: Steered) -> None:
    list(host.iterator(loader_of(1)))
    host.fleet.close()
    host.fleet.close()
    host.fleet.ended()
    (ended,) = host.events(Ended)
    assert ended.batches == 4
    assert host.fleet._pilots == {}
