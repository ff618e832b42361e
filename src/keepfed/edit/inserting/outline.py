"""The outline of a block YAML text: keys with their depth, as far as lines tell it; good for templates that no parser reads.

    spec:                     depth 0
      containers:             depth 2
        - name: train         depth 6, item 4: the key stands behind the dash
          image: x            depth 6

What is inside braces, in folded texts or behind `|` is not taken apart: whoever inserts beside a key needs its line and its depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_KEY = re.compile(r"([ ]*)((?:-[ ]+)*)([\"']?)([\w./$-]+)\3:(?:[ \t]+([^#\r\n].*?))?[ \t]*(?:[ \t]#.*)?$")
_ITEM = re.compile(r"([ ]*)(-[ ]+)([^#\r\n].*)$")
_BLOCK = re.compile(r"[|>][+-]?\d*[+-]?$")


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    line: int
    """From 1."""
    depth: int
    """The column at which it begins, from 0."""
    item: int | None
    """The column of the dash that stands before it on its line."""
    name: str
    """Without quotes; empty for an item that is no key: a word, or something in braces."""
    value: str
    """What follows it on its line, without a remark; empty where its value stands below."""


def outline(lines: list[str]) -> list[Key]:
    """The keys of a text in its order."""
    return list(_keys(lines))


def children(keys: list[Key], parent: Key | None) -> list[Key]:
    """The keys directly below one, items of a list included; of the whole text for None, which ends at the first `---`."""
    inner = below(keys, parent)
    depth = min((key.depth for key in inner), default=0)
    return [key for key in inner if key.depth == depth]


def below(keys: list[Key], parent: Key | None) -> list[Key]:
    """Everything below a key. A list may begin at the very depth of its key (YAML 1.2, 8.2.1)."""
    if parent is None:
        return keys
    found = []
    for key in keys[keys.index(parent) + 1 :]:
        starts = key.depth if key.item is None else key.item
        if starts < parent.depth or (starts == parent.depth and key.item is None):
            break
        found.append(key)
    return found


def items(keys: list[Key], parent: Key) -> list[list[Key]]:
    """The items of the list below a key, each as its own keys."""
    inner = below(keys, parent)
    dash = min((key.item for key in inner if key.item is not None), default=None)
    groups: list[list[Key]] = []
    for key in inner:
        if key.item == dash and dash is not None:
            groups.append([])
        if groups:
            groups[-1].append(key)
    return groups


def _keys(lines: list[str]) -> Iterator[Key]:
    inside: int | None = None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip(" "))
        if inside is not None and (not line.strip() or indent > inside):
            continue
        inside = None
        found = _KEY.match(line) if not line.lstrip().startswith("#") else None
        plain = _ITEM.match(line) if not found else None
        if plain and not line.lstrip().startswith("#"):
            yield Key(number, len(plain[1]) + len(plain[2]), len(plain[1]), "", plain[3].strip())
        if not found:
            continue
        value = found[5] or ""
        depth = len(found[1]) + len(found[2])
        if _BLOCK.search(value):
            inside = depth
        yield Key(number, depth, len(found[1]) if found[2] else None, found[4], value)
