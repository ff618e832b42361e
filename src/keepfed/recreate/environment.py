"""A container's variables in files that only their owner can read: they are where its passwords are.

Three readers, three formats, and none of them holds everything:

    NAME.env      docker run --env-file   one line each, taken as it is: no quotes, no line breaks, no blanks round a value
    NAME.exports  a shell's `.`           anything; `docker run --env NAME` then takes it from the shell that runs the script
    NAME.env      docker compose          quotes and `$`; a quoted value may have several lines

Sources: docker-run(1) --env-file, podman-run(1) --env-file, compose-spec's dotenv parser (github.com/compose-spec/compose-go).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from keepfed.recreate.spec import Uncarried
from keepfed.text import say

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HARMLESS = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_LONGEST_LINE = 60_000
"""docker reads such a file with a buffer of 64 KiB for a line (Go's bufio.Scanner)."""

HEADER = "# Written by `keepfed recreate`. Holds secrets: keep it to yourself.\n"


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """The variables as `docker run` can be given them."""

    env_file: str
    """Text of the env file; empty where it would hold nothing."""
    exports: str
    """Text of a file for the shell; empty where it would hold nothing."""
    exported: tuple[str, ...]
    """Names of the variables in it."""
    uncarried: tuple[Uncarried, ...]
    """What neither of them can hold."""


def for_run(environment: tuple[str, ...]) -> RunEnvironment:
    """Each variable in the file that can hold it."""
    lines, exports, names, left = [], [], [], []
    for entry in environment:
        name, given, value = entry.partition("=")
        if not given:
            left.append(_uncarried(name, "recreate.variable_taken_away"))
        elif _fits_a_line(name, value):
            lines.append(f"{entry}\n")
        elif _SHELL_NAME.fullmatch(name) and "\0" not in value:
            exports.append(f"export {name}={shlex.quote(value)}\n")
            names.append(name)
        else:
            left.append(_uncarried(name, "recreate.variable_unspeakable"))
    return RunEnvironment(
        HEADER + "".join(lines) if lines else "",
        HEADER + "".join(exports) if exports else "",
        tuple(names),
        tuple(left),
    )


def for_compose(environment: tuple[str, ...]) -> tuple[str, tuple[Uncarried, ...]]:
    """The text of a compose env_file, and what it cannot hold."""
    lines, left = [], []
    for entry in environment:
        name, given, value = entry.partition("=")
        quoted = _quoted(value) if _FILE_NAME.fullmatch(name) else None
        if not given:
            left.append(_uncarried(name, "recreate.variable_taken_away"))
        elif quoted is None:
            left.append(_uncarried(name, "recreate.variable_unquotable"))
        else:
            lines.append(f"{name}={quoted}\n")
    return (HEADER + "".join(lines) if lines else ""), tuple(left)


def _fits_a_line(name: str, value: str) -> bool:
    """Whether an env file gives the value back as it is, whichever engine's command reads it."""
    awkward = (
        value != value.strip() or value[:1] in ("'", '"') or any(ord(char) < 32 or ord(char) == 127 for char in value)
    )
    return bool(_FILE_NAME.fullmatch(name)) and not awkward and len(value.encode(errors="replace")) < _LONGEST_LINE


def _quoted(value: str) -> str | None:
    """A value as compose reads it back; None where its readers differ.

    Single quotes keep everything but themselves, and a backslash before the last one. In double quotes `$` begins a variable, and
    how one is written out has changed between versions.
    """
    if _HARMLESS.fullmatch(value):
        return value
    if "\0" in value:
        return None
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    if "$" in value or value.endswith('"') or value.startswith('"'):
        return None
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _uncarried(name: str, key: str) -> Uncarried:
    return Uncarried(f"Config.Env.{name}", "***", say(key))
