"""A keyword for a `DataLoader(...)` that has none of the settings yet: most first loaders are written so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from keepfed.edit.inserting.beside import beside
from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit
from keepfed.edit.respelling import answer_in
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import Form

_LOADERS = {"DataLoader", "StatefulDataLoader", "StreamingDataLoader"}


def insert_in_calls(wish: Wish, text: Text, line: int | None) -> list[Edit]:
    """An edit for every loader of the file (or for the one on `line`) that lacks the keyword and takes none from a dict."""
    edits = []
    for call in _calls(text):
        names = [keyword.arg for keyword in call.keywords]
        on_line = line is None or call.lineno <= line <= (call.end_lineno or call.lineno)
        if on_line and wish.knob not in names and None not in names:
            edits += _insert(wish, text, call)
    return edits


def _calls(text: Text) -> Iterator[ast.Call]:
    if re.search(r"\r(?!\n)", text.all):
        return
    try:
        tree = ast.parse(text.all)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in _LOADERS:
            yield node


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _insert(wish: Wish, text: Text, call: ast.Call) -> list[Edit]:
    value = answer_in(Form.PYTHON, yes=wish.value == "true") if wish.value in {"true", "false"} else wish.value
    item = f"{wish.knob}={value}"
    if call.keywords:
        last = call.keywords[-1]
        start = _index(text, last.lineno, last.col_offset)
        end = _index(text, last.end_lineno or last.lineno, last.end_col_offset or 0)
        at, new = beside(text, start, end, item, comma=True)
        return [text.edit(wish, wish.knob, at, new)]
    if not call.args or isinstance(call.args[-1], ast.Starred):
        return []
    last_end = _index(text, call.args[-1].end_lineno or 0, call.args[-1].end_col_offset or 0)
    closing = _index(text, call.end_lineno or 0, call.end_col_offset or 0) - 1
    between = text.all[last_end:closing]
    return [text.edit(wish, wish.knob, last_end, f", {item}")] if between.strip() in {"", ","} else []


def _index(text: Text, line: int, column_bytes: int) -> int:
    """`ast` counts columns in bytes of UTF-8."""
    offset = text.source.offset(line, column_bytes)
    return len(text.source.utf8[:offset].decode("utf-8", "surrogatepass"))
