r"""Changes of files as a unified diff that `patch -p1` accepts, byte for byte.

Lines end at `\n` and nowhere else: `patch` sees them so, and a carriage return or a form feed is part of a line like any other
byte. The diff is bytes as well: a file in GBK stays one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher

_NO_NEWLINE = b"\n\\ No newline at end of file\n"
_PLAIN = re.compile(rb"[!#-\[\]-~]+")
_CONTEXT = 3

_Code = tuple[str, int, int, int, int]


def unified(file: str, old: bytes, new: bytes) -> bytes:
    """The difference between two contents of `file`, with three lines around it; empty where there is none."""
    if old == new:
        return b""
    before, after = _lines(old), _lines(new)
    name = _portable(file)
    parts = [b"--- " + _quoted(b"a/" + name) + b"\n+++ " + _quoted(b"b/" + name) + b"\n"]
    for group in _grouped(_codes(before, after)):
        parts.extend(_hunk(group, before, after))
    return b"".join(parts)


def _codes(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[_Code]:
    """What difflib says of the lines between the first and the last that differ: a notebook of 100,000 lines is mostly equal."""
    shorter = min(len(before), len(after))
    head = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    tail = next((at for at in range(shorter - head) if before[-1 - at] != after[-1 - at]), shorter - head)
    old_end, new_end = len(before) - tail, len(after) - tail
    if head:
        yield "equal", 0, head, 0, head
    middle = SequenceMatcher(None, before[head:old_end], after[head:new_end])
    for tag, one, two, three, four in middle.get_opcodes():
        yield tag, one + head, two + head, three + head, four + head
    if tail:
        yield "equal", old_end, len(before), new_end, len(after)


def _grouped(codes: Iterable[_Code]) -> Iterator[list[_Code]]:
    """Cut where more lines are equal than two neighbouring hunks would show around their changes."""
    group: list[_Code] = []
    for tag, one, two, three, four in codes:
        if tag != "equal":
            group.append((tag, one, two, three, four))
            continue
        if group and two - one > 2 * _CONTEXT:
            yield [*group, (tag, one, one + _CONTEXT, three, three + _CONTEXT)]
            group = []
        keep = _CONTEXT if not group else two - one
        group.append((tag, max(one, two - keep), two, max(three, four - keep), four))
    if group and group[-1][0] == "equal":
        tag, one, two, three, four = group.pop()
        group.append((tag, one, min(two, one + _CONTEXT), three, min(four, three + _CONTEXT)))
    if any(code[0] != "equal" for code in group):
        yield group


def _hunk(group: Sequence[_Code], before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[bytes]:
    old, new = _range(group[0][1], group[-1][2]), _range(group[0][3], group[-1][4])
    yield f"@@ -{old} +{new} @@\n".encode()
    for tag, one, two, three, four in group:
        if tag == "equal":
            yield from (_whole(b" " + line) for line in before[one:two])
        else:
            yield from (_whole(b"-" + line) for line in before[one:two])
            yield from (_whole(b"+" + line) for line in after[three:four])


def _range(start: int, stop: int) -> str:
    """As POSIX has it (diff -u): the first line and how many; where there are none, the line before them."""
    count = stop - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"


def _lines(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    last = parts.pop()
    return [part + b"\n" for part in parts] + ([last] if last else [])


def _whole(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + _NO_NEWLINE


def _portable(file: str) -> bytes:
    """The path below the two prefixes, in the bytes that the file system knows it by."""
    return file.lstrip("/").removeprefix("./").encode("utf-8", "surrogateescape")


def _quoted(name: bytes) -> bytes:
    """As git and GNU patch quote names with spaces, quotes or anything that is not ASCII: C string, octal bytes."""
    if _PLAIN.fullmatch(name):
        return name
    escaped = b"".join(
        b"\\" + bytes([byte]) if byte in b'"\\' else bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte
        for byte in name
    )
    return b'"' + escaped + b'"'
