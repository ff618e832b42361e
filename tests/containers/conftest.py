"""One engine of each kind for all tests here, or the reason why there is none."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine
from tests.containers.podman import NoEngine
from tests.containers.rig import Rig


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that starts containers with this very Python in them."""
    try:
        return Engine.set_up(tmp_path_factory.mktemp("engine"))
    except (NoEngine, OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no container engine: {error}")


@pytest.fixture(scope="session")
def _rig() -> Iterator[Rig]:
    # Not pytest's own folder: a socket's path has at most 107 bytes (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="keepfed-rig-"))
    started = Rig.started(folder)
    try:
        rig = started.__enter__()
    except (NoEngine, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no container engine: {error}")
    yield rig
    started.__exit__(None, None, None)
    assert not folder.exists(), "the engine has left something behind"


@pytest.fixture
def rig(_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A container engine with the image IMAGE, named by DOCKER_HOST; every container of a test ends with it."""
    monkeypatch.setenv("DOCKER_HOST", _rig.host)
    with _rig.open():
        before = _rig.left_over()
        yield _rig
        assert _rig.left_over() == before


@pytest.fixture(scope="module")
def resting(_rig: Rig) -> Iterator[str]:
    """A container for tests that leave it as it is, or write files of their own: starting one takes longer than they do."""
    with _rig.open(), _rig.container("sleep", "1000", name="resting", working_dir="/app") as name:
        yield name
