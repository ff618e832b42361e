"""What keepfed's loader does not handle runs on torch's own iterator, and says so once."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from multiprocessing.context import SpawnContext
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, dataloader
from torch.utils.data._utils import worker

from keepfed.loader import torch_seam
from keepfed.loader.api import DataLoader
from keepfed.loader.epoch import EpochIter
from keepfed.loader.fallback import why_torch


class Numbers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


@pytest.fixture
def fresh_seam() -> Iterator[None]:
    """What torch offers is looked up once per process; here anew, before and after."""
    torch_seam.missing.cache_clear()
    yield
    torch_seam.missing.cache_clear()


def run(loader: DataLoader, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Iterate twice on torch's iterator; the lines that were logged."""
    with caplog.at_level(logging.WARNING, "keepfed"):
        for _ in range(2):
            iterator = iter(loader)
            assert not isinstance(iterator, EpochIter)
            assert type(iterator).__module__ == dataloader.__name__
            assert sum(len(batch) for batch in iterator) in (8, 16)
            del iterator
    gc.collect()
    return [record.getMessage() for record in caplog.records if record.name == "keepfed"]


def loader_of(dataset: Any, **arguments: Any) -> DataLoader:
    return DataLoader(dataset, batch_size=4, num_workers=1, **arguments)


def test_workers_may_be_spawned() -> None:
    for method in ("spawn", "forkserver"):
        assert not why_torch(loader_of(Numbers(), multiprocessing_context=method))


def test_a_start_method_of_somebody_else_is_left_to_torch() -> None:
    class Elsewhere(SpawnContext):
        _name = "elsewhere"

        def get_start_method(self, allow_none: bool = False) -> str:
            return "elsewhere"

    loader = loader_of(Numbers(), multiprocessing_context=Elsewhere())
    assert "workers are started by elsewhere and not by fork, spawn or forkserver" in why_torch(loader)


def test_a_frozen_program_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sys.executable is the program itself: it would start itself again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert why_torch(loader_of(Numbers(), multiprocessing_context="spawn"))
    assert not why_torch(loader_of(Numbers(), multiprocessing_context="fork"))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (worker, "_ResumeIteration"),
        (dataloader, "_DatasetKind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_torch_that_lacks_a_private_name_is_left_alone(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, fresh_seam: None
) -> None:
    """Nothing of torch can run without it here, so only the decision is looked at."""
    loader = loader_of(Numbers())
    monkeypatch.delattr(owner, name)
    reason = why_torch(loader)
    assert f"{owner.__name__}.{name}" in reason
    assert torch.__version__ in reason


def test_a_torch_whose_worker_loop_has_other_parameters_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fresh_seam: None
) -> None:
    real = worker._worker_loop

    def newer(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)

    monkeypatch.setattr(worker, "_worker_loop", newer)
    loader = loader_of(Numbers())
    lines = run(loader, caplog)
    assert len(lines) == 1
    assert "_worker_loop" in loader.stats().fallback


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "memfd_create"), (os, "pidfd_open"), (os, "fork")], ids=["memfd", "pidfd", "fork"]
)
def test_a_platform_without_what_the_transport_needs_is_torchs(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    assert "Linux 5.3" in why_torch(loader_of(Numbers()))


def test_a_kernel_that_refuses_pidfds_is_torchs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Old kernels and some sandboxes have the function and not the system call."""

    def refused(*_: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)
    loader = loader_of(Numbers())
    assert len(run(loader, caplog)) == 1
    assert "pidfd" in loader.stats().fallback


def test_an_epoch_without_memory_files_is_torchs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    loader = loader_of(Numbers())
    assert len(run(loader, caplog)) == 1
    assert "memfd" in loader.stats().fallback


def test_pinned_memory_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(Numbers(), pin_memory=True)
    assert not why_torch(loader), "without a GPU torch does not pin either"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not why_torch(loader)


def test_the_off_switch_is_silent_and_complete(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KEEPFED_DISABLE", "1")
    assert run(loader_of(Numbers()), caplog) == []


def test_without_a_reason_the_iterator_is_ours_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loader = loader_of(Numbers())
    with caplog.at_level(logging.WARNING, "keepfed"):
        iterator = iter(loader)
        assert isinstance(iterator, EpochIter)
        assert isinstance(iterator, dataloader._MultiProcessingDataLoaderIter)
        assert len(list(iterator)) == 2
    assert not caplog.records
    assert loader.stats().fallback == ""


def test_a_reason_that_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    loader = loader_of(Numbers())
    with monkeypatch.context() as without:
        without.delattr(os, "memfd_create")
        run(loader, caplog)
        assert loader.stats().fallback
    assert isinstance(iter(loader), EpochIter)
    assert loader.stats().fallback == ""
