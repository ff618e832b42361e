"""Edits change their stretch of bytes, and nothing else; and lead back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.edit.replacement import Edit, EditRefused, applied, reversed_edits
from keepfed.knobs.site import Span


def edit(start: int, old: bytes, new: bytes, line: int = 1) -> Edit:
    return Edit("x", Span(start, start + len(old)), old, new, line, "num_workers", "num_workers", "4", "8")


def test_several_edits_of_one_line_hit_their_own_places() -> None:
    data = b"DataLoader(num_workers=4, prefetch_factor=2)"
    assert (
        applied(data, [edit(23, b"4", b"16"), edit(42, b"2", b"4")]) == b"DataLoader(num_workers=16, prefetch_factor=4)"
    )


def test_edits_that_overlap_are_refused() -> None:
    with pytest.raises(EditRefused, match="same place"):
        applied(b"12345", [edit(0, b"123", b"x"), edit(2, b"34", b"y")])
    with pytest.raises(EditRefused, match="same place"):
        applied(b"12345", [edit(0, b"1", b"x"), edit(0, b"1", b"y")])


def test_an_edit_of_something_else_than_it_expects_is_refused() -> None:
    with pytest.raises(EditRefused, match="no longer"):
        applied(b"12345", [edit(0, b"4", b"x")])
    with pytest.raises(EditRefused, match="no longer"):
        applied(b"12345", [edit(5, b"4", b"x")])


def test_insertions_at_one_place_keep_their_order() -> None:
    edits = [edit(1, b"", b"a"), edit(1, b"", b"bb"), edit(1, b"2", b"ccc")]
    assert applied(b"123", edits) == b"1abbccc3"
    assert applied(b"1abbccc3", reversed_edits(edits)) == b"123"


@given(st.data(), st.binary(min_size=1, max_size=60))
def test_edits_keep_all_other_bytes_and_lead_back(data: st.DataObject, content: bytes) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(content)), min_size=2, max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    edits = [edit(start, content[start:end], data.draw(st.binary(max_size=5))) for start, end in spans]
    changed = applied(content, edits)
    expected, at = b"", 0
    for one in edits:
        expected += content[at : one.span.start] + one.new
        at = one.span.end
    assert changed == expected + content[at:]
    assert applied(changed, reversed_edits(edits)) == content
