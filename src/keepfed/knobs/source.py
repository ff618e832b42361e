"""A file's text for parsers, and the way back from their offsets to the bytes on disk.

Parsers want UTF-8. Files are nearly always that; a few carry a byte-order mark, come from Windows editors as UTF-16, or hold
Chinese comments in GBK. So each file is read as UTF-8 first, and where it is something else, it is transcoded for the parsers
and every offset is led back through the encoding that the file really has.

    bytes on disk ──decode──→ text ──encode──→ utf8 (parsed)
          ↑                                       │ offset in utf8
          └── prefix of the text, re-encoded ─────┘
"""

from __future__ import annotations

import codecs
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from keepfed.knobs.site import Span

# The longer mark first: that of UTF-32-LE begins with that of UTF-16-LE.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Any bytes are latin-1, which comes last: its characters may be wrong then, its offsets are not.
_WITHOUT_MARK = ("utf-8", "gb18030", "latin-1")


@dataclass(frozen=True)
class Source:
    """One file, decoded. Make it with `Source.of`."""

    name: str
    """Its path, as sites name it."""
    data: bytes
    """As it lies on disk."""
    encoding: str
    """Python's name of the encoding, without mark."""
    mark: int
    """Bytes of the byte-order mark."""
    utf8: bytes
    """The text as parsers get it, without mark; `\\r` and everything else are kept."""

    @classmethod
    def of(cls, name: str, data: bytes) -> Source | None:
        """The decoded file, or None where it is no text."""
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                try:
                    text = data[len(mark) :].decode(encoding)
                except UnicodeDecodeError:
                    return None
                return cls(name, data, encoding, len(mark), text.encode("utf-8", "surrogatepass"))
        if b"\0" in data:
            return None
        for encoding in _WITHOUT_MARK:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            return cls(name, data, encoding, 0, data if encoding == "utf-8" else text.encode("utf-8"))
        return None

    @cached_property
    def text(self) -> str:
        """The text, with every line end as it is."""
        return self.utf8.decode("utf-8", "surrogatepass")

    @cached_property
    def _line_starts(self) -> list[int]:
        starts, at = [0], self.utf8.find(b"\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.utf8.find(b"\n", at + 1)
        return starts

    def offset(self, line: int, column: int) -> int:
        """Offset in `utf8` of a line (from 1) and a column in bytes (from 0), as `ast` has them."""
        return self._line_starts[line - 1] + column

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column in characters, both from 1, of an offset in `utf8`."""
        line = bisect_right(self._line_starts, offset)
        before = self.utf8[self._line_starts[line - 1] : offset]
        return line, len(before.decode("utf-8", "surrogatepass")) + 1

    def line_at(self, offset: int) -> bytes:
        r"""The line that this offset of `utf8` lies in, without its `\\n`."""
        start = self._line_starts[bisect_right(self._line_starts, offset) - 1]
        end = self.utf8.find(b"\n", offset)
        return self.utf8[start : end if end >= 0 else len(self.utf8)]

    def span(self, start: int, end: int) -> Span:
        """The bytes on disk of a stretch of `utf8`."""
        return Span(self._on_disk(start), self._on_disk(end))

    def encoded(self, text: str) -> bytes:
        """A new value in the file's own encoding. Raises UnicodeEncodeError where it has no such character."""
        return text.encode(self.encoding)

    def _on_disk(self, offset: int) -> int:
        if self.encoding == "utf-8":
            return self.mark + offset
        prefix = self.utf8[:offset].decode("utf-8", "surrogatepass")
        return self.mark + len(prefix.encode(self.encoding))
