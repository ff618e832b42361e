r"""JSON as it is found: with comments, leading and trailing commas, bare keys, Jsonnet's `local` and expressions.

`json.loads` refuses half of these, and a parser of strict JSON loses its place at the first `// 8 | 32 | 64`. So this scanner
knows tokens and brackets, and takes everything else as it comes: what it does not understand is an expression, up to the next
comma or bracket. YAML's flow style (`{num_workers: 4, sampler: [a, b]}`) is read by it as well.

    local workers = 4;                        → entry ("workers",)
    base { "loader"+: { num_workers: 4 } }    → entry ("loader", "num_workers")
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepfed.knobs.config.entry import MAX_DEPTH, Document, Entry, Homes, Shape
from keepfed.knobs.config.sites import may_state, sites_of
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.source import Source

_TOKEN = re.compile(
    rb"""
      (?P<comment> //[^\n]* | \#[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<text> \|\|\|.*?(?:\|\|\||\Z) | @?"(?:\\.|[^"\\])*(?:"|\Z) | @?'(?:\\.|[^'\\])*(?:'|\Z) )
    | (?P<mark> [{}\[\]():,;=] )
    | (?P<word> (?: [^\s{}\[\]():,;="'#/]+ | /(?![/*]) )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING = {b"{": b"}", b"[": b"]", b"(": b")"}


def read(source: Source) -> Iterator[KnobSite]:
    """The settings of a JSON, JSONC, JSON5 or Jsonnet file."""
    if may_state(source.utf8):
        yield from sites_of(document_of(source))


def document_of(source: Source) -> Document:
    """All values of the file; of several documents (JSON Lines) each is a part."""
    scanner = Scanner(source.utf8, Homes())
    while not scanner.at_end():
        scanner.statement()
    return Document(source, Form.JSON, scanner.entries, scanner.homes)


class Scanner:
    """Reads values from one position on, and collects entries."""

    def __init__(self, utf8: bytes, homes: Homes, *, at: int = 0, part: int = 0, flow: bool = False) -> None:
        """`flow` reads YAML's flow style: `=` and `(` are letters there, `//` no comment, and `#` only behind a space."""
        self.utf8 = utf8
        self.homes = homes
        self.entries: list[Entry] = []
        self.part = part
        self._pattern = _FLOW_TOKEN if flow else _TOKEN
        self._depth = 0
        self._locals = homes.open()
        self._next = at
        self.kind, self.token, self.start, self.ended = "", b"", at, at
        """The token that comes next, and the byte behind the last one that was taken."""
        self._advance()

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.kind == ""

    def statement(self) -> None:
        """One top-level value, or one of Jsonnet's `local name = value;`."""
        if self._local():
            return
        if self.kind == "mark" and self.token in {b"}", b"]", b")", b",", b";", b":", b"="}:
            self._advance()
            return
        self.value((), self._locals)
        self.part += 1

    def value(self, path: tuple[str, ...], home: int) -> None:
        """One value, up to the comma, semicolon or closing bracket behind it; scalars become entries."""
        first, last, count, nested = self.start, self.start, 0, False
        shape = Shape.PLAIN
        while self.kind and not (self.kind == "mark" and self.token in {b",", b";", b"}", b"]", b")"}):
            count += 1
            if nested and not path and not self._depth and self.token in {b"{", b"["}:
                break  # the next document: JSON Lines
            if self.kind == "mark" and self.token in _OPENING:
                entries, call = len(self.entries), self.token == b"("
                self.bracket(path)
                nested = nested or not call or len(self.entries) > entries
                count += call
            else:
                shape = Shape.TEXT if self.kind == "text" else Shape.PLAIN
                self._advance()
            last = self.ended
        if nested or not count:
            return
        if count > 1:
            shape = Shape.CODE
        if shape is Shape.TEXT and self.utf8[first : first + 1] in {b'"', b"'"}:
            # A text that nobody closed ends with the file.
            closed = last > first + 1 and self.utf8[last - 1] == self.utf8[first]
            first, last = first + 1, last - closed
        self._emit(path, home, first, last, shape)

    def _emit(self, path: tuple[str, ...], home: int, start: int, end: int, shape: Shape) -> None:
        text = self.utf8[start:end].decode("utf-8", "surrogatepass")
        self.entries.append(Entry(path, home, start, end, text, shape, self.part))

    def bracket(self, path: tuple[str, ...]) -> None:
        """What the bracket that comes next encloses, up to the one that closes it."""
        opening = self.token
        self._depth += 1
        self._advance()
        if self._depth > MAX_DEPTH:
            self.kind = ""
        elif opening == b"{":
            self._object(path)
        elif opening == b"[":
            self._array(path)
        else:
            self._until(b")", path)
        if self.kind == "mark" and self.token == _OPENING[opening]:
            self._advance()
        self._depth -= 1

    def _object(self, path: tuple[str, ...]) -> None:
        home = self.homes.open()
        while self.kind and self.token not in {b"}", b"]"}:
            if self._local() or self._separator():
                continue
            key = self._key()
            if not (self.kind == "mark" and self.token in {b":", b"="}):
                continue
            while self.kind == "mark" and self.token in {b":", b"="}:
                self._advance()
            self.homes.keys[home].append(key)
            self.value((*path, key), home)

    def _array(self, path: tuple[str, ...]) -> None:
        home, number = self.homes.open(), 0
        while self.kind and self.token not in {b"]", b"}"}:
            if self._separator():
                continue
            self.value((*path, str(number)), home)
            number += 1

    def _until(self, closing: bytes, path: tuple[str, ...]) -> None:
        home = self.homes.open()
        while self.kind and self.token != closing:
            if self.token in {b"}", b"]"}:
                return
            if not self._separator():
                before = len(self.entries)
                self.value(path, home)
                # The arguments of a call are no values of the key that the call is for.
                self.entries[before:] = [entry for entry in self.entries[before:] if entry.home != home]

    def _separator(self) -> bool:
        if self.kind == "mark" and self.token in {b",", b";", b":", b")", b"="}:
            self._advance()
            return True
        return False

    def _key(self) -> str:
        """Take the tokens of a key: `"name"`, `name`, Jsonnet's `name+` and `[expression]`."""
        words = []
        while self.kind and not (self.kind == "mark" and self.token in {b":", b"=", b",", b";", b"}", b"]"}):
            if self.kind == "mark" and self.token in _OPENING:
                self.bracket(())
                continue
            words.append(self.token.strip(b"@\"'") if self.kind == "text" else self.token)
            self._advance()
        return b" ".join(words).decode("utf-8", "surrogatepass").removesuffix("+").rstrip()

    def _local(self) -> bool:
        """Take `local name = value` or `local name(arguments) = value`, whose value other places speak of by that name."""
        if not (self.kind == "word" and self.token == b"local" and self._pattern is _TOKEN):
            return False
        self._advance()
        name = self._key()
        if self.kind == "mark" and self.token == b"=":
            self._advance()
            self.value((name,), self._locals)
        if self.kind == "mark" and self.token == b";":
            self._advance()
        return True

    def _advance(self) -> None:
        self.ended = self.start + len(self.token)
        while True:
            found = self._pattern.search(self.utf8, self._next)
            if found is None:
                self.kind, self.token, self.start = "", b"", len(self.utf8)
                return
            self._next = found.end()
            if found.lastgroup != "comment":
                self.kind, self.token, self.start = str(found.lastgroup), found[0], found.start()
                return


_FLOW_TOKEN = re.compile(
    rb"""
      (?P<comment> (?<=\s)\#[^\n]* )
    | (?P<text> "(?:\\.|[^"\\])*(?:"|\Z) | '(?:''|[^'])*(?:'|\Z) )
    | (?P<mark> [{}\[\],] | :(?=[\s,\[\]{}]|\Z) | (?<=["']): )
    | (?P<word> (?: [^\s{}\[\]:,"'] | :(?![\s,\[\]{}]|\Z) | (?<=[^\s{}\[\]:,])["'] )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
