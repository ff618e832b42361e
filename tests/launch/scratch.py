"""Interpreters and a launcher for the tests of everything that happens around a program.

Two virtual environments are made once per test session: `equipped` has keepfed (its .pth, as an installation puts it) and a fake
torch, `bare` has the fake torch alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import keepfed

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
SOURCE = Path(keepfed.__file__).resolve().parents[1]
SITE_FOLDER = SOURCE / "keepfed" / "_site" / "sitecustomize"
PATIENCE_S = 30.0

LAUNCHER = "import sys; sys.path[:0] = {path!r}; from keepfed.cli.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that programs of a test run in."""

    python: str
    """Its executable."""
    site_packages: Path
    """Its site-packages."""


def make_interpreter(folder: Path, *, with_keepfed: bool) -> Interpreter:
    """A virtual environment with the fake torch, and keepfed as an installation leaves it."""
    # The base interpreter's own venv: a venv made from inside another one would be the same, only slower.
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    (site_packages / "_paths.pth").write_text(f"{HERE / 'fake_torch'}\n", encoding="utf-8")
    if with_keepfed:
        (site_packages / "_source.pth").write_text(f"{SOURCE}\n{HERE / 'fake_armed'}\n", encoding="utf-8")
        (site_packages / "a_fake.pth").write_text("import keepfed_fake_armed\n", encoding="utf-8")
        shutil.copy(SOURCE / "keepfed" / "_site" / "keepfed.pth", site_packages)
    name = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return Interpreter(str(folder / name), site_packages)


@pytest.fixture(scope="session")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """An interpreter with keepfed."""
    return make_interpreter(tmp_path_factory.mktemp("equipped"), with_keepfed=True)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """An interpreter without keepfed."""
    return make_interpreter(tmp_path_factory.mktemp("bare"), with_keepfed=False)


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without PYTHONPATH, with `changes` (None takes a variable out)."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name, value in changes.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    return environ


def launcher(*words: str) -> list[str]:
    """`keepfed WORDS…` as a command line that needs no PYTHONPATH, which the program would inherit."""
    return [sys.executable, "-c", LAUNCHER.format(path=[str(SOURCE)]), *words]


def run(
    argv: list[str], cwd: Path, environ: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, at most PATIENCE_S seconds."""
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment() if environ is None else environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )


def keepfed_run(
    program: list[str], cwd: Path, environ: dict[str, str] | None = None, *, options: tuple[str, ...] = (), **more: Any
) -> subprocess.CompletedProcess[str]:
    """`keepfed run OPTIONS -- PROGRAM`."""
    return run(launcher("run", *options, "--", *program), cwd, environ, **more)


def events_of(folder: Path) -> list[tuple[int, Any]]:
    """What the only run below `folder` reported."""
    from keepfed.feed import RunFolder

    (path,) = (folder / ".keepfed" / "runs").iterdir()
    return list(RunFolder.open(path).reader().read_new())
