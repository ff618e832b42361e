"""One engine for all tests here, or the reason why there is none."""

from __future__ import annotations

import subprocess

import pytest

from tests.containers.engine import Engine, NoEngine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine that starts containers."""
    try:
        return Engine.set_up(tmp_path_factory.mktemp("engine"))
    except (NoEngine, OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no container engine: {error}")
