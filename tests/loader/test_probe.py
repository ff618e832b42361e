"""A child that times samples: what it can tell of them, and that nobody else notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader, Dataset, Subset

from keepfed.loader import survey
from keepfed.loader.crew import Crew
from keepfed.loader.epoch import EpochIter
from keepfed.loader.layers import Layers
from keepfed.loader.probe import FEWEST
from keepfed.loader.stats import Tally
from keepfed.loader.survey import ask_probe
from keepfed.loader.terms import Terms
from keepfed.plan import Plan

LENGTH = 24


@contextmanager
def crew_of(dataset: Any, **options: Any) -> Iterator[Crew]:
    """One worker that may do more, at the beginning of an epoch."""
    loader = DataLoader(dataset, batch_size=4, num_workers=1, **options)
    iterator = EpochIter(loader, Terms(Plan(1), fixed=False, max_workers=2, lookahead=6), Tally())
    try:
        yield iterator.working_crew
    finally:
        iterator._shutdown_workers()


def probed(dataset: Any, **options: Any) -> dict[str, Any] | None:
    """As after settling: the workers have long begun."""
    with crew_of(dataset, **options) as crew:
        crew.stock_up(1, time.monotonic() + (0 if isinstance(dataset, Stuck) else 60))
        return ask_probe(crew)


class Photos(Dataset[Any]):
    """JPEG files, decoded and made much smaller: what most vision programs do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transform = smaller

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.folder / f"{index % 3}.jpg") as image:
            return self.transform(image.convert("RGB"))


def smaller(image: Image.Image) -> torch.Tensor:
    """What torchvision's Resize and ToTensor do."""
    return torch.from_numpy(np.asarray(image.resize((160, 120), Image.Resampling.NEAREST)).copy())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 255, (75, 100, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(noise).resize((1280, 960)).save(folder / f"{number}.jpg", quality=90)
    return folder


def test_decoding_is_told_apart_and_timed_against_decoding_at_the_size_that_is_needed(photos: Path) -> None:
    load, resize = ImageFile.ImageFile.load, Image.Image.resize
    found = probed(Subset(Photos(photos), range(LENGTH)))
    assert found is not None
    assert found["samples"] >= FEWEST
    assert found["decoder"] == "PIL"
    assert 0.4 < found["decode_s"] / found["sample_s"] <= 1
    assert 0 < found["transform_s"] < found["sample_s"] - found["decode_s"]
    assert found["draft_samples"] >= FEWEST
    assert found["draft_s"] < found["draft_from_s"], "1280 pixels become 160: an eighth is enough"
    assert found["files"] == 3
    assert (load, resize) == (ImageFile.ImageFile.load, Image.Image.resize), "this process is as it was"


class Sleeper(Dataset[Any]):
    """Waits, fails now and then, and says where its samples were made."""

    def __init__(self, pids: Path) -> None:
        self.pids = pids

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        with self.pids.open("a") as told:
            told.write(f"{os.getpid()} {index}\n")
        time.sleep(0.002)
        if index == 3:
            raise ValueError("this one is broken")
        return index


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_samples_that_cannot_be_made_are_left_out_and_no_decoder_is_invented(method: str, tmp_path: Path) -> None:
    found = probed(Sleeper(tmp_path / "pids"), multiprocessing_context=method)
    assert found is not None
    assert FEWEST <= found["samples"] < LENGTH
    assert found["sample_s"] >= 0.002
    assert (found["decode_s"], found["transform_s"], found["draft_samples"]) == (None, None, 0)
    assert found["files"] == 0, "files that it writes are none that it reads"


def test_samples_are_timed_in_a_process_of_their_own(tmp_path: Path) -> None:
    with crew_of(Sleeper(tmp_path / "pids")) as crew:
        worker = crew.roster.members[0].pid
        crew.stock_up(2, time.monotonic() + 20)
        before = (tmp_path / "pids").read_text().splitlines()
        assert ask_probe(crew) is not None
        after = (tmp_path / "pids").read_text().splitlines()[len(before) :]
    assert {int(line.split()[0]) for line in before} == {worker}
    assert not {int(line.split()[0]) for line in after} & {worker, os.getpid()}


class Stuck(Sleeper):
    """Comes to no end in a process that is not the first worker."""

    def __getitem__(self, index: int) -> int:
        time.sleep(1000)
        return index


def test_a_sample_that_takes_for_ever_ends_the_probe_and_not_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "PROBE_S", 0.1)
    monkeypatch.setattr(survey, "START_S", 0.4)
    assert probed(Stuck(tmp_path / "pids")) is None


def test_without_lists_of_indices_nothing_is_asked(tmp_path: Path) -> None:
    loader = DataLoader(Sleeper(tmp_path / "pids"), batch_size=None, num_workers=1)
    iterator = EpochIter(loader, Terms(Plan(1), fixed=False, max_workers=2, lookahead=6), Tally())
    assert ask_probe(iterator.working_crew) is None
    iterator._shutdown_workers()


# ---- layers, without a child ---------------------------------------------------------------------------------------------


def test_what_lies_inside_another_layer_counts_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("keepfed.loader.layers.time.perf_counter", lambda: now[0])
    layers = Layers()

    def passes(seconds: float) -> None:
        now[0] += seconds

    def transform() -> None:
        passes(1.0)
        layers.timed("decode", "PIL", passes, 4.0)
        passes(2.0)

    layers.begin()
    layers.timed("transform", "", transform)
    assert (layers.transform_s, layers.decode_s) == (3.0, 4.0)


def test_a_transform_keeps_its_attributes_and_a_dataset_that_refuses_is_left_alone() -> None:
    class Named:
        """A transform that a dataset looks into."""

        size = 224

        def __call__(self, sample: int) -> int:
            return sample + 1

    class Plain:
        """A dataset around another one."""

        def __init__(self, transform: Any, dataset: Any = None) -> None:
            self.transform, self.dataset = transform, dataset

    class Fixed:
        """Nobody sets its transform."""

        transform = property(lambda _: Named())

    layers, inner = Layers(), Plain(Named())
    layers.wrap_dataset(Plain(None, inner))
    layers.wrap_dataset(Fixed())
    layers.begin()
    assert inner.transform(1) == 2
    assert inner.transform.size == 224
    assert layers.transformed == 1


@pytest.mark.parametrize(("resized", "scale"), [([], 1), ([1.9], 1), ([2.0], 2), ([3.9, 8.1], 2), ([7.9], 4), ([9], 8)])
def test_no_image_is_decoded_smaller_than_its_resize_needs_it(resized: list[float], scale: int) -> None:
    layers = Layers()
    layers.begin()
    layers._resized = resized
    assert layers.allowed_scale() == scale
