"""Which lines of a file can matter, found by a few searches over its bytes, so that the walk leaves out everything else.

A training script has a few lines about its loader among hundreds about its model. A statement without any of the words is
not looked at: that makes a scan of thousands of files as fast as their parsing. Words are searched one by one: the regular
expression of all of them takes twenty times as long.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from keepfed.knobs.spelling import spelled

_WORDS = tuple(
    b"worker threads n_cpu ncpu num_cpu pin_mem pin-mem pinmem prefetch shm cpus_per_task cpus-per-task reader_num num_reader dataloader( "
    b"n_jobs num_procs".split()
)
_SHORT = (
    (b"nw", re.compile(rb"\bnw\b")),
    (b"-j", re.compile(rb"['\"]-j['\"]")),
    (b"_thread", re.compile(rb"_thread\b")),
)
_TAKEN_FROM = re.compile(
    rb"(?i)(?<!\w)(?!persistent|worker_)\w*(?:worker|threads|n_?cpu)\w*[\"']?\]?[ \t]*[=:][ \t]*(?:(?:int|str|min|max)\([ \t]*|\d+,[ \t]*)*"
    rb"((?:[A-Za-z_]\w*[ \t]*\.[ \t]*)*[A-Za-z_]\w*)"
)
_OF_OTHER_THINGS = re.compile(rb"(?i)batch|gpu|device|rank|world|epoch|size|length|sample|node|debug|train|cpu_count")
_NOT_NAMES = frozenset(
    b"None True False int str float bool min max len self cls args opt cfg config os lambda not if else Optional Union Any".split()
)


class Interest:
    """The lines of one file that hold a word of the settings, or of a name that a setting is taken from."""

    def __init__(self, utf8: bytes, line_starts: list[int]) -> None:
        low = utf8.lower()
        self.with_ray = b"import ray" in low or b"from ray" in low
        found = {bisect_right(line_starts, at) for word in _WORDS for at in _places(low, word)}
        for word, around in _SHORT:
            if word in low:
                found.update(bisect_right(line_starts, match.start()) for match in around.finditer(low))
        self.hops = _hops(utf8, line_starts, found)
        for name in self.hops:
            whole = re.compile(rb"\b" + name.encode() + rb"\b")
            found.update(bisect_right(line_starts, match.start()) for match in whole.finditer(utf8))
        self._lines = sorted(found)

    @property
    def nothing(self) -> bool:
        """Whether no line matters."""
        return not self._lines

    def touches(self, first: int, last: int) -> bool:
        """Whether one of the lines [first, last] (from 1) matters."""
        at = bisect_left(self._lines, first)
        return at < len(self._lines) and self._lines[at] <= last


def _places(text: bytes, word: bytes) -> list[int]:
    """Every offset at which a word begins."""
    places, at = [], text.find(word)
    while at >= 0:
        places.append(at)
        at = text.find(word, at + len(word))
    return places


def _hops(utf8: bytes, line_starts: list[int], lines: set[int]) -> frozenset[str]:
    """Names that say nothing by themselves, and from which a setting takes its value: `n` in `num_workers=n`."""
    found = set()
    for line in lines:
        end = line_starts[line] if line < len(line_starts) else len(utf8)
        for match in _TAKEN_FROM.finditer(utf8, line_starts[line - 1], end):
            word = match[1].rpartition(b".")[2].strip()
            if word not in _NOT_NAMES and not _OF_OTHER_THINGS.search(word) and spelled(word.decode()) is None:
                found.add(word.decode())
    return frozenset(found)
