"""Real loaders with a known weakness: what is said to lift their limit, from the workers' clocks to the sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from keepfed.events import Settled
from keepfed.loader import survey
from keepfed.plan import Plan
from keepfed.policy.controller import Hold, Reason
from keepfed.policy.controller import Settled as Verdict
from keepfed.policy.lift import WORTH
from keepfed.policy.window import Observation
from keepfed.tuning.results import LoaderResult
from keepfed.tuning.summary import Tally
from keepfed.tuning.whatif import WhatIf
from tests.loader.steered import steered

WARM, MEASURED = 6, 12
"""Batches before and in each of two windows."""
BATCHES = WARM + 2 * MEASURED + 16


def settled(
    patch: pytest.MonkeyPatch, folder: Path, dataset: Dataset[Any], *, step_s: float, workers: int = 2
) -> LoaderResult:
    """What tune would say if it settled on `workers` after two windows."""
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    patch.setattr(survey, "SHORTEST_GAP_S", 60.0)  # this machine may be busy with other things
    patch.setattr(survey, "PROBE_S", 1.0)
    tally = Tally()
    with steered(folder, mode="tune") as run:
        iterator = run.iterator(loader)
        pilot = run.pilot(loader)
        for _ in range(WARM):
            next(iterator)
        verdict = Verdict(pilot.plan, "unknown", Reason("policy.settled_unknown", {}))
        for answer in (Hold(Reason("policy.hold", {})), verdict):
            window = trained(iterator, pilot.plan, step_s)
            known = Known(window)
            patch.setattr(pilot._controller, "estimate", lambda _plan, now=known: now)
            patch.setattr(pilot._controller, "observe", lambda _window, said=answer: said)
            pilot._judge(replace(window, fetched=MEASURED, all_warm=True), iterator)
        while not run.events(Settled):
            next(iterator)
            time.sleep(step_s)
        for event in run.events():
            tally.add(1, event, time.monotonic())
    (result,) = tally.results()
    assert result.settled
    return result


class Known:
    """What the controller knows of the plan that it settled on."""

    def __init__(self, window: Observation) -> None:
        self.batches_per_s = window.batches / window.elapsed_s
        self.starve_share = window.wait_s / window.elapsed_s
        self.stall_share = None


def trained(iterator: Iterator[Any], plan: Plan, step_s: float) -> Observation:
    """One window of training."""
    began_s, wait_s = time.perf_counter(), 0.0
    for _ in range(MEASURED):
        time.sleep(step_s)
        asked_s = time.perf_counter()
        next(iterator)
        wait_s += time.perf_counter() - asked_s
    elapsed_s = time.perf_counter() - began_s
    return Observation(plan, time.monotonic(), MEASURED, elapsed_s, wait_s)


def said(result: LoaderResult) -> dict[str, WhatIf]:
    return {sentence.key: sentence for sentence in result.what_if}


class Waiting(Dataset[Any]):
    """Samples from a storage with a high latency."""

    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return index


def test_a_dataset_that_waits_for_its_storage_is_told_that_reading_is_what_takes_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = settled(monkeypatch, tmp_path, Waiting(), step_s=0.001)
    found = said(result)
    assert result.what_if[0].key in {"ceiling_replay", "loading"}
    assert (result.what_if[0].factor or 0) > 3
    assert "waiting" in found
    assert not found.keys() & {"draft", "decode", "transform", "cores"}


def test_a_step_that_is_the_limit_leaves_nothing_to_be_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cheap(Waiting):
        """Samples that cost nothing."""

        def __getitem__(self, index: int) -> int:
            return index

    result = settled(monkeypatch, tmp_path, Cheap(), step_s=0.03)
    factor = result.what_if[0].factor
    assert factor is not None
    assert factor < 1.5, "on a busy machine sleeping takes longer, now and then"
    if factor < WORTH:
        assert [sentence.key for sentence in result.what_if] == ["step_replay"]


class Photos(Dataset[Any]):
    """One large JPEG over and over, made small."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "photo.jpg"
        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((800, 600)).save(self.file, quality=90)

    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.file) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB").resize((100, 75), Image.Resampling.NEAREST)).copy())


def test_a_dataset_that_decodes_more_than_it_needs_is_told_what_drafting_would_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settled(monkeypatch, tmp_path, Photos(tmp_path), step_s=0.001)
    ceiling, draft = found.what_if[0], said(found)["draft"]
    assert draft.factor is not None
    assert ceiling.factor is not None
    assert 1.05 <= draft.factor <= ceiling.factor
    assert found.phases is not None
    assert found.phases.decode_s is not None
    assert found.phases.decode_s > 0.4 * found.phases.work_s
