"""What importing costs. `keepfed` and everything outside the loader must work where there is no torch at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import keepfed

PACKAGE = Path(keepfed.__file__).parent

# Imports one module after the other in one fresh interpreter, in which torch cannot be found, and prints what went wrong.
PROBE = """
import importlib, sys, traceback

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "numpy", "ray"}:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoTorch())
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        print(name)
        traceback.print_exc(file=sys.stdout)
"""


def modules() -> list[str]:
    """Every module of the package. `_site` is left out: the interpreter runs it at its start, nobody imports it."""
    names = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        if "_site" not in parts:
            names.append(".".join(parts).removesuffix(".__init__"))
    return names


def test_no_module_outside_the_loader_needs_torch() -> None:
    inside = tuple(
        f"keepfed.{name}" for name in ("loader.", "offline.search", "offline.spec", "offline.loop", "offline.program")
    )
    names = [name for name in modules() if not name.startswith(inside)]
    assert len(names) >= 8
    done = subprocess.run([sys.executable, "-c", PROBE, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_the_probe_notices_torch() -> None:
    """Otherwise the test above could not fail."""
    done = subprocess.run([sys.executable, "-c", PROBE, "torch"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch\n")


@pytest.mark.parametrize("name", ["keepfed", "keepfed.loader"])
def test_a_package_pulls_in_no_torch(name: str) -> None:
    """`keepfed.loader` is a folder of small modules of which a worker imports a few, so the folder itself is free too."""
    done = subprocess.run([sys.executable, "-c", PROBE, name], capture_output=True, text=True, check=True)
    assert done.stdout == ""
