"""TOML by its grammar: tables, arrays of tables, dotted keys, inline tables."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from keepfed.knobs.config import ini_config
from keepfed.knobs.config.entry import MAX_DEPTH, Document, Entry, Homes, Shape
from keepfed.knobs.config.sites import may_state, sites_of
from keepfed.knobs.grammar import parse, text_of
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.source import Source

_QUOTES = ('"""', "'''", '"', "'")


def read(source: Source) -> Iterator[KnobSite]:
    """The settings of a TOML file; of a broken one, what its lines say as an INI file."""
    if may_state(source.utf8):
        yield from sites_of(document_of(source) or ini_config.document_of(source, Form.TOML))


def document_of(source: Source) -> Document | None:
    """All values of the file, or None where it is not TOML."""
    root = parse("toml", source.utf8).root_node
    if root.has_error:
        return None
    walk = _Walk()
    top = walk.homes.open()
    for node in root.children:
        if node.type == "pair":
            walk.pair(node, (), top)
        elif node.type in {"table", "table_array_element"}:
            walk.table(node)
    return Document(source, Form.TOML, walk.entries, walk.homes)


class _Walk:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.homes = Homes()
        self._counted: dict[tuple[str, ...], int] = {}

    def table(self, node: Node) -> None:
        """`[a.b]` or `[[a.b]]` with the pairs below it."""
        header = next((child for child in node.children if child.type.endswith("key")), None)
        path = _key(header) if header is not None else ()
        if node.type == "table_array_element":
            number = self._counted.get(path, -1) + 1
            self._counted[path] = number
            path = (*path, str(number))
        home = self.homes.open()
        for pair in node.children:
            if pair.type == "pair":
                self.pair(pair, path, home)

    def pair(self, node: Node, above: tuple[str, ...], home: int) -> None:
        """`key = value`."""
        named = [child for child in node.children if child.is_named and child.type != "comment"]
        if len(named) < 2:
            return
        path = (*above, *_key(named[0]))
        self.homes.keys[home].append(path[-1])
        self.value(named[1], path, home)

    def value(self, node: Node, path: tuple[str, ...], home: int) -> None:
        """A scalar, a list, or an inline table."""
        if len(path) > MAX_DEPTH:
            return
        if node.type == "inline_table":
            inner = self.homes.open()
            for pair in node.children:
                if pair.type == "pair":
                    self.pair(pair, path, inner)
        elif node.type == "array":
            inner = self.homes.open()
            items = (child for child in node.children if child.is_named and child.type != "comment")
            for number, item in enumerate(items):
                self.value(item, (*path, str(number)), inner)
        else:
            text = text_of(node)
            quote = next((mark for mark in _QUOTES if text.startswith(mark)), "") if node.type == "string" else ""
            shape = Shape.PLAIN if not quote else Shape.BLOCK if len(quote) == 3 else Shape.TEXT
            start, end = node.start_byte + len(quote), node.end_byte - len(quote)
            self.entries.append(Entry(path, home, start, end, text[len(quote) : len(text) - len(quote)], shape))


def _key(node: Node) -> tuple[str, ...]:
    """The keys of `a`, `"a"` or `a.b`."""
    if node.type == "dotted_key":
        return tuple(part for child in node.children if child.is_named for part in _key(child))
    text = text_of(node)
    return (text[1:-1] if node.type == "quoted_key" else text,)
