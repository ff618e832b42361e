"""Whether a file can hold a setting at all, asked of its bytes before anything is parsed.

Of a project's files four in five hold none, and parsing is what costs. Searching for a few short words is a pass of the C
library over the bytes, a thousand times cheaper (one pattern with all of them is twenty times slower than each by itself: the
engine has no fast way through bytes for alternatives). The words are the least that any spelling has in it (spelling.py); a
test holds the two together.
"""

from __future__ import annotations

import codecs
import re

_WORDS = tuple(
    (
        b"worker thread prefetch shm reader sbatch srun salloc dataloader( "
        b"n_cpu n-cpu ncpu num_cpu num-cpu numcpu n_jobs n-jobs njobs num_proc num-proc numproc"
    ).split()
)
# DataLoader(data, 32, True, None, None, 6) names no setting, and sets one.
# Too short, or too common, to be looked for alone: what has to stand around them.
_SHORT = (
    (b"mem", re.compile(rb"pin[\w-]{0,40}mem|mem[\w-]{0,40}pin|shared[\w-]{0,40}mem|mem[\w-]{0,40}shared")),
    (b"limit", re.compile(rb"size[_-]?limit|limit[_-]?size")),
    (b"cpus", re.compile(rb"cpus[\w-]{0,40}task|task[\w-]{0,40}cpus")),
    (b"nw", re.compile(rb"(?<![\w-])nw\b")),
    (b"-j", re.compile(rb"['\"\s]-j[ =\d'\"]")),
)
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def mentions_a_setting(data: bytes) -> bool:
    """Whether any spelling of a setting can stand in these bytes, in whatever encoding."""
    for mark, encoding in _WIDE:
        if data.startswith(mark):
            data = data.decode(encoding, "replace").encode("utf-8", "replace")
            break
    low = data.lower()
    if any(word in low for word in _WORDS):
        return True
    return any(word in low and around.search(low) for word, around in _SHORT)
