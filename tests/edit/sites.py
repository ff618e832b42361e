"""Sites made by hand, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keepfed.knobs.site import Form, Kind, KnobSite, Role, Span
from keepfed.knobs.source import Source


def site_in(source: Source, before: str, value: str, *, knob: str = "num_workers", **others: Any) -> KnobSite:
    """The site whose value follows the text `before` in a source."""
    at = source.utf8.index((before + value).encode()) + len(before.encode())
    span = source.span(at, at + len(value.encode()))
    line, column = source.place(at)
    site = KnobSite(
        file=source.name,
        line=line,
        column=column,
        span=span,
        knob=knob,
        spelling=others.pop("spelling", knob),
        value=value,
        kind=Kind.LITERAL,
        form=Form.PYTHON,
        role=Role.CALL,
        target=span,
    )
    return replace(site, **others)


def source_of(text: str, name: str = "train.py", encoding: str = "utf-8", mark: bytes = b"") -> Source:
    """The source of a text in an encoding."""
    found = Source.of(name, mark + text.encode(encoding))
    assert found is not None
    return found


def a_site(file: str = "train.py", line: int = 1, **others: Any) -> KnobSite:
    """A literal site that nothing is known of but what is given."""
    span = Span(line * 100, line * 100 + 1)
    site = KnobSite(
        file=file,
        line=line,
        column=1,
        span=span,
        knob="num_workers",
        spelling="num_workers",
        value="4",
        kind=Kind.LITERAL,
        form=Form.PYTHON,
        role=Role.CALL,
        target=span,
    )
    return replace(site, **others)
