"""The photographs of the example and the script that trains on them."""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from keepfed.plan import Plan
from tests.loader.steered import steered

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
COUNT = 40


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(PHOTOS / "make_photos.py"))


def make(maker: dict[str, Any], out: Path, *further: str) -> int:
    status: int = maker["main"](["--count", str(COUNT), "--out", str(out), *further])
    return status


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(maker: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "data"
    assert make(maker, out) == 0
    return out


def test_photos_are_readable_and_labelled_by_their_source(made: Path) -> None:
    photos = sorted(made.glob("*/*.jpg"))
    assert len(photos) == COUNT
    assert {"astronaut", "chelsea", "coffee", "rocket", "retina"} <= {path.parent.name for path in photos}
    for path in photos:
        with Image.open(path) as photo:
            photo.load()
            assert (photo.format, photo.mode) == ("JPEG", "RGB")
            assert all(500 <= side <= 800 for side in photo.size)


def test_the_same_seed_makes_the_same_bytes(maker: dict[str, Any], made: Path, tmp_path: Path) -> None:
    assert make(maker, tmp_path / "again") == 0
    assert make(maker, tmp_path / "other", "--seed", "1") == 0
    photos = {name: content for name, content in contents(made).items() if name.endswith(".jpg")}
    other = contents(tmp_path / "other")
    assert contents(tmp_path / "again") == contents(made)
    assert all(content != other[name] for name, content in photos.items())


def test_a_complete_folder_is_left_alone(maker: dict[str, Any], made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.glob("*/*.jpg")}
    assert make(maker, made) == 0
    assert {path: path.stat().st_mtime_ns for path in made.glob("*/*.jpg")} == before
    assert f"all {COUNT} photos are there" in capsys.readouterr().out


def test_an_interrupted_run_is_completed(
    maker: dict[str, Any], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = maker["write_whole"]

    def interrupted(path: Path, content: bytes) -> None:
        if path.name == "00020.jpg":
            raise KeyboardInterrupt
        whole(path, content)

    out = tmp_path / "data"
    monkeypatch.setitem(maker["make_missing"].__globals__, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(maker, out)
    assert len(list(out.glob("*/*.jpg"))) < COUNT
    monkeypatch.undo()
    assert make(maker, out) == 0
    assert contents(out) == contents(made)


def test_what_a_killed_run_left_is_removed_and_what_another_run_writes_is_not(
    maker: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    (out / "coffee").mkdir(parents=True)
    old, fresh = out / "coffee" / "00004.jpg.1.tmp", out / "coffee" / "00018.jpg.2.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half a pho")
    os.utime(old, (time.time() - 3600,) * 2)
    assert make(maker, out) == 0
    assert not old.exists()
    assert fresh.exists()


@pytest.mark.parametrize("further", [("--seed", "7"), ("--count", "39")])
def test_a_folder_made_otherwise_is_refused_and_not_touched(
    maker: dict[str, Any], made: Path, capsys: pytest.CaptureFixture[str], further: tuple[str, str]
) -> None:
    before = contents(made)
    assert make(maker, made, *further) == 2
    assert contents(made) == before
    message = capsys.readouterr().err
    assert "was made with --seed 0 --count 40" in message
    assert "choose another --out" in message


def test_a_broken_recipe_is_reported(maker: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text("[]")
    assert make(maker, tmp_path) == 2
    assert "recipe.json is not readable" in capsys.readouterr().err


def train(monkeypatch: pytest.MonkeyPatch, data: Path, *further: str) -> None:
    arguments = ["--data", str(data), "--epochs", "1", "--batch-size", "16", "--size", "64", "--log-every", "1"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *further])
    runpy.run_path(str(PHOTOS / "train.py"), run_name="__main__")


def test_the_script_trains_and_says_on_what(
    monkeypatch: pytest.MonkeyPatch, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(monkeypatch, made, "--num-workers", "1")
    printed = capsys.readouterr().out
    assert "training on" in printed
    assert "epoch 1 step 2/2  loss" in printed
    assert "epoch 1 done: 32 images" in printed


def test_an_emulated_gpu_is_said_plainly_and_learns_nothing(
    monkeypatch: pytest.MonkeyPatch, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train(monkeypatch, made, "--gpu-step-ms", "1")
    printed = capsys.readouterr().out
    assert "NO GPU HERE: its step is emulated by waiting 1 ms per batch, nothing is trained" in printed
    assert "loss" not in printed


def test_a_missing_folder_names_the_script_that_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"run make_photos\.py first"):
        train(monkeypatch, tmp_path / "nowhere")


def test_its_loader_may_have_workers_though_it_asks_for_none(made: Path, tmp_path: Path) -> None:
    """Random augmentation, lazily decoded files and lists of paths: a child makes the same batches, and nothing changes."""
    folder = runpy.run_path(str(PHOTOS / "train.py"))["PhotoFolder"](made, 64)
    loader: DataLoader[Any] = DataLoader(folder, batch_size=8, shuffle=True, num_workers=0)
    with steered(tmp_path) as host:
        end_s = time.monotonic() + 40
        while (iterator := host.iterator(loader)).undecided() and time.monotonic() < end_s:
            for _ in iterator:
                pass
        assert iterator.refused() == ""
        assert not iterator.undecided()
        iterator.change_plan(Plan(2))
        assert iterator.active_workers() == [0, 1]
        assert sum(len(labels) for _, labels in iterator) == COUNT
