"""torch's DataLoader cut open at one method, and closed again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import keepfed.loader.api as keepfed
from keepfed.feed import RunConfig, RunFolder
from keepfed.loader import seam, torch_seam
from keepfed.loader.count import WorkerCount
from keepfed.loader.epoch import EpochIter
from keepfed.loader.fleet import Fleet
from keepfed.loader.requests import Requests
from keepfed.loader.session import Session
from keepfed.loader.zero import ZeroIter
from tests.loader.steered import Plain, indices


@pytest.fixture(autouse=True)
def _closed_again() -> Iterator[None]:
    yield
    keepfed.uninstall()
    assert DataLoader._get_iterator is torch_seam.original_get_iterator


def plain_loader(workers: int = 1) -> Any:
    return DataLoader(Plain(16), batch_size=4, num_workers=workers)


def test_importing_changes_nothing() -> None:
    assert not isinstance(iter(plain_loader()), EpochIter)


def test_install_covers_torchs_class_and_uninstall_uncovers_it() -> None:
    keepfed.install()
    iterator = iter(plain_loader())
    assert isinstance(iterator, EpochIter)
    assert iterator._crew.terms.fixed
    assert indices(list(iterator)) == list(range(16))
    assert not isinstance(iter(plain_loader(0)), ZeroIter)
    keepfed.uninstall()
    assert not isinstance(iter(plain_loader()), EpochIter)


def test_install_auto_steers_every_loader() -> None:
    keepfed.install("auto")
    iterator = iter(plain_loader())
    assert isinstance(iterator, EpochIter)
    assert not iterator._crew.terms.fixed
    assert isinstance(iter(plain_loader(0)), ZeroIter)


def test_install_twice_and_in_turn_leaves_torchs_own_under_it() -> None:
    for how in (None, "auto", None, "auto"):
        keepfed.install(how)
    assert isinstance(iter(plain_loader(0)), ZeroIter)
    keepfed.uninstall()
    keepfed.uninstall()


class _Own(DataLoader[Any]):
    def _get_iterator(self) -> Any:
        return iter([["mine"]])


class _Wraps(DataLoader[Any]):
    def _get_iterator(self) -> Any:
        return map(len, super()._get_iterator())


def test_a_subclass_with_an_iterator_of_its_own_keeps_it() -> None:
    keepfed.install("auto")
    assert list(_Own(Plain())) == [["mine"]]
    assert list(_Wraps(Plain(16), batch_size=4, num_workers=1)) == [2, 2, 2, 2]


@pytest.mark.parametrize("how", [None, "auto"])
def test_what_ours_cannot_do_is_left_to_torch(
    how: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keepfed.install(how)
    monkeypatch.delattr(os, "memfd_create")
    iterator = iter(DataLoader(Plain(8), batch_size=4, num_workers=1))
    assert not isinstance(iterator, EpochIter)
    assert indices(list(iterator)) == list(range(8))


def test_auto_workers_are_a_number_to_everybody_else() -> None:
    workers = WorkerCount(3, Requests(auto=True))
    assert workers == 3
    assert workers > 2
    assert workers * 2 == 6
    assert max(workers, 4) == 4
    assert f"{workers}" == "3"
    assert isinstance(workers, int)
    assert list(range(workers)) == [0, 1, 2]


def test_a_request_for_auto_survives_pickling_and_cuts_the_seam_where_it_arrives() -> None:
    """A spawned rank gets its loader as a pickle and has never called keepfed."""
    data = pickle.dumps(plain_loader_of(WorkerCount(2, Requests(auto=True))))
    assert not isinstance(iter(plain_loader_of(2)), EpochIter)
    loader = pickle.loads(data)
    assert isinstance(loader.num_workers, WorkerCount)
    assert isinstance(iter(loader), EpochIter)


def plain_loader_of(workers: int) -> Any:
    return DataLoader(Plain(16), batch_size=4, num_workers=workers)


def test_below_a_run_install_and_auto_are_steered_by_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    monkeypatch.setenv("KEEPFED_RUN", str(folder.path))
    keepfed.install()
    iterator: Any = iter(plain_loader())
    assert isinstance(iterator, EpochIter)
    assert not iterator._crew.terms.fixed
    mine: Any = iter(keepfed.DataLoader(Plain(16), num_workers="auto"))
    keepfed.install("auto")
    keepfed.install()
    fleet = seam.fleet()
    assert fleet is not None
    assert len(fleet._pilots) == 2
    assert isinstance(mine, EpochIter)


def test_in_a_worker_nothing_joins_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, RunConfig())
    monkeypatch.setenv("KEEPFED_RUN", str(folder.path))
    monkeypatch.setenv("KEEPFED_WORKER", "1")
    iter(keepfed.DataLoader(Plain(16), num_workers=1))
    assert not list(folder.path.glob("events-*"))


def test_a_run_folder_that_is_gone_is_one_line_and_the_loader_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KEEPFED_RUN", str(tmp_path / "gone"))
    for _ in range(2):
        assert indices(list(keepfed.DataLoader(Plain(16), batch_size=4, num_workers=1))) == list(range(16))
    (line,) = [record.message for record in caplog.records]
    assert "cannot steer" in line
    assert str(tmp_path / "gone") in line


def test_a_new_fleet_ends_the_one_before(tmp_path: Path) -> None:
    keepfed.install("auto")
    first: Any = iter(plain_loader(0))
    got = [next(first), next(first)]
    seam.cover_everything(Fleet(Session(None)))
    assert first.refused() == "keepfed was switched off"
    assert indices(got + list(first)) == list(range(16))
