"""A file's syntax tree, and the way from its nodes to bytes of the file.

Python's own parser is exact and fast, and reads only what today's Python is: `print "done"`, `.cuda(async=True)`, tabs mixed
with spaces or an unfinished line make a whole file unreadable for it. What it refuses is read by a parser that goes on after
mistakes, and its tree is regrown in ast's terms, so that everything behind knows one kind of tree.
"""

from __future__ import annotations

import ast
import warnings
from itertools import accumulate

from keepfed.knobs.python.regrow import regrown
from keepfed.knobs.source import Source


def line_starts(utf8: bytes) -> list[int]:
    """Offsets of the lines as Python's parser counts them: a lone carriage return ends one, too."""
    return [0, *accumulate(map(len, utf8.splitlines(keepends=True)))]


class Parsed:
    """One parsed file."""

    def __init__(self, source: Source, starts: list[int]) -> None:
        self.source = source
        self._starts = starts
        self.tree = _tree(source, starts)

    def stretch(self, node: ast.expr) -> tuple[int, int]:
        """Where a node starts and ends in `utf8`."""
        end_line = node.end_lineno or node.lineno
        end_column = node.end_col_offset if node.end_col_offset is not None else node.col_offset
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[end_line - 1] + end_column

    def text(self, node: ast.expr) -> bytes:
        """What is written there."""
        start, end = self.stretch(node)
        return self.source.utf8[start:end]


def _tree(source: Source, starts: list[int]) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\\d" in somebody's string is no business of ours
            return ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return regrown(source.utf8, starts)
