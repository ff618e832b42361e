"""A file inside a file: the Python or YAML of a here-document, read by its own reader, with its places in the outer file."""

from __future__ import annotations

from dataclasses import replace

from keepfed.knobs import reading
from keepfed.knobs.site import KnobSite, Span
from keepfed.knobs.source import Source


def sites_within(source: Source, start: int, end: int, name: str) -> list[KnobSite]:
    """The sites in a stretch of `source.utf8`, read as a file of that name would be; their places are those of `source`."""
    span = source.span(start, end)
    part = Source(name, source.data[span.start : span.end], source.encoding, 0, source.utf8[start:end])
    return [_moved(source, site, start, span.start) for site in reading.read(part)]


def _moved(source: Source, site: KnobSite, start: int, disk_start: int) -> KnobSite:
    line, column = source.place(start)
    return replace(
        site,
        file=source.name,
        line=site.line + line - 1,
        column=site.column + (column - 1 if site.line == 1 else 0),
        span=_shifted(site.span, disk_start),
        target=_shifted(site.target, disk_start) if site.target else None,
        counts_at=_in_outer_file(site, source.name, line),
    )


def _in_outer_file(site: KnobSite, name: str, first_line: int) -> str:
    """`FILE:LINE` of the place that counts instead, as the outer file has it."""
    inner, _, line = site.counts_at.rpartition(":")
    return f"{name}:{int(line) + first_line - 1}" if inner and inner == site.file else site.counts_at


def _shifted(span: Span, by: int) -> Span:
    return Span(span.start + by, span.end + by)
