"""Which lines of a file can matter, found by one search over its bytes, so that the walk leaves out everything else.

A training script has a few lines about its loader among hundreds about its model. A statement without any of the words is
not looked at: that makes a scan of thousands of files as fast as their parsing.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from keepfed.knobs.spelling import spelled

_WORDS = re.compile(
    rb"(?i)worker|threads|_thread\b|n_?cpu|num_cpu|pin_?mem|pin-mem|prefetch|shm|cpus_per_task|reader_num|num_readers"
    rb"|DataLoader\(|\bnw\b|['\"]-j['\"]|\bn_?jobs\b|num_procs"
)
_TAKEN_FROM = re.compile(
    rb"(?i)(?<!\w)(?!persistent|worker_)\w*(?:worker|threads|n_?cpu)\w*[\"']?\]?[ \t]*[=:][ \t]*(?:int\(|str\()?[ \t]*((?:[A-Za-z_]\w*[ \t]*\.[ \t]*)*[A-Za-z_]\w*)"
)
_NOT_NAMES = frozenset(
    b"None True False int str float bool min max len self cls args opt cfg config os lambda not if else Optional Union Any".split()
)


def may_matter(utf8: bytes) -> bool:
    """Whether any line can."""
    return _WORDS.search(utf8) is not None


class Interest:
    """The lines of one file that hold a word of the settings, or of a name that a setting is taken from."""

    def __init__(self, utf8: bytes, line_starts: list[int]) -> None:
        self.hops = _hops(utf8)
        found = {bisect_left(line_starts, match.start() + 1) for match in _WORDS.finditer(utf8)}
        if self.hops:
            words = b"|".join(re.escape(word.encode()) for word in sorted(self.hops))
            found |= {
                bisect_left(line_starts, match.start() + 1) for match in re.finditer(rb"\b(?:" + words + rb")\b", utf8)
            }
        self._lines = sorted(found)

    def touches(self, first: int, last: int) -> bool:
        """Whether one of the lines [first, last] (from 1) matters."""
        at = bisect_left(self._lines, first)
        return at < len(self._lines) and self._lines[at] <= last


def _hops(utf8: bytes) -> frozenset[str]:
    """Names that say nothing by themselves, and from which a setting takes its value: `n` in `num_workers=n`."""
    found = set()
    for match in _TAKEN_FROM.finditer(utf8):
        word = match[1].rpartition(b".")[2].strip()
        if word not in _NOT_NAMES:
            name = word.decode()
            if spelled(name) is None:
                found.add(name)
    return frozenset(found)
