"""Sites of a configuration file as tests want to see them, checked against its bytes on the way."""

from __future__ import annotations

from collections.abc import Callable

from keepfed.knobs.reading import read
from keepfed.knobs.site import Kind, KnobSite
from keepfed.knobs.source import Source


def sites(name: str, text: str | bytes) -> list[KnobSite]:
    """Every site of a file of that name; the bytes of each span are its value."""
    source = Source.of(name, text.encode() if isinstance(text, str) else text)
    assert source is not None
    found = read(source)
    for site in found:
        assert source.data[site.span.start : site.span.end].decode(source.encoding) == site.value
        line = source.text.split("\n")[site.line - 1]
        assert line[site.column - 1 :].startswith(site.value.split("\n")[0])
    return found


def literals(name: str, text: str | bytes) -> list[tuple[str, str]]:
    """Spelling and value of what may simply be replaced."""
    return [(site.spelling, site.value) for site in sites(name, text) if site.kind is Kind.LITERAL]


Encode = Callable[[str], bytes]

ENCODINGS: dict[str, Encode] = {
    "LF": lambda text: text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "no final newline": lambda text: text.rstrip("\n").encode(),
    "GBK": lambda text: text.encode("gbk"),
    "UTF-16": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
}
"""How the same text may lie on disk."""
