r"""Settings in notebooks: spans inside the JSON strings of code cells, which are not the characters that the cell shows.

A cell's source is JSON text: quotes are `\"`, line ends `\n`, and Jupyter may write `é` as `\u00e9`. So each cell is
unescaped with a note of where every character stands in the file, is read as what it is (Python, a file that `%%writefile`
makes, a shell line behind `!`), and what is found is led back to the file's own bytes. Outputs and markdown are never read:
they repeat numbers that nobody runs.

    "source": ["loader = DataLoader(d, num_workers=4)\n", …]
                                                   ↑ ──────── the site's span lies here, between the JSON's own bytes
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tree_sitter import Node

from keepfed.knobs import reading
from keepfed.knobs.grammar import parse, text_of
from keepfed.knobs.python.reader import read_code
from keepfed.knobs.site import Kind, KnobSite, Span
from keepfed.knobs.source import Source

_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.)", re.DOTALL)
_WRITES = re.compile(rb"\s*%%(?:writefile|file)[ \t]+(?:-a[ \t]+)?[\"']?([^\s\"']+)[^\n]*\n")
_SHELL_CELL = re.compile(rb"\s*%%(?:bash|sh|script[ \t]+\S*sh)\b[^\n]*\n")
_OTHER_CELL = re.compile(rb"\s*%%(?!time\b|timeit\b|capture\b|prun\b)\w+")
_MAGIC = re.compile(rb"(?m)^([ \t]*)(!(?!=)|%%?[A-Za-z]\w*|\?)[^\n]*(?:\\\n[^\n]*)*")
_RUNS_SHELL = {b"!", b"%env", b"%set_env", b"%run", b"%sh", b"%bash"}
_RUNS_PYTHON = {b"%time", b"%timeit", b"%prun"}


@dataclass(frozen=True, slots=True)
class Cell:
    """The source of one code cell, unescaped."""

    text: bytes
    """As UTF-8."""
    starts: list[int]
    """Offsets in `text` from which on a stretch of the file is copied without escapes."""
    origins: list[int]
    """Where each such stretch begins in the file's UTF-8."""

    def stretch(self, span: Span) -> tuple[int, int]:
        """Where a stretch of the cell starts and ends in the file's UTF-8."""
        return self._in_file(span.start), self._in_file(span.end - 1) + 1

    def _in_file(self, offset: int) -> int:
        at = bisect_right(self.starts, offset) - 1
        return self.origins[at] + offset - self.starts[at]


def read(source: Source) -> list[KnobSite]:
    """Every site of a notebook. Raises Unreadable where it is no JSON with cells."""
    root = parse("json", source.utf8).root_node
    cells = [cell for node in _code_cells(root) if (cell := _unescaped(node)) is not None]
    if not cells and b'"cells"' not in source.utf8:
        raise reading.Unreadable
    found = [site for cell, text, name in _programs(cells) for site in _read_as(cell, text, name, source)]
    return sorted(found, key=lambda site: site.span)


def _programs(cells: list[Cell]) -> Iterator[tuple[Cell, bytes, str]]:
    """What is to be read, and as which kind of file: the Python of all cells at once, since they are one program."""
    python: list[Cell] = []
    for cell in cells:
        if matched := _WRITES.match(cell.text):
            yield cell, _blanked(cell.text, 0, matched.end()), matched[1].decode("utf-8", "replace")
        elif matched := _SHELL_CELL.match(cell.text):
            yield cell, _blanked(cell.text, 0, matched.end()), "cell.sh"
        elif not _OTHER_CELL.match(cell.text):
            python.append(cell)
            for magic in _MAGIC.finditer(cell.text):
                if magic[2] in _RUNS_SHELL:
                    yield cell, _blanked(cell.text[: magic.end()], 0, magic.end(2)), "cell.sh"
    for whole in _wholes(python):
        yield whole, _MAGIC.sub(_as_python, whole.text), ""


