"""The environment that arms a program: two variables, inherited by everything below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import keepfed
from keepfed.feed import RUN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepfed.feed import RunFolder

SITE_FOLDER = Path(keepfed.__file__).absolute().parent / "_site" / "sitecustomize"
"""Holds one file, sitecustomize.py, and nothing else that could hide a module of the program's."""


def armed_environment(run: RunFolder, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with KEEPFED_RUN set and our sitecustomize in front of PYTHONPATH; unchanged under KEEPFED_DISABLE=1.

    What PYTHONPATH said before follows letter for letter: an empty entry there means the current folder.
    """
    armed = dict(environ)
    if armed.get("KEEPFED_DISABLE", "0") not in {"", "0"}:
        return armed
    armed[RUN_VARIABLE] = str(run.path)
    armed.pop("KEEPFED_WORKER", None)
    before = armed.get("PYTHONPATH", "")
    if str(SITE_FOLDER) not in before.split(os.pathsep):
        armed["PYTHONPATH"] = f"{SITE_FOLDER}{os.pathsep}{before}" if before else str(SITE_FOLDER)
    return armed
