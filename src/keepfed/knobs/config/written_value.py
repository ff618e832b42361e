"""What a configured value is: a number, a name for another place, or an expression with one number that may be replaced.

Only what a setting can have is a value at all: `num_workers: "Number of worker processes"` is a description, and `{type: int}` in
a schema a type. References are those of OmegaConf (`${data.workers}`, `${oc.env:NW,4}`), of compose and of shells
(`${SHM:-8g}`), of INI files (`%(workers)s`), of HyperPyYAML (`!ref <num_workers>`), and the holes of templates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.knobs.config.entry import Shape
from keepfed.knobs.site import Kind

_NUMBER = r"[+-]?\d[\d_]*(?:\.0*)?"
_SIZE = r"\d+(?:\.\d+)?\s*(?:[kmgt]i?b?|b)?"
_YES_OR_NO = r"true|false|yes|no|on|off|y|n|[01]"
_NOTHING = r"~|null|none|nil"
_LITERALS = {
    "num_workers": re.compile(rf"(?i){_NUMBER}|{_NOTHING}|auto|max|\?\?\?"),
    "prefetch_factor": re.compile(rf"(?i){_NUMBER}|{_NOTHING}|auto|\?\?\?"),
    "pin_memory": re.compile(rf"(?i){_YES_OR_NO}|{_NOTHING}|auto|\?\?\?"),
    "persistent_workers": re.compile(rf"(?i){_YES_OR_NO}|{_NOTHING}|auto|\?\?\?"),
    "threads_env": re.compile(rf"(?i){_NUMBER}(?:,\d+)*|{_NOTHING}"),
    "shm_size": re.compile(rf"(?i){_SIZE}|{_NOTHING}"),
    "cpus_per_task": re.compile(rf"(?i){_NUMBER}|{_NOTHING}|auto|\?\?\?"),
}
_HOLE = re.compile(r"\{\{.*\}\}|\{%.*%\}|<%.*%>|@\w+@|__[A-Z]\w*__|\{[a-z_]\w*\}|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_FALLBACK = re.compile(
    r"\$\{(?:[^{}]*:)?\s*(?P<name>\w+)\s*(?::?-|,|:(?=\s*\d))\s*[\"']?(?P<value>[^\s\"'{}$]+?)[\"']?\s*\}+"
)
_NAME = re.compile(
    r"\$\{\s*([.\w\[\]/@-]+)\s*\}|\$(\w+)|\$\((\w+)\)|%\((\w+)\)s|%(\w+)%|\$\{(?:oc\.)?env:\s*(\w+)\s*\}"
)
_ANGLE = re.compile(r"<([\w.\[\]-]+)>")
_INTERPOLATES = re.compile(r"\$\{.*\}|<[\w.]+>")
_WORD = re.compile(r"[A-Za-z_$][\w$]*(?:\.\w+)*")
_COMPUTED = re.compile(
    r"[\w.]+\(.*\)|.*\b(?:cpu_count|num_cpus|nproc)\b.*|.*[\w)]\s*(?://|[*+/-])\s*[\w(].*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Written:
    """A value, understood."""

    kind: Kind
    """Literal, reference or expression; a fallback is a literal."""
    target: tuple[int, int] | None = None
    """What an edit may replace, in characters of the text."""
    refers_to: str = ""
    """For a reference, the name."""
    refusal: str = ""
    """Why there is no target."""
    fallback: bool = False
    """Whether the target is only what counts while that name has no value: `${NW:-4}`."""


def written(knob: str, text: str, shape: Shape = Shape.PLAIN, tag: str = "") -> Written | None:
    """What `text` is as a value of this setting; None where such a setting cannot have it."""
    if shape is Shape.EMPTY:
        return Written(Kind.LITERAL, refusal="knobs.refuse_empty")
    if shape is Shape.ALIAS:
        return Written(Kind.REFERENCE, refers_to=text.removeprefix("*"), refusal="knobs.refuse_reference")
    if "\n" in text or len(text) > 200:
        return None
    if tag.startswith("!ref"):
        return _angled(text)
    if _LITERALS[knob].fullmatch(text):
        return Written(Kind.LITERAL, (0, len(text)))
    return _elsewhere(knob, text, shape)


def _elsewhere(knob: str, text: str, shape: Shape) -> Written | None:
    fallback = _FALLBACK.search(text)
    if fallback and _LITERALS[knob].fullmatch(fallback["value"]):
        return Written(Kind.LITERAL, fallback.span("value"), fallback["name"], fallback=True)
    name = _NAME.fullmatch(text)
    if name:
        return Written(Kind.REFERENCE, refers_to=name[name.lastindex or 1], refusal="knobs.refuse_reference")
    if _HOLE.search(text) if "{" in text or "<%" in text else _HOLE.fullmatch(text):
        return Written(Kind.REFERENCE, refers_to=text, refusal="knobs.refuse_template")
    if _INTERPOLATES.search(text):
        return Written(Kind.EXPRESSION, refusal="knobs.refuse_expression")
    if shape is Shape.TEXT:
        return None
    if shape is Shape.CODE or _COMPUTED.fullmatch(text):
        return Written(Kind.EXPRESSION, refusal="knobs.refuse_expression")
    return None


def named(text: str) -> Written | None:
    """What a bare word of Jsonnet is: a name."""
    return Written(Kind.REFERENCE, refers_to=text, refusal="knobs.refuse_reference") if _WORD.fullmatch(text) else None


def _angled(text: str) -> Written:
    found = _ANGLE.fullmatch(text)
    if found:
        return Written(Kind.REFERENCE, refers_to=found[1], refusal="knobs.refuse_reference")
    return Written(Kind.EXPRESSION, refusal="knobs.refuse_expression")
