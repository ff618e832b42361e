"""Texts that mark their own settings, so that a test says what is found and, by the rest of the text, what is not.

`--workers ⟨8⟩` is a literal; `⟨$N|reference⟩` is a site of that kind. `compare` wants exactly the marked spans.
"""

from __future__ import annotations

import re

from keepfed.knobs import reading
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source

_MARK = re.compile(r"⟨(.*?)(?:\|(\w+))?⟩", re.DOTALL)


def plain(text: str) -> str:
    """The text without its marks."""
    return _MARK.sub(lambda mark: mark[1], text)


def sites_in(name: str, text: str, encoding: str = "utf-8") -> list[KnobSite]:
    """What is found in a file of that name and text."""
    source = Source.of(name, plain(text).encode(encoding))
    assert source is not None
    found = reading.read(source)
    for site in found:
        assert source.data[site.span.start : site.span.end] == source.encoded(site.value)
        assert plain(text).split("\n")[site.line - 1][site.column - 1 :].startswith(site.value.split("\n")[0])
    return found


def compare(name: str, text: str, encoding: str = "utf-8") -> list[KnobSite]:
    """Fail unless exactly the marked places are found, each with its kind; give back what was found."""
    expected = []
    for mark in _MARK.finditer(text):
        before = plain(text[: mark.start()])
        expected.append((before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1, mark[1], mark[2] or "literal"))
    found = sites_in(name, text, encoding)
    assert [(site.line, site.column, site.value, site.kind.value) for site in found] == expected
    return found
