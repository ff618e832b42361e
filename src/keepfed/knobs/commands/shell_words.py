"""Cuts a line of shell into commands and words without a grammar: for lines in which the grammar found errors.

A placeholder (`--data <your data>`), a template's braces or a quote too many make a script something that no shell would take,
and that everybody who opens it understands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepfed.knobs.commands.words import Word, unquoted

_TOKEN = re.compile(
    rb"(?:\\.|'[^'\n]*'|\"(?:\\.|[^\"\\])*\"|\$\([^()\n]*\)|\$\{[^}\n]*\}|<[\w -]+>|[^\s;|&<>()\"'\\])+", re.DOTALL
)
_ENDS_COMMAND = re.compile(rb"[;|&()<>]|(?<!\\)\n")
_LINE = re.compile(rb"(?:\\\r?\n|[^\n])*\n?")
_COMMENT_LINE = re.compile(rb"[ \t]*#")


def commands_in(text: bytes, start: int, end: int) -> Iterator[list[Word]]:
    """The commands of all lines that touch this stretch, with the lines that a backslash adds to them."""
    begin = text.rfind(b"\n", 0, start) + 1
    for line in _LINE.finditer(text, begin):
        if line.start() >= end or not line[0]:
            return
        if not _COMMENT_LINE.match(line[0]):
            yield from _commands_of_line(text, line.start(), line.end())


def words_in(text: bytes, start: int, end: int) -> list[Word]:
    """The words of a stretch, up to a comment."""
    words = []
    for token in _TOKEN.finditer(text, start, end):
        if token[0].startswith(b"#"):
            break
        if token[0].strip(b"\\\r\n"):
            words.append(unquoted(Word(token[0].decode("utf-8", "surrogatepass"), token.start(), token.end())))
    return words


def _commands_of_line(text: bytes, start: int, end: int) -> Iterator[list[Word]]:
    begin = start
    for stop in _ENDS_COMMAND.finditer(text, start, end):
        yield words_in(text, begin, stop.start())
        begin = stop.end()
    yield words_in(text, begin, end)
