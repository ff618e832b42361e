r"""Which Python files the command lines of a script, Makefile, Dockerfile or compose file start.

An option of a program counts only for who starts it without saying otherwise: `python train.py --workers 8` in train.sh makes
the default in train.py a dead letter for everybody who uses train.sh. To see that, the command has to be led to the file:

    scripts/train.sh:3   torchrun --nproc_per_node 8 \        → train.py, found in scripts/ or in a folder above
    scripts/train.sh:4       train.py --workers 8

Commands are looked for in the text, and not in a shell's syntax tree, since they stand in YAML lists, Makefiles, batch files and
Dockerfiles as well.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from keepfed.knobs.source import Source

_LINE_JOINED = re.compile(r"(?:[^\n]*[\\^`][ \t]*\r?\n)*[^\n]*(?:\n|\Z)")
_COMMENT = re.compile(r"(?m)^[ \t]*(?:#|::|rem\b)[^\n]*", re.IGNORECASE)
_STARTED = re.compile(r"""(?<![\w/.-])(?:[\w.$\{\}~-]*[/\\])*[\w.-]+\.py(?![\w.])|(?<=\s)-m[\s"',]+([A-Za-z_][\w.]*)""")
# Modules that start another file, which follows them.
_LAUNCHERS = re.compile(
    r"(?:torch\.distributed|accelerate|deepspeed|pdb|cProfile|coverage|debugpy|keepfed|torch\.utils)\b"
)
# A file that is written, linted or measured is not started.
_OTHER_USE = re.compile(
    r"(?:^|[\s;&|@])(?:COPY|ADD|cp|mv|rm|cat|vim?|nano|chmod|ruff|black|isort|flake8|mypy|pylint|pytest)\s[^;&|]*$"
)
_STARTER = re.compile(
    r"(?i)\b(?:python[\d.]*(?:w|\.exe)?|pypy3?|torchrun|accelerate|deepspeed|horovodrun|mpirun|ipython|colossalai|bash|uv|poetry)\b"
    r"|\$\{?\(?\w*py\w*|^[ \t@]*(?:exec[ \t]+)?\.{0,2}/"
)
# Nothing before it on its line: the program itself, or a word of its own in a YAML list of words.
_ALONE = re.compile(r"\s*(?:-\s+)?[\"']?")


@dataclass(frozen=True, slots=True)
class Launch:
    """One command that starts a Python file."""

    file: str
    """Where the command stands."""
    line: int
    """Its first line."""
    last_line: int
    """Its last line."""
    script: str
    """What is started, as it is written: a path, or a module with dots."""
    words: str
    """The command from there on, as text."""


def launches(source: Source) -> list[Launch]:
    """Every command of a file that starts a Python file, in its order."""
    text = _COMMENT.sub(lambda comment: " " * len(comment[0]), source.text)
    found: list[Launch] = []
    line = 1
    for joined in _LINE_JOINED.finditer(text):
        command = joined[0]
        found.extend(_in_command(source.name, line, command))
        line += command.count("\n")
    return found


def _in_command(file: str, line: int, command: str) -> Iterable[Launch]:
    if ".py" not in command and " -m" not in command:
        return
    matches = [match for match in _STARTED.finditer(command) if not (match[1] and _LAUNCHERS.match(match[1]))]
    for at, match in enumerate(matches):
        before = command[: match.start()]
        if _OTHER_USE.search(before) or not (_STARTER.search(before) or _ALONE.fullmatch(before)):
            continue
        if at and not re.search(r"[;&|\n]", command[matches[at - 1].end() : match.start()]):
            continue  # an argument of the one before
        end = matches[at + 1].start() if at + 1 < len(matches) else len(command)
        first = line + before.count("\n")
        words = command[match.end() : end]
        last = first + words.rstrip().count("\n")
        yield Launch(file, line if at == 0 else first, last, match[1] or match[0].replace("\\", "/"), words)


def script_path(launch: Launch, known: Container[str], by_base: Mapping[str, Sequence[str]]) -> str:
    """The file among those that are known that a command starts; "" where it is not there or several could be meant.

    A relative path is looked for where the script lies and then upwards, since many a script is started from the project's
    folder; a path behind a variable (`$ROOT/train.py`) by its known end, among those with the same last part (`by_base`).
    """
    wanted = launch.script
    if not wanted.endswith(".py"):
        wanted = wanted.replace(".", "/")
        options = [f"{wanted}.py", f"{wanted}/__main__.py", f"src/{wanted}.py"]
    else:
        options = [re.sub(r"^(?:\$\{?\w+\}?|~|\.)/", "", wanted)]
    folder = PurePosixPath(launch.file).parent
    for above in (folder, *folder.parents):
        for option in options:
            path = plain_path(above / option)
            if path in known:
                return path
    ends = [
        name
        for option in options
        for name in by_base.get(option.rpartition("/")[2], ())
        if f"/{name}".endswith(f"/{option.lstrip('./')}")
    ]
    if ends:
        return ends[0] if len(ends) == 1 else ""
    # The path begins above what was scanned, or in a container: /workspace/project/train.py.
    tails = [
        name
        for option in options
        for name in by_base.get(option.rpartition("/")[2], ())
        if f"/{option}".endswith(f"/{name}")
    ]
    return max(tails, key=len, default="")


def plain_path(path: PurePosixPath) -> str:
    """The path without `.` and `..`, as far as that can be done without a file system."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        else:
            parts.append(part)
    return str(PurePosixPath(*parts)) if parts else "."
