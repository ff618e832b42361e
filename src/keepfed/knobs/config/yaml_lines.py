r"""YAML that no parser takes: Helm and Jinja templates, m4, tabs, half a document. By indentation, line by line.

A manifest with `{{ if }}` between its lines is still a manifest: the keys above a line are those of the lines with less
indentation. Lines that say nothing in YAML (`{{- end }}`, `define(...)`, `% for`) are passed over.

    volumes:                       indentation 0   volumes
    - name: dshm                   item at 0, key at 2
      emptyDir:                    2               volumes.0.emptyDir
        sizeLimit: "4Gi"           4               volumes.0.emptyDir.sizeLimit
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.knobs.config.entry import Document, Entry, Homes, Shape
from keepfed.knobs.config.json_config import Scanner
from keepfed.knobs.site import Form
from keepfed.knobs.source import Source

_LINE = re.compile(rb"[^\n]*\n?")
_INDENT = re.compile(rb"[ \t]*")
_DASH = re.compile(rb"-(?:[ \t]+|(?=\r?\n?\Z))")
_KEY = re.compile(
    rb"""(?: "(?P<double>(?:[^"\\\n]|\\.)*)" | '(?P<single>[^'\n]*)' | (?P<bare>[^\s#{}\[\],"'%@`][^#{}\n]*?) )
         [ \t]*:(?=[ \t]|\r?\n?\Z)[ \t]*""",
    re.VERBOSE,
)
_MARKS = re.compile(rb"(?:(?:&(?P<anchor>[^\s]+)|(?P<tag>![^\s]*))(?:[ \t]+|(?=\r?\n?\Z)))*")
_QUOTED = re.compile(rb"\"(?P<double>(?:[^\"\\\n]|\\.)*)\"|'(?P<single>(?:[^'\n]|'')*)'")
_PLAIN = re.compile(rb"(?:(?![ \t]+\#)[^\r\n])*")
_BLOCK = re.compile(rb"[|>][-+0-9]*[ \t]*(?:\#[^\n]*)?\r?\n?\Z")
_TEMPLATE = re.compile(rb"[ \t]*(?:\{\{[^}]*\}\}[ \t]*\r?\n?\Z|\{%|%|#)")


@dataclass(slots=True)
class _Level:
    indent: int
    path: tuple[str, ...]
    """Of the mapping or list itself."""
    home: int
    items: int = -1
    """How many items were seen, for a list."""


def document_of(source: Source) -> Document:
    """All values that lines state."""
    return _Lines(source).read()


class _Lines:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.utf8 = source.utf8
        self.entries: list[Entry] = []
        self.homes = Homes()
        self.levels: list[_Level] = []
        self.part = 0

    def read(self) -> Document:
        """All lines, each once."""
        at = 0
        while at < len(self.utf8):
            line = _LINE.match(self.utf8, at)
            assert line is not None
            at = max(line.end(), self._line(line[0], at))
        return Document(self.source, Form.YAML, self.entries, self.homes)

    def _line(self, line: bytes, start: int) -> int:
        """One line that begins at `start`; returns the byte up to which text belongs to it."""
        if line.startswith((b"---", b"...")):
            self.part, self.levels = self.part + 1, []
            return 0
        if not line.strip() or _TEMPLATE.match(line):
            return 0
        column = len(_INDENT.match(line)[0])  # type: ignore[index]  # matches nothing, too
        path: tuple[str, ...] | None = None
        dash = column
        while found := _DASH.match(line, column):
            path, dash = self._item(column), column
            column = found.end()
        key = _KEY.match(line, column)
        if key is None:
            return self._value(line, start, column, path, self.levels[-1].home, dash) if path else 0
        name = (key["double"] or key["single"] or key["bare"] or b"").decode("utf-8", "surrogatepass")
        level = self._mapping(column)
        self.homes.keys[level.home].append(name)
        return self._value(line, start, key.end(), (*level.path, name), level.home, column)

    def _item(self, column: int) -> tuple[str, ...]:
        """The path of a new item whose dash stands in this column."""
        # A list may stand in the very column of the key that it belongs to.
        while self.levels and (
            self.levels[-1].indent > column or (self.levels[-1].indent == column and self.levels[-1].items < 0)
        ):
            if self.levels[-1].indent == column and self._last_key_is_open():
                break
            self.levels.pop()
        if not (self.levels and self.levels[-1].items >= 0 and self.levels[-1].indent == column):
            self.levels.append(_Level(column, self._open_path(), self.homes.open(), 0))
        else:
            self.levels[-1].items += 1
        level = self.levels[-1]
        return (*level.path, str(level.items))

    def _mapping(self, column: int) -> _Level:
        """The mapping that a key in this column belongs to."""
        while self.levels and self.levels[-1].indent > column:
            self.levels.pop()
        while self.levels and self.levels[-1].indent == column and self.levels[-1].items >= 0:
            self.levels.pop()
        if not (self.levels and self.levels[-1].indent == column):
            self.levels.append(_Level(column, self._open_path(), self.homes.open()))
        return self.levels[-1]

    def _last_key_is_open(self) -> bool:
        """Whether the key before this line has no value of its own yet."""
        keys = self.homes.keys[self.levels[-1].home]
        last = self.entries[-1] if self.entries else None
        return bool(keys) and not (last and last.home == self.levels[-1].home and last.key == keys[-1] and last.text)

    def _open_path(self) -> tuple[str, ...]:
        """The path under which a deeper level stands."""
        if not self.levels:
            return ()
        above = self.levels[-1]
        if above.items >= 0:
            return (*above.path, str(above.items))
        keys = self.homes.keys[above.home]
        return (*above.path, keys[-1]) if keys else above.path

    def _value(self, line: bytes, start: int, at: int, path: tuple[str, ...], home: int, column: int) -> int:
        """What stands behind a key or a dash."""
        marks = _MARKS.match(line, at)
        assert marks is not None
        anchor, tag = ((marks[name] or b"").decode("utf-8", "replace") for name in ("anchor", "tag"))
        at = marks.end()
        if _BLOCK.match(line, at):
            return self._block(start, at, path, home, column)
        if line[at : at + 1] in {b"[", b"{"} and line[at : at + 2] != b"{{":
            return self._flow(start + at, path)
        quoted = _QUOTED.match(line, at)
        if quoted:
            inside = quoted.span(str(quoted.lastgroup))
            self._emit(path, home, start + inside[0], start + inside[1], Shape.TEXT, anchor, tag)
            return 0
        plain = _PLAIN.match(line, at)
        text = plain[0].rstrip() if plain and not line[at:].startswith(b"#") else b""
        shape = Shape.PLAIN if text else Shape.EMPTY
        if text.startswith(b"*") and not anchor:
            shape, anchor = Shape.ALIAS, text[1:].decode("utf-8", "replace")
        self._emit(path, home, start + at, start + at + len(text), shape, anchor, tag)
        return 0

    def _block(self, start: int, at: int, path: tuple[str, ...], home: int, column: int) -> int:
        """A text over several lines: all that are deeper than its key."""
        end = self.utf8.find(b"\n", start + at)
        while 0 <= end < len(self.utf8) - 1:
            line = _LINE.match(self.utf8, end + 1)
            assert line is not None
            indent = _INDENT.match(line[0])
            if line[0].strip() and indent is not None and len(indent[0]) <= column:
                break
            end = line.end() - 1
        end = end + 1 if end >= 0 else len(self.utf8)
        self._emit(path, home, start + at, end, Shape.BLOCK, "", "")
        return end

    def _flow(self, at: int, path: tuple[str, ...]) -> int:
        """A value in brackets, over as many lines as it takes."""
        scanner = Scanner(self.utf8, self.homes, at=at, part=self.part, flow=True)
        scanner.bracket(path)
        self.entries += scanner.entries
        return scanner.ended

    def _emit(
        self, path: tuple[str, ...], home: int, start: int, end: int, shape: Shape, anchor: str, tag: str
    ) -> None:
        text = self.utf8[start:end].decode("utf-8", "surrogatepass")
        above = self.entries[-1] if self.entries else None
        if above and above.shape is Shape.EMPTY and above.path == path[: len(above.path)] and above.path != path:
            # It has a value after all: the lines below it.
            self.entries.pop()
        self.entries.append(Entry(path, home, start, end, text, shape, self.part, anchor, tag))
