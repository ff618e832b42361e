"""Whether a file can hold a setting at all, asked of its bytes before anything is parsed.

Of a project's files four in five hold none, and parsing is what costs. Searching for a few short words is a pass of the C
library over the bytes, a thousand times cheaper. The words are the least that any spelling has in it (spelling.py): a test
holds the two together.
"""

from __future__ import annotations

import codecs
import re

# Of words that stand in many files without being part of a setting's name (`.cpu()`, `thread`), as much as decides.
_WORDS = (b"worker", b"prefetch", b"shm", b"sizelimit", b"thread", b"cpus-per-task", b"cpus_per_task")
_PATTERNS = re.compile(
    rb"pin[_-]?mem|n(?:um)?[_-]?(?:of[_-]?)?(?:cpus?|procs|jobs)\b|cpu[_-]num|cpuspertask|persist[\w-]*load|reader|"
    rb"shared[_-]?mem|(?<![\w-])nw\b|['\"\s]-[jc][ =\d'\"]|#sbatch"
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
    return any(word in low for word in _WORDS) or bool(_PATTERNS.search(low))
