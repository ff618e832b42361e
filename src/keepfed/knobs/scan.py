"""All sites behind some paths: which files are read, and what became of the others.

    walk(paths) ──Bytes──→ mentions_a_setting ──→ content_reason ──→ read ──→ sites
         │                        └ no: nothing         │              │       all of them ──decided──→ which one counts
         │                                              │              └ fails: said, the lines are read instead
         └──Skipped─────────────────────────────────────┴────────────────→ skipped

Where the bytes come from is not this file's business: `scan_files` takes them from a container's archive as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keepfed.knobs.exclusions import content_reason, document_or_log
from keepfed.knobs.mentions import mentions_a_setting
from keepfed.knobs.precedence.decided import decided
from keepfed.knobs.precedence.files import Files
from keepfed.knobs.reading import read_or_lines, reader_for
from keepfed.knobs.site import KnobSite, Skipped
from keepfed.knobs.source import Source
from keepfed.knobs.walk import Bytes, Passed, walk


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found."""

    sites: tuple[KnobSite, ...]
    """By file, in the order of each, with what all of them together tell: which one counts."""
    skipped: tuple[Skipped, ...]
    """What was left out or not read well: folders once, files where they could have told something."""
    files: Mapping[str, Source] = field(default_factory=dict)
    """Every file that was met, by name, as far as its text was kept."""


def scan_paths(paths: Iterable[str]) -> Scanned:
    """Every site in these files and folders. Raises UnreachableError for a path that cannot be read."""
    return scan_files(walk(paths))


def scan_files(found: Iterable[Bytes | Passed | Skipped]) -> Scanned:
    """Every site in these files; those that were left out before go through."""
    sites: list[KnobSite] = []
    skipped: list[Skipped] = []
    files = Files()
    for one in found:
        if isinstance(one, Skipped):
            skipped.append(one)
            continue
        files.add(one.name, one.data if isinstance(one, Bytes) else b"")
        source, reason = _source(one) if isinstance(one, Bytes) else (None, "")
        if source is not None:
            files.put(source)
            read, reason = read_or_lines(source)
            sites += read
        if reason:
            skipped.append(Skipped(one.name, reason))
    return Scanned(tuple(decided(sites, files)), tuple(skipped), files)


def _source(file: Bytes) -> tuple[Source | None, str]:
    """The text of a file that is to be read; otherwise why not, where that is worth a word."""
    known = reader_for(file.name, b"") is not None or file.named
    reason = document_or_log(file.name)
    if reason:
        return None, reason if file.named else ""
    if not mentions_a_setting(file.data):
        return None, "knobs.skipped_binary" if known and b"\0" in file.data[:4096] and _no_text(file) else ""
    source = Source.of(file.name, file.data)
    if source is None:
        return None, "knobs.skipped_binary" if known else ""
    if not known and reader_for(file.name, source.utf8[:4096]) is None:
        return None, ""
    reason = content_reason(file.name, source.utf8)
    return (None, reason) if reason else (source, "")


def _no_text(file: Bytes) -> bool:
    return Source.of(file.name, file.data) is None
