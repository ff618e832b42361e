"""Figures → the page, in the reader's language and within its size.

A program may build two hundred loaders and search for hours. The page stays under LARGEST all the same: loaders get their
pictures in order of the time that their search took, until the room is used up; the others stand in the overview, which
names everything that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfed.text import language, say
from keepfed.tuning.report.headline import headline
from keepfed.tuning.report.machine import busy, machine
from keepfed.tuning.report.overview import overview
from keepfed.tuning.report.reading import printable, read_document
from keepfed.tuning.report.records import Document
from keepfed.tuning.report.section import section_of
from keepfed.tuning.report.sweep import sweep
from keepfed.tuning.report.timeline import MOST_BINS

if TYPE_CHECKING:
    from jinja2 import Environment

LARGEST = 1_000_000
"""Bytes that a page may have."""

_ROOM = 700_000
"""Bytes for the sections of loaders; overview, host and style share the rest."""


_FEW = 4
"""More loaders than this get coarser timelines, so that more of them have pictures."""


@dataclass(frozen=True, slots=True)
class About:
    """What a page says that does not stand in the document."""

    command: str
    """The measured command, as it can be typed again; empty if there is none."""

    use: str
    """The one command that uses what was found; empty if nothing was written that could be used."""

    made_at: str
    """When, as it is to be shown."""

    version: str
    """Version of keepfed."""


def page(document: Mapping[str, Any], about: About) -> str:
    """The page for a document of `tune --json`, in the language in force; shorter than LARGEST in UTF-8."""
    known = read_document(document)
    template = _environment().get_template("page.html.jinja")
    anchors = [f"loader-{place}" for place, _ in enumerate(known.loaders, 1)]
    sections, left_out = _sections(known, anchors)
    return template.render(
        lang="zh-Hans" if language() == "zh" else "en",
        headline=headline(known),
        about=About(*(printable(text) for text in (about.command, about.use, about.made_at, about.version))),
        overview=overview(known.loaders) if len(known.loaders) > 1 else None,
        links=[f"#{anchor}" for anchor in anchors[: len(sections)]],
        sections=sections,
        left_out=say("report.left_out", count=left_out, total=len(known.loaders)) if left_out else "",
        sweep=sweep(known.sweep) if known.sweep else None,
        cautions=[text for text in (busy(known.host), say("offline.alone") if known.alone else "") if text],
        host=machine(known.host),
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["say"] = say
    return made


# --------------------------------------------------------------------------------------------------------------- sections


def _sections(document: Document, anchors: list[str]) -> tuple[list[str], int]:
    """The markup of as many loaders as there is room for, and how many are left out."""
    template = _environment().get_template("section.html.jinja")
    sections: list[str] = []
    headed = len(document.loaders) == 1 and document.sweep is None
    most_bins = MOST_BINS if len(document.loaders) <= _FEW else MOST_BINS // 4
    room = _ROOM
    for loader, anchor in zip(document.loaders, anchors, strict=True):
        made = template.render(section=section_of(loader, anchor, headed=headed, most_bins=most_bins))
        room -= len(made.encode())
        if room < 0:
            break
        sections.append(made)
    return sections, len(document.loaders) - len(sections)
