"""The public surface: what `keepfed` offers, sorted, and nothing that has to be imported to be offered."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keepfed

SOURCE = Path(keepfed.__file__)


def test_the_exports_are_sorted_and_listed_once() -> None:
    assert keepfed.__all__ == sorted(set(keepfed.__all__))


def test_dir_shows_the_exports_before_they_are_imported() -> None:
    assert set(keepfed.__all__) <= set(dir(keepfed))


@pytest.mark.parametrize("name", keepfed.__all__)
def test_every_export_exists_and_says_what_it_is(name: str) -> None:
    thing = getattr(keepfed, name)
    assert thing.__name__ == name
    assert thing.__doc__


def test_type_checkers_see_the_same_exports() -> None:
    """Names resolved at run time are invisible to type checkers, so a block that never runs repeats them."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = {
        alias.asname or alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imports == keepfed._HOME
    assert sorted(imports) == keepfed.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Dataloader"):
        _ = keepfed.Dataloader


def test_importing_keepfed_imports_nothing_else_of_it() -> None:
    code = "import sys, keepfed; print(sorted(name for name in sys.modules if name.startswith('keepfed.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
