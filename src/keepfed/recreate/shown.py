"""Text that others wrote, such as a container's log or the names of its files, made harmless for a terminal.

An escape sequence in a log line could otherwise retitle the window, hide lines, or paste a command.
"""

from __future__ import annotations


def harmless(text: str) -> str:
    r"""The same with every character that is not for reading replaced.

    >>> harmless("a\x1b]0;b\x07 c")
    'a?]0;b? c'
    """
    return "".join(char if char.isprintable() or char in "\t\n" else "?" for char in text)
