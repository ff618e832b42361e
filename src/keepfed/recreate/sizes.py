"""Bytes as engines and people write them: in the largest unit that keeps them exact."""

from __future__ import annotations

_UNITS = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))


def size_word(size: int) -> str:
    """A size as every engine takes it.

    >>> size_word(2 << 30), size_word(1536 << 20), size_word(65_536_000), size_word(-1)
    ('2g', '1536m', '64000k', '-1')
    """
    for unit, scale in _UNITS:
        if size > 0 and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)