def _wholes(cells: list[Cell]) -> list[Cell]:
    """The cells as one program; those that are none stay by themselves, so that a mistake in one hides nothing in the others."""
    whole = _joined(cells)
    if not cells or _is_python(whole):
        return [whole] if cells else []
    sound = [cell for cell in cells if _is_python(cell)]
    return [*([_joined(sound)] if sound else []), *(cell for cell in cells if cell not in sound)]


def _is_python(cell: Cell) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(_MAGIC.sub(_as_python, cell.text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _read_as(cell: Cell, text: bytes, name: str, source: Source) -> Iterator[KnobSite]:
    inner = Source.of(name or source.name, text)
    if inner is None:
        return
    for site in reading.read(inner) if name else read_code(inner):
        start, end = cell.stretch(site.span)
        written = source.utf8[start:end].decode("utf-8", "surrogatepass")
        if written != site.value and site.kind is Kind.LITERAL:
            continue  # an escape inside the value: its bytes cannot be replaced one for one
        line, column = source.place(start)
        target = source.span(*cell.stretch(site.target)) if site.target is not None else None
        span = source.span(start, end)
        yield replace(site, file=source.name, line=line, column=column, span=span, value=written, target=target)


def _joined(cells: list[Cell]) -> Cell:
    """All cells as one text, with line ends between them."""
    text = b""
    starts: list[int] = []
    origins: list[int] = []
    for cell in cells:
        starts.extend(len(text) + start for start in cell.starts)
        origins.extend(cell.origins)
        text += cell.text + b"\n"
    return Cell(text, starts, origins)


def _as_python(magic: re.Match[bytes]) -> bytes:
    """A line for IPython as Python that is as long: a comment, or (`%time f()`) the statement that it runs."""
    indent, word = magic[1], magic[2]
    rest = magic[0][len(indent) + len(word) :]
    if word in _RUNS_PYTHON and rest.strip():
        return indent + b"if 1:".ljust(len(word) + 1)[: len(word) + 1] + rest[1:]
    return indent + re.sub(rb"(?m)^.", b"#", word + rest)


def _blanked(text: bytes, start: int, end: int) -> bytes:
    """The same bytes with a stretch of spaces, line ends kept."""
    return text[:start] + re.sub(rb"[^\n]", b" ", text[start:end]) + text[end:]


def _code_cells(root: Node) -> Iterator[Node]:
    """The `source` of every code cell: `cells` at the top, or in `worksheets` of the notebooks of before 2015."""
    for book in _children(root, "object"):
        for holder in (book, *_items(_value(book, "worksheets"))):
            for cell in _items(_value(holder, "cells")):
                kind = _value(cell, "cell_type")
                if kind is None or text_of(kind) == '"code"':
                    written = _value(cell, "source") or _value(cell, "input")
                    if written is not None:
                        yield written


def _unescaped(node: Node) -> Cell | None:
    """The text of a string, or of a list of strings, and where its parts stand."""
    strings = [node] if node.type == "string" else _children(node, "string")
    text = bytearray()
    starts: list[int] = []
    origins: list[int] = []
    for string in strings:
        inside, base = (string.text or b"")[1:-1], string.start_byte + 1
        at = 0
        for escape in (*_ESCAPE.finditer(inside), None):
            end = escape.start() if escape else len(inside)
            starts.append(len(text))
            origins.append(base + at)
            text += inside[at:end]
            if escape is None:
                break
            starts.append(len(text))
            origins.append(base + end)
            text += _meaning(escape[0])
            at = escape.end()
    return Cell(bytes(text), starts, origins) if starts else None


def _meaning(escape: bytes) -> bytes:
    try:
        return str(json.loads(b'"' + escape + b'"')).replace("\0", " ").encode("utf-8", "replace")
    except ValueError:
        return escape


def _value(node: Node | None, key: str) -> Node | None:
    """The value of a key in an object."""
    for pair in _children(node, "pair"):
        name = pair.child_by_field_name("key")
        if name is not None and text_of(name) == f'"{key}"':
            return pair.child_by_field_name("value")
    return None


def _items(node: Node | None) -> list[Node]:
    return _children(node, "object")


def _children(node: Node | None, kind: str) -> list[Node]:
    return [child for child in node.named_children if child.type == kind] if node is not None else []
