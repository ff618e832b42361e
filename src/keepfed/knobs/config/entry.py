"""What a configuration file says, whatever its syntax: scalar values, each with the keys that lead to it.

JSON, YAML, TOML and INI differ in how a value is found, and not in what it means there: `data.num_workers` is the loader's in all
of them. So the readers of syntax end here, and one judge (`config_sites`) reads what they hand over.

    text ──json_config│yaml_tree│yaml_lines│toml_config│ini_config──→ Document of entries ──config_sites──→ KnobSite
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from keepfed.knobs.site import Form
from keepfed.knobs.source import Source

MAX_DEPTH = 200
"""How deep a document may be nested. No configuration is; a file of a million brackets must not exhaust the stack."""


class Shape(StrEnum):
    """How a value is written."""

    PLAIN = "plain"
    """Without quotes: a number, true, null, a bare word."""
    TEXT = "text"
    """Between quotes."""
    BLOCK = "block"
    """YAML's `|` and `>`: lines of text."""
    ALIAS = "alias"
    """YAML's `*name`: the value of an anchor."""
    CODE = "code"
    """An expression of Jsonnet."""
    EMPTY = "empty"
    """Nothing behind the key, which is YAML's and INI's null."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One scalar value."""

    path: tuple[str, ...]
    """The keys and item numbers that lead to it, outermost first."""
    home: int
    """Number of the mapping or list that it stands in; two entries with one home and one key are duplicates."""
    start: int
    """Its first byte in the source's `utf8`, without quote."""
    end: int
    """The byte behind it."""
    text: str
    """What stands there."""
    shape: Shape
    """How."""
    part: int = 0
    """Which document of the file, for YAML's `---`."""
    anchor: str = ""
    """The name that it defines (`&name`), or for an alias stands for."""
    tag: str = ""
    """YAML's `!ref` and the like."""

    @property
    def key(self) -> str:
        """The last key of its path."""
        return self.path[-1] if self.path else ""

    @property
    def quoted(self) -> bool:
        """Whether quotes stand round it."""
        return self.shape is Shape.TEXT


@dataclass(slots=True)
class Homes:
    """Numbers for mappings and lists, and the keys of each; filled while a document is read."""

    keys: list[list[str]] = field(default_factory=list)
    """The keys of each mapping, in the order of the file; none for a list."""

    def open(self) -> int:
        """The number of a new mapping or list."""
        self.keys.append([])
        return len(self.keys) - 1


@dataclass(frozen=True)
class Document:
    """All values of a file."""

    source: Source
    """The file."""
    form: Form
    """Its syntax."""
    entries: list[Entry]
    """In the order of the file."""
    homes: Homes
    """The mappings that they stand in."""

    @cached_property
    def _by_place(self) -> dict[tuple[int, tuple[str, ...]], Entry]:
        return {(entry.part, entry.path): entry for entry in self.entries}

    @cached_property
    def _by_home(self) -> dict[int, list[Entry]]:
        found: dict[int, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.home, []).append(entry)
        return found

    def at(self, part: int, path: tuple[str, ...]) -> Entry | None:
        """The value at a path; of duplicates the last, as loaders have it."""
        return self._by_place.get((part, path))

    def beside(self, entry: Entry) -> list[Entry]:
        """The scalar values of the same mapping or list, this one included, in the order of the file."""
        return self._by_home[entry.home]

    def sibling(self, entry: Entry, key: str) -> str:
        """The text of another key of the same mapping, or nothing."""
        return next((other.text for other in self.beside(entry) if other.key == key), "")

    def keys_beside(self, entry: Entry) -> list[str]:
        """The keys of the mapping that it stands in, those of nested mappings included."""
        return self.homes.keys[entry.home]
