from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.source import Source


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "gb18030", "latin-1"])
def test_spans_count_the_bytes_on_disk_in_every_encoding(encoding: str) -> None:
    text = "# 工作进程 😀\r\nnum_workers = 4\r\n" if encoding != "latin-1" else "# Prüfung ÿþ\r\nnum_workers = 4\r\n"
    data = codecs.BOM_UTF16_BE + text.encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)
    source = Source.of("a.py", data)
    assert source is not None
    start = source.utf8.index(b"4")
    span = source.span(start, start + 1)
    assert data[span.start : span.end] == source.encoded("4")
    assert source.place(start) == (2, 15)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_keeps_its_lines_and_places(text: str) -> None:
    source = Source.of("a", text.encode())
    assert source is not None
    assert source.text == text.removeprefix("\ufeff")
    for at, character in enumerate(source.text):
        offset = len(source.text[:at].encode())
        line, column = source.place(offset)
        assert source.text.split("\n")[line - 1][column - 1 : column] == ("" if character == "\n" else character)


def test_a_lone_carriage_return_or_form_feed_ends_no_line() -> None:
    source = Source.of("a", b"a\rb\x0cc\xe2\x80\xa8d\ne")
    assert source is not None
    assert source.place(source.utf8.index(b"e")) == (2, 1)


@pytest.mark.parametrize("data", [b"\x7fELF\0\0", codecs.BOM_UTF16_LE + b"\0\xd8\0"])
def test_what_is_no_text_is_none(data: bytes) -> None:
    assert Source.of("a", data) is None
