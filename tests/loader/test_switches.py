"""The switches of a user who wants to know whether keepfed is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import keepfed.loader.api as keepfed
from keepfed.errors import UsageError
from keepfed.loader.epoch import EpochIter
from keepfed.loader.switches import disabled, with_switches
from keepfed.loader.terms import Terms
from tests.loader.steered import Plain, indices

TERMS = Terms.fixed_count(2, 2)


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("KEEPFED_DISABLE", "KEEPFED_TRANSPORT", "KEEPFED_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    yield
    keepfed.uninstall()


@pytest.mark.parametrize(("value", "means"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_a_switch_is_on_unless_empty_or_0(value: str | None, means: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("KEEPFED_DISABLE", value)
        monkeypatch.setenv("KEEPFED_VERIFY", value)
    assert disabled() is means
    assert with_switches(TERMS).verify is means


@pytest.mark.parametrize(("value", "copies"), [(None, False), ("", False), ("zero-copy", False), ("copy", True)])
def test_the_transport_is_chosen(value: str | None, copies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("KEEPFED_TRANSPORT", value)
    assert with_switches(TERMS).copy_all is copies


@pytest.mark.parametrize("workers", [1, "auto"])
def test_a_transport_that_does_not_exist_is_a_clear_error(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_TRANSPORT", "pigeon")
    with pytest.raises(UsageError, match="KEEPFED_TRANSPORT=pigeon is not a transport") as caught:
        iter(keepfed.DataLoader(Plain(8), num_workers=workers))
    assert "copy or zero-copy" in str(caught.value.next_step)


@pytest.mark.parametrize("workers", [1, "auto"])
def test_disabled_means_torchs_own_iterator(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_DISABLE", "1")
    iterator = iter(keepfed.DataLoader(Plain(8), batch_size=4, num_workers=workers))
    assert not isinstance(iterator, EpochIter)
    assert indices(list(iterator)) == list(range(8))


def test_disabled_reaches_installed_loaders_and_those_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_DISABLE", "1")
    keepfed.install("auto")
    for workers in (0, 1):
        iterator: Any = iter(DataLoader(Plain(8), batch_size=4, num_workers=workers))
        assert type(iterator).__module__.startswith("torch.")
        assert indices(list(iterator)) == list(range(8))
        del iterator


def fixed() -> Any:
    return keepfed.DataLoader(Planes(8), batch_size=4, num_workers=2)


def persistent() -> Any:
    return keepfed.DataLoader(Planes(8), batch_size=4, num_workers=1, persistent_workers=True)


def auto() -> Any:
    return keepfed.DataLoader(Planes(8), batch_size=4, num_workers="auto")


def installed() -> Any:
    keepfed.install()
    return DataLoader(Planes(8), batch_size=4, num_workers=1)


def rebuilt() -> Any:
    return DataLoader(Planes(8), batch_size=4, num_workers=fixed().num_workers)


def steered_without_workers() -> Any:
    keepfed.install("auto")
    return DataLoader(Planes(8), batch_size=4)


KINDS = [fixed, persistent, auto, installed, rebuilt]


class Planes(Plain):
    """Samples of 1 MiB: such batches are leased, unless a switch says otherwise."""

    def __getitem__(self, index: int) -> Any:
        return torch.full((1 << 18,), float(index)), index


@pytest.mark.parametrize("kind", [*KINDS, steered_without_workers])
def test_disabled_is_torchs_iterator_for_every_kind_of_loader_and_its_stats_say_why(
    kind: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loader = kind()
    monkeypatch.setenv("KEEPFED_DISABLE", "1")
    iterator = iter(loader)
    assert type(iterator).__module__.startswith("torch.")
    assert indices(list(iterator)) == list(range(8))
    assert keepfed.stats(loader).fallback == "KEEPFED_DISABLE is set"
    assert not caplog.records  # whoever set it knows
    del iterator
    loader._iterator = None
    monkeypatch.delenv("KEEPFED_DISABLE")
    if loader.num_workers:
        assert isinstance(iter(loader), EpochIter)
        assert keepfed.stats(loader).fallback == ""


@pytest.mark.parametrize("transport", ["copy", "zero-copy"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_loader_heeds_the_transport(kind: Any, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_TRANSPORT", transport)
    iterator: Any = iter(kind())
    batches = list(iterator)
    assert all(bool((planes == numbers[:, None]).all()) for planes, numbers in batches)
    leased = [lease for worker in iterator._workers for lease in worker.book.leases]
    assert len(leased) == (0 if transport == "copy" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_loader_checks_when_told_to(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_VERIFY", "1")
    loader = kind()
    iterator: Any = iter(loader)
    assert iterator._crew.terms.verify
    assert indices(list(iterator)) == list(range(8))


def test_with_copies_and_checksums_the_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_TRANSPORT", "copy")
    monkeypatch.setenv("KEEPFED_VERIFY", "1")
    assert indices(list(keepfed.DataLoader(Plain(40), batch_size=4, num_workers=2))) == list(range(40))
    assert indices(list(keepfed.DataLoader(Plain(40), batch_size=4, num_workers="auto"))) == list(range(40))
