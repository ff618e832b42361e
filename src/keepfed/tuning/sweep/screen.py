r"""What a program draws, as pieces of text with the time at which each was drawn.

A progress bar is no line: tqdm writes "\r" and the bar and nothing behind it, keras walks back with backspaces, rich erases
the line and climbs to the one above, and every one of them colours what it writes. A reader that waits for newlines sees one
line of 100 kB when the epoch is over, and no time in it. So every control that moves the cursor ends a piece, and a piece
has the time of its first byte.

     \r  5%|▌  | 5/99 [00:01<…, 4.8it/s]  \r 10%|█  | 10/99 [00:02<…, 4.9it/s]  \n\x1b[A …
       └─────────── piece ──────────────┘   └──────────── piece ─────────────┘
"""

from __future__ import annotations

import codecs
import re

LONGEST = 1 << 14
"""Characters kept of a piece: a program may print a dump of megabytes without one newline."""

# ECMA-48: CSI ends with a byte from @ to ~, and "m" is the one that only colours; OSC (titles, links) ends with BEL or ST.
_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_MOVES = re.compile(r"(?:\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b[@-Z\\-_]|[\r\n\x08\x0b\x0c])+")
_HALF_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?$")


class Screen:
    """Takes bytes as they come, and gives pieces as they are complete."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._piece = ""
        self._piece_s = 0.0

    def take(self, data: bytes, at_s: float) -> list[tuple[float, str]]:
        """The pieces that `data`, read at `at_s`, completes. The last one waits for what follows it."""
        text = self._rest + self._decoder.decode(data)
        half = _HALF_ESCAPE.search(text)
        cut = half.start() if half is not None and len(text) - half.start() < 256 else len(text)
        text, self._rest = text[:cut], text[cut:]
        *complete, last = _MOVES.split(_COLOURS.sub("", text))
        found = []
        for part in complete:
            self._add(part, at_s)
            found += self.end()
        self._add(last, at_s)
        return found

    def end(self) -> list[tuple[float, str]]:
        """The piece that is still waiting, when nothing will follow it."""
        piece, self._piece = self._piece, ""
        return [(self._piece_s, piece)] if piece.strip() else []

    def _add(self, part: str, at_s: float) -> None:
        if not self._piece:
            self._piece_s = at_s
        if len(self._piece) < LONGEST:
            self._piece += part[: LONGEST - len(self._piece)]


def last_lines(data: bytes, count: int) -> list[str]:
    """The last lines as a terminal would have left them: of a line that was redrawn the last state, without control characters."""
    lines = []
    for line in _COLOURS.sub("", data.decode("utf-8", "replace")).splitlines():
        drawn = [part for part in _MOVES.split(line) if part.strip()]
        if drawn:
            lines.append("".join(mark for mark in drawn[-1].rstrip() if mark.isprintable() or mark == "\t"))
    return lines[-count:]
