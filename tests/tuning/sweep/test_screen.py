"""Bytes as a terminal gets them → pieces of text with times."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from keepfed.tuning.sweep.screen import LONGEST, Screen, last_lines


def pieces(*chunks: bytes) -> list[tuple[float, str]]:
    screen = Screen()
    found = [piece for number, chunk in enumerate(chunks) for piece in screen.take(chunk, float(number))]
    return found + screen.end()


def test_a_redrawn_line_is_many_pieces_each_with_its_own_time() -> None:
    assert pieces(b"\r 5%", b"\r10%", b"\r15%\n") == [(0.0, " 5%"), (1.0, "10%"), (2.0, "15%")]


def test_a_piece_has_the_time_of_its_first_byte() -> None:
    assert pieces(b"\rhalf", b" a bar", b"\r") == [(0.0, "half a bar")]


def test_colours_do_not_end_a_piece_and_cursor_moves_do() -> None:
    assert pieces(b"\x1b[1mEpoch\x1b[0m 1\x1b[A\x1b[2Knext\x08\x08\x08more") == [
        (0.0, "Epoch 1"), (0.0, "next"), (0.0, "more")
    ]  # fmt: skip


def test_titles_and_links_are_no_text() -> None:
    assert pieces(b"\x1b]0;train.py\x07a\n\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\\n") == [(0.0, "a"), (0.0, "b")]


def test_a_dump_without_newlines_takes_no_more_than_a_fixed_amount() -> None:
    ((_, kept),) = pieces(*[b"x" * 10_000] * 20)
    assert len(kept) == LONGEST


def test_an_escape_that_never_ends_does_not_swallow_what_follows() -> None:
    assert pieces(b"\x1b[" + b"1;" * 400, b"\nafter\n")[-1] == (1.0, "after")


@given(st.text(alphabet="a é%▌\r\n\x08\x1b[0mAK", max_size=60), st.lists(st.integers(0, 200), max_size=6))
def test_where_the_bytes_are_cut_changes_no_piece(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(edges)]
    assert [piece for _, piece in pieces(*chunks)] == [piece for _, piece in pieces(data)]


def test_last_lines_are_what_a_terminal_would_have_left() -> None:
    data = b"one\n\r 5%|  |\r\x1b[31m99%|##|\x1b[0m\ntwo \x07\x1b[2J\n\n"
    assert last_lines(data, 2) == ["99%|##|", "two "]
    assert last_lines(b"", 5) == []
