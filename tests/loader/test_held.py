"""Loaders whose worker count is the program's: steered ones are measured and told of, and not moved."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, MapDataPipe, get_worker_info

import keepfed.loader.api as keepfed
import keepfed.loader.pilot as pilots
from keepfed.events import LoaderSeen, Moved, Settled, Window
from keepfed.host.facts import read_host
from keepfed.loader.epoch import EpochIter, StreamIter
from keepfed.loader.identity import identify
from keepfed.loader.zero import ZeroIter
from keepfed.plan import Plan
from keepfed.policy.window import WindowBuilder
from keepfed.profile import HostProfile, LoaderProfile, Profile, write_profile
from tests.loader.side_by_side import describe, random_states, seed_all
from tests.loader.steered import Steered, steered


class Stream(IterableDataset[Any]):
    """The same stream in every worker, with draws."""

    def __init__(self, length: int = 8) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.length):
            yield number, torch.rand(2)


class Items(MapDataPipe[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        return index, info.num_workers if info is not None else 0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steered]:
    monkeypatch.setattr(pilots, "WindowBuilder", functools.partial(WindowBuilder, min_s=0.05, min_batches=8))
    with steered(tmp_path) as found:
        yield found


def test_a_steered_stream_has_the_programs_workers_and_torchs_batches(host: Steered) -> None:
    def notes(of: Any) -> list[Any]:
        seed_all(1)
        loader = DataLoader(Stream(), batch_size=3, num_workers=2)
        return [(describe(batch), random_states()) for _ in range(2) for batch in of(loader)]

    assert notes(host.iterator) == notes(iter)
    (seen,) = host.events(LoaderSeen)
    assert (seen.asked, seen.used, seen.handled) == (Plan(2), Plan(2), True)
    assert "iterable-style" in seen.note
    assert "augmentation" not in seen.note


def test_it_is_measured_and_settles_where_it_is_and_says_why(host: Steered) -> None:
    loader = DataLoader(Stream(400), batch_size=2, num_workers=1, persistent_workers=True)
    for _ in range(200):
        assert len(list(host.iterator(loader))) == 200
        if host.events(Settled):
            break
    found = host.events(Settled)  # more than one where the machine's load changes meanwhile
    assert {settled.plan for settled in found} == {Plan(1)}
    assert all(settled.reason.startswith("stays at num_workers=1: the dataset is iterable-style") for settled in found)
    assert {window.plan for window in host.events(Window)} == {Plan(1)}
    assert host.events(Moved) == []


def test_a_stream_that_the_program_reads_itself_stays_there_without_a_child(host: Steered) -> None:
    loader = DataLoader(Stream(), batch_size=4)
    iterator = host.iterator(loader)
    assert isinstance(iterator, ZeroIter)
    assert iterator._trial._crew is None
    assert [batch[0].tolist() for batch in iterator] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "iterable-style" in host.pilot(loader).tally.snapshot().held
    assert host.pilot(loader).tally.epoch_s > 0


def test_a_plan_file_does_not_change_how_many_streams_there_are(tmp_path: Path) -> None:
    loader: Any = DataLoader(Stream(), batch_size=4, num_workers=1)
    loader._keepfed_site = "train.py:41"  # as the hook sets it
    path = tmp_path / "keepfed.toml"
    write_profile(path, Profile(HostProfile(read_host().fingerprint), (LoaderProfile(identify(loader), Plan(3)),)))
    with steered(tmp_path, plan_file=str(path)) as host:
        assert sum(len(batch[0]) for batch in host.iterator(loader)) == 8
        (seen,) = host.events(LoaderSeen)
    assert (seen.used, seen.source) == (Plan(1), "program")


def test_a_loader_that_is_built_anew_with_another_count_gets_that_count(host: Steered) -> None:
    for workers in (1, 2, 0):
        loader: Any = DataLoader(Stream(), batch_size=4, num_workers=workers)
        loader._keepfed_site = "train.py:41"
        assert sum(len(batch[0]) for batch in host.iterator(loader)) == 8 * max(1, workers)
        del loader
    assert [seen.used for seen in host.events(LoaderSeen)] == [Plan(1), Plan(2), Plan(0)]


def test_a_map_datapipe_keeps_its_workers_since_torch_shards_by_their_number(host: Steered) -> None:
    loader = DataLoader(Items(), batch_size=3, num_workers=2)
    iterator = host.iterator(loader)
    assert type(iterator) is EpochIter
    assert iterator._crew.terms.fixed
    assert [batch[1].tolist() for batch in iterator] == [[2, 2, 2]] * 2
    (seen,) = host.events(LoaderSeen)
    assert "datapipe" in seen.note


def test_auto_gives_a_stream_one_worker_so_that_no_sample_comes_twice(caplog: pytest.LogCaptureFixture) -> None:
    try:
        loader = keepfed.DataLoader(Stream(), batch_size=4, num_workers="auto")
        iterator = iter(loader)
        assert isinstance(iterator, StreamIter)
        assert [batch[0].tolist() for batch in iterator] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    finally:
        keepfed.uninstall()
    assert loader.num_workers == 1
    assert "iterable-style" in loader.stats().held
    (line,) = [record.getMessage() for record in caplog.records]
    assert "stays at num_workers=1" in line
