"""`keepfed recreate`: what is refused before any engine is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepfed.cli.main import main

NOWHERE = "unix:///nonexistent/engine.sock"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line that cannot be meant is answered; nothing listens, so it must be refused without asking."""
    assert main(["recreate", "trainer", *words]) == 2
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)


@pytest.mark.parametrize("size", ["2 gigs", "-1", "0", "", "1e9"])
def test_a_size_that_docker_would_not_take_is_explained(capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert "2g, 2048m, 512M" in refused(capsys, f"--shm-size={size}")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--health", "localhost:80"], "no URL that can be asked"),
        (["--health", "http://localhost/", "--expect", "{a}"], "no JSON"),
        (["--expect", "{}"], "--health"),
        (["--timeout", "0"], "from 1 to 86400"),
        (["--timeout", "nan"], "from 1 to 86400"),
        (["--commit", "Not An Image"], "no name for an image"),
        (["--commit", "a:1", "--discard-changes"], "exclude each other"),
        (["--dry-run", "--script", "x.sh"], "exclude each other"),
        (["--script", "/nonexistent/x.sh"], "no such folder"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], words: list[str], answer: str
) -> None:
    assert answer in refused(capsys, "--shm-size", "2g", *words)


def test_files_that_are_there_are_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "again.env").write_text("mine", encoding="utf-8")
    assert "again.env exists" in refused(capsys, "--shm-size", "2g", "--script", str(tmp_path / "again.sh"))
    os.symlink("/nonexistent", tmp_path / "link.yaml")
    assert "link.yaml exists" in refused(capsys, "--shm-size", "2g", "--compose", str(tmp_path / "link.yaml"))


def test_a_script_is_not_called_what_its_variables_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "file of variables" in refused(capsys, "--shm-size", "2g", "--script", str(tmp_path / "again.env"))


def test_without_an_engine_the_way_to_one_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recreate", "trainer", "--shm-size", "2g"]) == 3
    assert "/nonexistent/engine.sock" in capsys.readouterr().err


def test_the_size_has_to_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--shm-size" in refused(capsys)
