"""num_workers="auto" at work: measured, moved and settled in a real loop, with short windows."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import keepfed.loader.api as keepfed
import keepfed.loader.pilot as pilots
from keepfed.events import Moved, Settled, Window
from keepfed.loader.count import WorkerCount
from keepfed.loader.requests import Requests
from keepfed.plan import Plan
from keepfed.policy.window import WindowBuilder
from tests.loader.steered import Plain, Steered, indices, steered

STEP_S = 0.010


class Waiting(Plain):
    """Each sample waits 10 ms: a batch of 4 takes one worker four steps."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.010)
        return super().__getitem__(index)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steered]:
    monkeypatch.setattr(pilots, "WindowBuilder", functools.partial(WindowBuilder, min_s=0.25, min_batches=8))
    with steered(tmp_path) as found:
        yield found


def train(
    host: Steered, loader: DataLoader[Any], until: Callable[[], Any], *, seconds: float = 40, built_anew: bool = False
) -> int:
    """Epochs until something is so; how many there were."""
    end_s = time.monotonic() + seconds
    epochs = 0
    while not until():
        assert time.monotonic() < end_s, host.events()[-5:]
        epochs += 1
        got = []
        for batch in host.iterator(loader):
            got.append(batch)
            time.sleep(STEP_S)
        assert indices(got) == list(range(len(loader.dataset)))  # type: ignore[arg-type]  # it has a length
        if built_anew:
            loader = another(loader)
    return epochs


def another(loader: DataLoader[Any]) -> DataLoader[Any]:
    return DataLoader(loader.dataset, batch_size=4, num_workers=loader.num_workers)


def test_a_starving_loop_is_given_workers_in_mid_epoch_and_settles(host: Steered) -> None:
    loader = DataLoader(
        Waiting(800), batch_size=4, num_workers=WorkerCount(1, Requests(auto=True)), persistent_workers=True
    )
    train(host, loader, lambda: host.events(Settled))
    (settled,) = host.events(Settled)
    assert settled.before == Plan(1)
    assert settled.plan.num_workers >= 3
    assert settled.batches_per_s > 2 * settled.before_batches_per_s
    assert any(moved.kept for moved in host.events(Moved))
    assert host.events(Window)[0].plan == Plan(1)


def test_epochs_shorter_than_a_window_are_measured_together(host: Steered) -> None:
    loader = DataLoader(
        Waiting(24), batch_size=4, num_workers=WorkerCount(1, Requests(auto=True)), persistent_workers=True
    )
    assert train(host, loader, lambda: len(host.events(Window)) >= 2) >= 3
    assert all(window.batches >= 8 for window in host.events(Window))


def test_a_loader_without_workers_that_is_built_anew_every_epoch_is_tuned(host: Steered) -> None:
    """Each new one is compared anew; what was measured with workers adds up all the same."""
    loader = DataLoader(Waiting(80), batch_size=4)

    def measured_with_workers() -> bool:
        return any(window.plan.num_workers >= 3 for window in host.events(Window))

    assert train(host, loader, measured_with_workers, built_anew=True) >= 2


@pytest.mark.alone
def test_samples_that_cost_less_than_handing_them_over_are_loaded_without_workers(host: Steered) -> None:
    """A loop without a step: taking over a batch is all that there is to do. Whatever comes last is what is in force."""
    loader = DataLoader(Plain(2000), batch_size=4, num_workers=WorkerCount(2, Requests(auto=True)))
    end_s = time.monotonic() + 40
    while not any(settled.plan.num_workers == 0 for settled in host.events(Settled)):
        assert time.monotonic() < end_s, host.events(Moved)
        assert indices(list(host.iterator(loader))) == list(range(2000))
    before = max(window.batches / window.elapsed_s for window in host.events(Window) if window.plan.num_workers)
    assert host.events(Settled)[-1].batches_per_s > before


def test_by_itself_it_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loader = keepfed.DataLoader(Plain(64), batch_size=4, num_workers="auto")
    for _ in range(3):
        assert indices(list(loader)) == list(range(64))
    keepfed.uninstall()
    assert list(tmp_path.iterdir()) == []
    assert loader.stats().batches == 48


def test_that_random_draws_differ_from_torchs_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    try:
        for _ in range(2):
            loader = keepfed.DataLoader(Plain(16), batch_size=4, num_workers="auto")
            assert sum(1 for _ in loader) == 4
    finally:
        keepfed.uninstall()
    assert ["random augmentation draws differ" in record.getMessage() for record in caplog.records] == [True]
