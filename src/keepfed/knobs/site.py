"""One place where a setting is written, in the terms that every reader, the edits and the doors share.

A span counts bytes of the file as it lies on disk, because that is what an edit replaces: characters would be off by the first
Chinese comment, and by a byte-order mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What stands in that place."""

    LITERAL = "literal"
    """A value: `num_workers=4`."""
    EXPRESSION = "expression"
    """Something computed: `min(8, os.cpu_count())`."""
    REFERENCE = "reference"
    """A name that gets its value elsewhere: `num_workers=args.workers`."""
    RECORD = "record"
    """A printout of values that were in effect once: opt.txt. The next start overwrites it, and nothing reads it back."""
    DEAD = "dead"
    """Written, and read by nobody."""
    OVERRIDDEN = "overridden"
    """Read, and then replaced by another place that wins."""


class Form(StrEnum):
    """The syntax of that place, which decides how a new value is spelled there."""

    PYTHON = "python"
    JSON = "json"
    YAML = "yaml"
    TOML = "toml"
    INI = "ini"
    SHELL = "shell"
    MAKEFILE = "makefile"
    DOCKERFILE = "dockerfile"
    DOTENV = "dotenv"
    PRINTOUT = "printout"
    TEXT = "text"
    """No parser could read the file; the line speaks for itself."""


class Role(StrEnum):
    """What that place does for the program; who wins depends on it."""

    CALL = "call"
    """An argument of a loader: `DataLoader(num_workers=...)`."""
    OPTION = "option"
    """The default of a command line option: argparse, click, Hugging Face's field()."""
    DEFAULT = "default"
    """The default of a function, a dataclass, a class, a yacs node."""
    NAME = "name"
    """A constant or variable that a call takes its value from."""
    CONFIG = "config"
    """A key of a configuration file or of a dict of settings."""
    FLAG = "flag"
    """An option given on a command line: `--workers 8` in a shell script."""
    VARIABLE = "variable"
    """An environment or shell variable."""
    LIMIT = "limit"
    """What a container or a job is given: shm_size, cpus-per-task."""
    PRINTED = "printed"
    """A record of what was in effect."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes [start, end) of a file as it lies on disk."""

    start: int
    """The first byte."""
    end: int
    """The byte behind the last one."""


@dataclass(frozen=True, slots=True)
class Original:
    """What stood there before anybody changed it."""

    value: str
    """As it was written."""
    source: str
    """How that is known: "journal", "git", "image", "default" (the program's own), "printed" (`[default: x]`)."""


@dataclass(frozen=True, slots=True)
class InEffect:
    """What a live process works with."""

    value: str
    """As the process has it."""
    pid: int
    """The process, as the host counts it."""


@dataclass(frozen=True, slots=True)
class KnobSite:
    """One place where one setting is written."""

    file: str
    """Its path, with forward slashes, as it was reached from what was scanned."""
    line: int
    """Of the value, from 1; lines end at `\\n` and nowhere else."""
    column: int
    """Of the value, in characters from 1."""
    span: Span
    """Exactly the value: without the quotes round it, without separators and comments."""
    knob: str
    """Canonical name of the setting (`knob.KNOBS`)."""
    spelling: str
    """The name as it is written there: `--workers`, `dataloader_num_workers`, `OMP_NUM_THREADS`."""
    value: str
    """The text of the span."""
    kind: Kind
    """What stands there."""
    form: Form
    """In which syntax."""
    role: Role
    """What it does for the program."""
    quoted: bool = False
    """Whether quotes of that syntax stand round the span; an edit keeps them, and with them the type."""
    target: Span | None = None
    """What an edit may replace: the value itself where it is a literal, the one number that acts as cap or as live branch in
    an expression, None where nothing can be replaced safely."""
    refusal: str = ""
    """Why `target` is None: a key of the locales, `knobs.refuse_*`."""
    owner: str = ""
    """Whose setting it is: the call ("DataLoader"), the section or table, the service, the class or function."""
    refers_to: str = ""
    """For a reference, the name that it stands for: "args.workers"."""
    setting: str = ""
    """The name by which other places speak of the same setting: an option's dest, a key's dotted path, a variable."""
    printed_default: str = ""
    """What a printout says behind its value: `[default: 4]`."""
    wins: bool | None = None
    """Whether this is the place that counts; None where that cannot be told."""
    counts_at: str = ""
    """Where the value that counts instead of this one is written, `FILE:LINE`; for a reference, its definition."""
    original: Original | None = None
    """What stood there at first, if that is known."""
    in_effect: InEffect | None = None
    """What a live process works with, if one was looked at."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read, or not read well."""

    file: str
    """Its path."""
    reason: str
    """A key of the locales: `knobs.skipped_*`."""
