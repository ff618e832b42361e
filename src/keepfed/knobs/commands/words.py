"""The words of a command line, with the place of each, and what stands in a value: `8`, `${N:-8}`, `$N`, `$((N / 2))`.

A shell script, a Makefile's recipe, a Dockerfile's CMD, a container's `args` and a notebook's `!` line hold the same thing: a
row of words. Their grammars differ, so each reader cuts its own file into words, and everything behind that is shared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from keepfed.knobs.site import Form, Kind


class Word(NamedTuple):
    """One word of a command, as it is written."""

    text: str
    """Without the quotes round the whole of it; quotes inside (`--workers="8"`), escapes and `$` stand as written."""
    start: int
    """Offset in `Source.utf8` of the first character of `text`."""
    end: int
    """Offset behind the last one."""
    quoted: bool = False
    """Whether quotes stand round the whole word."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in one value."""

    start: int
    """Offset in `Source.utf8` of what an edit would replace, or of the whole value where it would replace nothing."""
    end: int
    """Offset behind it."""
    kind: Kind
    """Literal, reference or expression."""
    quoted: bool
    """Whether quotes stand directly round that span."""
    refers_to: str = ""
    """The variable that the value comes from; of a literal, the one that would be taken if it were set: `${N:-8}`."""


_QUOTES = (r"\"", r"\'", '"', "'")
_NUMBER = r"[+-]?\d+"
_SWITCH = r"(?i:true|false|yes|no|on|off|[01])"
_SIZE = r"(?i:\d+(?:\.\d+)?\s?(?:b|[kmgt](?:i?b|i)?)?)"
# What a count may be called instead of being one.
_NO_NUMBER = r"(?:auto|max|none|None|null)"
_LITERALS = {
    "pin_memory": re.compile(_SWITCH),
    "persistent_workers": re.compile(_SWITCH),
    "shm_size": re.compile(_SIZE),
}
_COUNT = re.compile(f"{_NUMBER}|{_NO_NUMBER}")
_FALLBACK = re.compile(r"\$\{(\w+):?[-=](.*)\}", re.DOTALL)
_LIST = re.compile(r"\$[@*]|\$\{\w+\[[@*]\]\}|\$\{[@*].*\}")
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+(?:\[[^\]@*]+\])?)\}|%(\w+)%|\$env:(\w+)|\$\{env:(\w+)\}")
_MAKE_VARIABLE = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\$\$(\w+)|\$\$\{(\w+)\}")
_TEMPLATE = re.compile(r"\{\{-?\s*(.+?)\s*-?\}\}|<([\w -]+)>|\{(\w+)\}|@(\w+)@")
_COMPUTED = re.compile(r"\$\(|`|\$\{|\$\w|%\w+%|\{\{")


def unquoted(word: Word) -> Word:
    """The word without quotes round it, if it has some; escaped ones, as in a string inside a string, count as quotes."""
    for quote in _QUOTES:
        size = len(quote)
        if len(word.text) >= 2 * size and word.text.startswith(quote) and word.text.endswith(quote):
            inner = word.text[size:-size]
            if not re.search(rf"(?<!\\){re.escape(quote)}", inner):
                return Word(inner, word.start + size, word.end - size, quoted=True)
    return word


def behind(word: Word, characters: int) -> Word:
    """The rest of a word, behind so many of its characters, without quotes round it."""
    rest = word.text[characters:]
    start = word.end - len(rest.encode("utf-8", "surrogatepass"))
    return unquoted(Word(rest, start, word.end, word.quoted and characters == 0))


def standing(value: Word, knob: str, form: Form) -> Standing | None:
    """What stands in a value of this setting, or None where it is none: a list, an address, another option."""
    value = unquoted(value)
    text = value.text
    literal = _LITERALS.get(knob, _COUNT)
    if literal.fullmatch(text):
        return Standing(value.start, value.end, Kind.LITERAL, value.quoted)
    if not text or _LIST.fullmatch(text):
        return None
    if found := _FALLBACK.fullmatch(text):
        return _fallback(value, found, knob, form)
    patterns = (_MAKE_VARIABLE, _VARIABLE) if form is Form.MAKEFILE else (_VARIABLE, _TEMPLATE)
    for pattern in patterns:
        if reference := pattern.fullmatch(text):
            name = next(group for group in reference.groups() if group)
            return Standing(value.start, value.end, Kind.REFERENCE, value.quoted, refers_to=name)
    if _COMPUTED.search(text):
        return Standing(value.start, value.end, Kind.EXPRESSION, value.quoted)
    return None


def _fallback(value: Word, found: re.Match[str], knob: str, form: Form) -> Standing | None:
    before = len(value.text[: found.start(2)].encode("utf-8", "surrogatepass"))
    behind_it = len(value.text[found.end(2) :].encode("utf-8", "surrogatepass"))
    inner = standing(Word(found[2], value.start + before, value.end - behind_it), knob, form)
    if inner is None or inner.kind is not Kind.LITERAL:
        # `${N:-$(nproc)}`, `${N:-}`: nothing in it is a value of its own.
        kind = inner.kind if inner else Kind.REFERENCE
        return Standing(value.start, value.end, kind, value.quoted, refers_to=found[1])
    return Standing(inner.start, inner.end, Kind.LITERAL, inner.quoted, refers_to=found[1])
