"""YAML by its grammar: anchors, tags, flow style, text over several lines, several documents in one file."""

from __future__ import annotations

import re

from tree_sitter import Node

from keepfed.knobs.config.entry import MAX_DEPTH, Document, Entry, Homes, Shape
from keepfed.knobs.grammar import parse, text_of
from keepfed.knobs.site import Form
from keepfed.knobs.source import Source

_SCALARS = {
    "plain_scalar": Shape.PLAIN,
    "double_quote_scalar": Shape.TEXT,
    "single_quote_scalar": Shape.TEXT,
    "block_scalar": Shape.BLOCK,
    "alias": Shape.ALIAS,
}
# The grammar keeps the columns in which blocks began on a stack of 1024 bytes and writes behind it: the process is gone, without
# an exception, from the 250th on (tree-sitter-yaml, src/scanner.c, `serialize`). A block begins in a column of its own or of its
# key's, so a line whose text begins in column c has fewer than 2c + 2 around it.
_TOO_DEEP = re.compile(rb"(?m)^(?=[ \t?:-]{110})[ \t]*(?:[?:-][ \t]+)*[^\s#]")
_MAPPINGS = {"block_mapping", "flow_mapping"}
_SEQUENCES = {"block_sequence", "flow_sequence"}


def document_of(source: Source) -> Document | None:
    """All values of the file, or None where it is not YAML: a template, tabs for blanks, half a document."""
    if _TOO_DEEP.search(source.utf8):
        return None
    root = parse("yaml", source.utf8).root_node
    if root.has_error:
        return None
    walk = _Walk()
    for part, document in enumerate(node for node in root.children if node.type == "document"):
        walk.part = part
        for node in document.children:
            walk.node(node, (), walk.homes.open())
    return Document(source, Form.YAML, walk.entries, walk.homes)


class _Walk:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.homes = Homes()
        self.part = 0

    def node(self, node: Node, path: tuple[str, ...], home: int, tag: str = "", anchor: str = "") -> None:
        """A value with its tag and anchor: `block_node` and `flow_node` hold what these belong to."""
        if len(path) > MAX_DEPTH:
            return
        if node.type in {"block_node", "flow_node"}:
            self._wrapped(node, path, home)
        elif node.type == "flow_mapping" and (node.text or b"").startswith(b"{{"):
            # The hole of a template is a mapping of a mapping to this grammar.
            text = text_of(node)
            self.entries.append(Entry(path, home, node.start_byte, node.end_byte, text, Shape.PLAIN, self.part))
        elif node.type in _MAPPINGS:
            self._mapping(node, path)
        elif node.type in _SEQUENCES:
            self._sequence(node, path)
        elif node.type in _SCALARS:
            self._scalar(node, path, home, tag, anchor)

    def _wrapped(self, node: Node, path: tuple[str, ...], home: int) -> None:
        tag = anchor = ""
        empty = True
        for child in node.children:
            if child.type == "tag":
                tag = text_of(child)
            elif child.type == "anchor":
                anchor = text_of(child)[1:]
            elif child.type != "comment":
                empty = False
                self.node(child, path, home, tag, anchor)
        if empty:
            self._empty(node, path, home)

    def _mapping(self, node: Node, path: tuple[str, ...]) -> None:
        home = self.homes.open()
        for pair in node.children:
            if pair.type not in {"block_mapping_pair", "flow_pair"}:
                continue
            key, value = pair.child_by_field_name("key"), pair.child_by_field_name("value")
            name = _key(key) if key is not None else ""
            self.homes.keys[home].append(name)
            if value is not None:
                self.node(value, (*path, name), home)
            else:
                self._empty(pair, (*path, name), home)

    def _sequence(self, node: Node, path: tuple[str, ...]) -> None:
        home, number = self.homes.open(), 0
        for item in node.children:
            if item.type in {"-", "[", "]", ",", "comment"}:
                continue
            where = (*path, str(number))
            number += 1
            if item.type == "block_sequence_item":
                for child in item.children:
                    if child.type not in {"-", "comment"}:
                        self.node(child, where, home)
            elif item.type == "flow_pair":
                self._mapping(node, where)
            else:
                self.node(item, where, home)

    def _scalar(self, node: Node, path: tuple[str, ...], home: int, tag: str, anchor: str) -> None:
        shape = _SCALARS[node.type]
        quotes = 1 if shape is Shape.TEXT else 0
        start, end = node.start_byte + quotes, node.end_byte - quotes
        text = text_of(node)[quotes : len(text_of(node)) - quotes]
        if shape is Shape.ALIAS:
            anchor = text[1:]
        self.entries.append(Entry(path, home, start, end, text, shape, self.part, anchor, tag))

    def _empty(self, node: Node, path: tuple[str, ...], home: int) -> None:
        self.entries.append(Entry(path, home, node.end_byte, node.end_byte, "", Shape.EMPTY, self.part))


def _key(node: Node) -> str:
    text = text_of(node).strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
