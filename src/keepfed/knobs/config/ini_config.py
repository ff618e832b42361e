r"""INI, .cfg, .config and .properties, and plain `key: value` lists: one setting per line, in sections or in none.

`configparser` says what a value is, but not where, and refuses half of what programs with parsers of their own read: colons for
equals signs, comments behind a section's header, keys before the first section.

    [train] # first stage
    reader_num = 8 ; not more
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepfed.knobs.config.entry import Document, Entry, Homes, Shape
from keepfed.knobs.config.sites import sites_of
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.source import Source

_LINE = re.compile(
    rb"""
    ^[ \t]* (?:
        (?P<comment> [\#;!][^\n]* | //[^\n]* )
      | \[ (?P<section>[^\]\n]*) \] [^\n]*
      | (?: export[ \t]+ )? (?P<quote>["']?) (?P<key>[^\s\[\#;!=:"'](?:[^\n=:"']*[^\s=:"'])?) (?P=quote) [ \t]* [=:] [ \t]*
        (?: "(?P<double>[^"\n]*)" | '(?P<single>[^'\n]*)' | (?P<plain>[^\r\n]*) )
        [^\n]*
    )
    """,
    re.VERBOSE | re.MULTILINE,
)
_PAIR = re.compile(rb"""(?P<name>[A-Za-z_]\w*)=(?P<quote>["']?)(?P<value>[^"',\s]+)(?P=quote)""")
_COMMENT_BEHIND = re.compile(rb"(?:^|(?<=[ \t]))(?:[#;]|//)")


def read(source: Source) -> Iterator[KnobSite]:
    """The settings of a file of `key = value` or `key: value` lines."""
    return sites_of(document_of(source, Form.INI))


def document_of(source: Source, form: Form) -> Document:
    """All values of the file."""
    homes, entries = Homes(), []
    section: tuple[str, ...] = ()
    known: dict[tuple[str, ...], int] = {(): homes.open()}
    for found in _LINE.finditer(source.utf8):
        if found["section"] is not None:
            section = tuple(_text(part).strip(" \"'") for part in found["section"].strip().split(b"."))
            # A section may be opened again further down; it stays one.
            known.setdefault(section, homes.open())
        elif found["key"] is not None:
            entry = _entry(found, section, known[section])
            for each in (entry, *_environment(found, entry)):
                homes.keys[each.home].append(each.key)
                entries.append(each)
    return Document(source, form, entries, homes)


def _entry(found: re.Match[bytes], section: tuple[str, ...], home: int) -> Entry:
    style = next(name for name in ("double", "single", "plain") if found[name] is not None)
    value = _COMMENT_BEHIND.split(found[style], maxsplit=1)[0].rstrip() if style == "plain" else found[style]
    start = found.start(style)
    shape = Shape.TEXT if style != "plain" else Shape.PLAIN if value else Shape.EMPTY
    return Entry((*section, _text(found["key"])), home, start, start + len(value), _text(value), shape)


def _environment(found: re.Match[bytes], entry: Entry) -> Iterator[Entry]:
    """The variables in one line of supervisord: `environment=OMP_NUM_THREADS="1",HOME="/srv"`."""
    if entry.key.lower() == "environment" and found["plain"] is not None:
        for pair in _PAIR.finditer(found.string, *found.span("plain")):
            shape = Shape.TEXT if pair["quote"] else Shape.PLAIN
            yield Entry(
                (*entry.path[:-1], _text(pair["name"])), entry.home, *pair.span("value"), _text(pair["value"]), shape
            )


def _text(utf8: bytes) -> str:
    return utf8.decode("utf-8", "surrogatepass")
