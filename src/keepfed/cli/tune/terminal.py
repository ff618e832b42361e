"""Where keepfed tune speaks: whole lines on stderr, between the lines of a program that shares the terminal."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from rich.console import Console, RenderableType
from rich.text import Text

WIDTH = 80
"""Wider terminals do not make wider tables: the eye has to travel from a name to its numbers."""


def console(file: IO[str] | None = None) -> Console:
    """Where everything here is printed: stderr unless told otherwise, at most 80 columns, colour as the terminal allows."""
    made = Console(file=file or sys.stderr, highlight=False, markup=False, emoji=False)
    made.width = min(made.width, WIDTH)
    return made


def stdout_console() -> Console:
    """For what is asked of keepfed itself and not of a program: on stdout, so that it can be piped."""
    return console(sys.stdout)


def line(out: Console, text: str, *, wrap: bool = False) -> None:
    """One line of ours between the program's, marked as ours.

    Unless `wrap`, a long one is left to the terminal: people copy from it, and tools look for lines.
    """
    said = Text.assemble(("keepfed: ", "bold"), text)
    if wrap:
        show(out, said)
        return
    with suppress(OSError, ValueError):  # a closed stderr must not end somebody's training
        out.print(said, soft_wrap=True)


def show(out: Console, shown: RenderableType) -> None:
    """Print without the blanks that tables leave at the ends of lines: what is copied into an issue should be clean."""
    with out.capture() as captured:
        out.print(shown, crop=False)
    with suppress(OSError, ValueError):  # as above
        out.file.write("".join(f"{row.rstrip()}\n" for row in captured.get().splitlines()))
        out.file.flush()


def shell_line(command: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
