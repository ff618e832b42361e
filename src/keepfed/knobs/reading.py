r"""Which reader reads which file, and what comes of it: `read(source)` gives every site of one file, each of them once.

A reader is a module with `read(source) -> Iterable[KnobSite]`. It looks at nothing but the source, it gets along with broken
syntax, and where it cannot make anything of a file it raises Unreadable: the file is then read line by line.

    name, suffix, first bytes ──READERS──→ reader ──sites──→ each span once, in the order of the file
                                             │                      ↑
                                             └──Unreadable──→ text_lines

Adding a kind of file is a row in READERS. Its module is imported when the first such file comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source


class Unreadable(Exception):
    """A reader can make nothing of a file; its lines may still speak for themselves."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One kind of file."""

    target: str
    """Its reader, "module:function"."""
    names: str = r"(?!)"
    """Pattern of whole file names (small letters)."""
    suffixes: tuple[str, ...] = ()
    """How such names end, with the dot (small letters)."""
    programs: str = r"(?!)"
    """Pattern of the program in a first line `#!/usr/bin/env PROGRAM`."""
    begins: bytes = rb"(?!)"
    """Pattern that is searched in the first bytes where name and suffix say nothing."""


_LINES = "keepfed.knobs.text_lines:read"

# The first row that fits is the reader: by suffix, then by whole name, then by the program of a first line, then by content.
READERS: tuple[Reader, ...] = (
    # Python and notebooks
    Reader(
        "keepfed.knobs.python:read",
        suffixes=(".py", ".pyw", ".py3", ".pyx"),
        programs=r"python[\d.]*|pypy3?|uv",
    ),
    Reader("keepfed.knobs.notebook:read", suffixes=(".ipynb",)),
    # keys and values
    Reader(
        "keepfed.knobs.config.json_config:read",
        suffixes=(".json", ".jsonc", ".json5", ".jsonnet", ".libsonnet", ".code-workspace"),
    ),
    Reader(
        "keepfed.knobs.config.yaml_config:read",
        suffixes=(".yaml", ".yml", ".yaml.example", ".yml.example"),
        begins=rb"\A(?:%YAML\b|---\s*\n)",
    ),
    Reader("keepfed.knobs.config.toml_config:read", suffixes=(".toml",), names=r"pipfile"),
    Reader("keepfed.knobs.config.ini_config:read", suffixes=(".ini", ".cfg", ".config", ".conf", ".properties")),
    Reader(
        "keepfed.knobs.config.printout:read",
        names=r"(?:.*[_-])?(?:opts?|options|args|arguments|config|params|hparams|hyper-?params|settings)\.txt",
        begins=rb"(?mi)^[-=*#]{3,} ?(?:options|arguments|args|end) ?[-=*#]{3,}|\A\s*Namespace\(",
    ),
    # command lines
    Reader(
        "keepfed.knobs.commands.shell:read",
        suffixes=(
            ".sh",
            ".bash",
            ".zsh",
            ".ksh",
            ".fish",
            ".csh",
            ".slurm",
            ".sbatch",
            ".slm",
            ".pbs",
            ".job",
            ".sub",
            ".lsf",
            ".qsub",
            ".sge",
        ),
        programs=r"(?:ba|z|k|da|fi|c|tc|a)?sh",
        begins=rb"(?m)^#(?:SBATCH|PBS|BSUB|\$) -",
    ),
    Reader("keepfed.knobs.commands.makefile:read", names=r"(?:gnu)?makefile(?:\..*)?", suffixes=(".mk", ".mak")),
    Reader(
        "keepfed.knobs.commands.dockerfile:read",
        names=r"(?:docker|container)file(?:[._-].*)?",
        suffixes=(".dockerfile", ".containerfile"),
    ),
    Reader("keepfed.knobs.commands.dotenv:read", names=r"\.?env(?:rc)?|\.env[._-].*|.*\.env(?:\.\w+)?"),
    # templates of any of the above
    Reader("keepfed.knobs.config.template:read", suffixes=(".tpl", ".tmpl", ".j2", ".jinja", ".jinja2", ".m4", ".in")),
    # what no parser of ours reads: Windows' scripts, and rarer kinds of settings
    Reader(_LINES, names=r"justfile|procfile", suffixes=(".bat", ".cmd", ".ps1", ".psm1", ".gin", ".service")),
)

_BY_SUFFIX = {suffix: row for row in reversed(READERS) for suffix in row.suffixes}
_SHEBANG = re.compile(rb"\A#![ \t]*(\S+)(?:[ \t]+(?:-\S+[ \t]+)*(\S+))?")
_HEAD_BYTES = 4096


def reader_for(name: str, head: bytes) -> Reader | None:
    """The reader of a file, from its path and its first bytes (UTF-8), or None where it looks like no settings at all."""
    base = name.replace("\\", "/").rpartition("/")[2].lower()
    by_name = _reader_by_name(base)
    if by_name is not None or not head:
        return by_name
    program = _program(head)
    for row in READERS if program else ():
        if re.fullmatch(row.programs, program):
            return row
    if _tells_its_kind(base):
        return None
    return next((row for row in READERS if re.search(row.begins, head[:_HEAD_BYTES])), None)


def _reader_by_name(base: str) -> Reader | None:
    """Thousands of files are asked for in a scan, nearly all of which their suffix decides."""
    _, *suffixes = base.split(".")
    for count in (2, 1):
        row = _BY_SUFFIX.get("." + ".".join(suffixes[-count:])) if len(suffixes) >= count else None
        if row is not None:
            return row
    return next((row for row in READERS if re.fullmatch(row.names, base)), None)


def read(source: Source) -> list[KnobSite]:
    """Every site of one file, in its order; line by line where no reader fits, or where the one that does gives up."""
    return read_or_lines(source)[0]


def read_or_lines(source: Source) -> tuple[list[KnobSite], str]:
    """Every site of one file, and a key `knobs.skipped_*` where its lines had to be read instead, or "".

    One odd file among thousands must not end a scan: what a reader did not expect is said, and the file's lines are read.
    """
    row = reader_for(source.name, source.utf8[:_HEAD_BYTES])
    problem = ""
    try:
        return each_once(_function(row.target if row else _LINES)(source)), ""
    except (Unreadable, RecursionError):
        # Python's own parser and compiler raise RecursionError on texts that are nested too deeply.
        problem = "knobs.skipped_unparsed"
    except Exception:
        problem = "knobs.skipped_failed"
    return each_once(_function(_LINES)(source)), problem


def each_once(sites: Iterable[KnobSite]) -> list[KnobSite]:
    """Sites in the order of the file; of several with the same span, the first that a reader gave."""
    kept: dict[tuple[int, int], KnobSite] = {}
    for site in sites:
        kept.setdefault((site.span.start, site.span.end), site)
    return [kept[span] for span in sorted(kept)]


def _program(head: bytes) -> str:
    """The program that a first line `#!...` names, without its folder."""
    found = _SHEBANG.match(head)
    if not found:
        return ""
    path = found[1].rpartition(b"/")[2]
    return (found[2] or b"" if path == b"env" else path).rpartition(b"/")[2].decode("ascii", "replace")


def _tells_its_kind(base: str) -> bool:
    """Whether the suffix says that this is something else: `.md`, `.cpp`; a bare name and `.txt` say nothing."""
    stem, dot, suffix = base.rpartition(".")
    return bool(dot and stem and suffix != "txt")


@cache
def _function(target: str) -> Callable[[Source], Iterable[KnobSite]]:
    module, _, name = target.partition(":")
    function: Callable[[Source], Iterable[KnobSite]] = getattr(import_module(module), name)
    return function
