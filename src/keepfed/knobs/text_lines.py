r"""Settings in files that no parser here reads: Windows' scripts, templates, and what another reader gave up on.

A line has to speak for itself: a name that is a loader's, a sign that assigns, a value that such a setting can have, and an end.
Everything else is left alone: of a file that cannot be parsed it is better to miss a place than to claim one in a comment.

    set NUM_WORKERS=4          $workers = 6             "num_workers": 8,
    python train.py --num-workers %NUM_WORKERS% ^       data.num_workers=8

A line that starts a program is read as in a shell script: which program it is decides what its options mean.
Comments of all languages are blanked out first, byte for byte, so that offsets stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from keepfed.knobs.commands.command_line import sites_of_words
from keepfed.knobs.commands.program import program_like
from keepfed.knobs.commands.words import Word, unquoted
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import Spelled, spelled

_COMMENT = re.compile(
    rb"""
    "(?:[^"\\\n]|\\[^\n])*" | '(?:[^'\\\n]|\\[^\n])*'            # quoted, so no comment begins in it
    | (?P<comment>
        (?:^|(?<=\s))(?:<\#.{0,9999}?\#>|/\*.{0,9999}?\*/|<!--.{0,9999}?-->|\{\#.{0,9999}?\#\})  # PowerShell, C and Helm, XML, Jinja
      | \"\"\".{0,9999}?\"\"\" | \'\'\'.{0,9999}?\'\'\'     # docstrings; bounded, or a file of `a/*` would take for ever
      | (?:^|(?<=[\s,;{\[(]))(?:\#|//)[^\n]*              # to the end of the line
      | (?mi:^[ \t]*@?(?:rem\b|::|dnl\b|;))[^\n]*         # batch, m4, INI
      | (?mi:^[ \t]*@?(?:echo|write-\w+)\b)[^\n]*        # what is printed is no more than a remark
    )
    """,
    re.DOTALL | re.VERBOSE | re.MULTILINE,
)
_NAME = rb"""(?P<lead>(?:--?|/)(?=[A-Za-z])|\$(?i:env:|global:|script:|local:)?|)
             (?P<quote>["']?)(?P<path>(?:[A-Za-z_][\w-]*\.)*)(?P<name>[A-Za-z_][\w-]*)(?P=quote)"""
# PowerShell's true and false begin with a dollar, which stays: the value is the word behind it.
_VALUE = rb"""(?P<open>["']?)(?:\$(?=(?i:true|false|null)\b))?
              (?P<value>
                  \d[\d.]*[A-Za-z]{0,3} | -1
                | (?i:true|false|yes|no|on|off|none|null)
                | \$\{\{?[^}\n]*\}?\} | \{\{[^}\n]*\}\} | \$[A-Za-z_][\w:]* | %\w+% | @\w+@ | <%=?[^%\n]*%> | <\w+>
                | [A-Za-z_]\w*(?:\.\w+)+
              )(?P=open)"""
_SETTING = re.compile(
    rb"(?<![\w.$%{-])"
    + _NAME
    + rb"(?::[ \t]*(?:int|bool|str)[ \t]*=|[ \t]*(?::=|[=:](?!=))|(?<=[\w])[ \t]|[\"'],)[ \t]*"
    + _VALUE
    + rb"(?![\w.])",
    re.VERBOSE | re.MULTILINE,
)
# What may stand behind a value, unless it is a flag's: the end, a separator, a comment, or the next setting.
_END = re.compile(
    rb"""\s*(?:$|[,;)}\]|&>"'`^\\]|\#|//|<!--) | [ \t]+(?:--?[A-Za-z]|[\w.+-]+[ \t]*=|\S+\.py\b|/)""",
    re.VERBOSE | re.MULTILINE,
)
_NUMBER = re.compile(r"-?\d+")
_SIZE = re.compile(r"(?i)\d+(?:\.\d+)?\s*(?:[bkmgt]|[kmgt]i?b|[kmgt]i)?")
_YES_OR_NO = re.compile(r"(?i)true|false|yes|no|on|off|0|1")
_NOTHING = re.compile(r"(?i)none|null")
_FALLBACK = re.compile(r"\$\{\w+:?[-=](\d+\w*)\}")
_VARIABLE = re.compile(r"\$\{?(?:env:)?(\w+)\}?|%(\w+)%")

# Other programs that have workers of their own.
_OTHERS = re.compile(
    rb"(?i)\b(?:gunicorn|uvicorn|hypercorn|celery|dask|torchserve|tritonserver|vllm|onnx\w*|ray|airflow|nginx|make|pytest|ninja)\b"
)
# Keys that stand beside a loader's.
_BESIDE = re.compile(
    rb"(?i)\b(?:batch_?size|batch-size|pin_?mem\w*|data_?loader\w*|data_?set\w*|dataroot|shuffle|prefetch_factor)\b"
)
_JOINED = re.compile(rb"[ \t]*[\\^`][ \t]*\r?\n")
_STARTS = re.compile(rb"(?i)\.py\b|\bpython|\btorchrun\b|\baccelerate\b|\bdeepspeed\b|\bdocker\b|\bpodman\b|\bsrun\b")
_COMMAND = re.compile(rb"""(?:[^"'&|;\n]|"[^"\n]*"|'[^'\n]*')+""")
_WORD = re.compile(rb"""(?:[^\s"']|"[^"\n]*"|'[^'\n]*')+""")


@dataclass(frozen=True, slots=True)
class _Lines:
    source: Source
    bare: bytes
    """The text with blanks for comments, joined lines joined: as long as `source.utf8`."""

    def around(self, start: int, lines: int = 0) -> bytes:
        """The (joined) line of an offset, with some more before and behind it."""
        begin, end = start, start
        for _ in range(lines + 1):
            begin = self.bare.rfind(b"\n", 0, begin) if begin >= 0 else -1
            end = self.bare.find(b"\n", end + 1) if end >= 0 else -1
        return self.bare[begin + 1 : end if end >= 0 else len(self.bare)]


def read(source: Source) -> Iterator[KnobSite]:
    """Every setting that a line states plainly."""
    bare = _COMMENT.sub(_blanked, source.utf8)
    lines = _Lines(source, _JOINED.sub(lambda joint: b" " * len(joint[0]), bare))
    for line in re.finditer(rb"[^\n]+", lines.bare):
        if not _STARTS.search(line[0]):
            yield from _stated(lines, *line.span())
            continue
        for command in _COMMAND.finditer(lines.bare, *line.span()):
            words = [unquoted(_word(token)) for token in _WORD.finditer(lines.bare, *command.span())]
            if any(program_like(word.text) for word in words):
                yield from sites_of_words(source, words, Form.TEXT)
            else:
                yield from _stated(lines, *command.span())


def _stated(lines: _Lines, start: int, end: int) -> Iterator[KnobSite]:
    """Settings by name, sign and value."""
    for found in _SETTING.finditer(lines.bare, start, end):
        name = found["name"].decode()
        flag = found["lead"] in {b"-", b"--"}
        meaning = spelled(f"{found['lead'].decode()}{name}" if flag else name)
        if meaning and _assigns(found, flag=flag) and _is_the_loaders(meaning, found, lines):
            site = _site(found, meaning, lines.source, flag=flag)
            if site:
                yield site


def _word(token: re.Match[bytes]) -> Word:
    return Word(token[0].decode("utf-8", "surrogatepass"), token.start(), token.end())


def _blanked(found: re.Match[bytes]) -> bytes:
    comment: bytes | None = found["comment"]
    return found[0] if comment is None else re.sub(rb"[^\n]", b" ", comment)


def _assigns(found: re.Match[bytes], *, flag: bool) -> bool:
    """A blank or a comma gives a value to an option, and to nothing else; nothing else may have more words behind it."""
    between = found.string[found.end("name") : found.start("open")]
    return flag or (bool(re.search(rb"[=:]", between)) and bool(_END.match(found.string, found.end())))


def _is_the_loaders(meaning: Spelled, found: re.Match[bytes], lines: _Lines) -> bool:
    line = lines.around(found.start())
    if meaning.knob in {"threads_env", "shm_size", "cpus_per_task"}:
        return meaning.sure
    if _OTHERS.search(line):
        return False
    if meaning.sure:
        return True
    if found["lead"].startswith(b"$") or re.search(rb"(?i)\bset[ \t]+\"?$", line[: line.find(found[0])]):
        used = re.compile(
            rb"(?i)--?[\w-]*(?:worker|cpu|thread)[\w-]*[=, \"']+(?:\$\{?|%)" + re.escape(found["name"]) + rb"\b"
        )
        return bool(used.search(lines.bare))
    return bool(_BESIDE.search(lines.around(found.start(), lines=4)))


def _site(found: re.Match[bytes], meaning: Spelled, source: Source, *, flag: bool) -> KnobSite | None:
    start, end = found.span("value")
    value = found["value"].decode("utf-8", "replace")
    fallback = _FALLBACK.fullmatch(value)
    if fallback:
        start, end = start + fallback.start(1), start + fallback.end(1)
        value = fallback[1]
    kind = _kind(meaning.knob, value)
    if kind is None:
        return None
    line, column = source.place(start)
    span = source.span(start, end)
    lead = found["lead"].decode() if flag else ""
    name = found["name"].decode()
    variable = _VARIABLE.fullmatch(value)
    return KnobSite(
        file=source.name,
        line=line,
        column=column,
        span=span,
        knob=meaning.knob,
        spelling=lead + name,
        value=value,
        kind=kind,
        form=Form.TEXT,
        role=_role(meaning.knob, found, flag=flag),
        quoted=bool(found["open"]),
        target=span if kind is Kind.LITERAL else None,
        refusal="" if kind is Kind.LITERAL else "knobs.refuse_reference",
        refers_to=(variable[1] or variable[2]) if variable else value if kind is Kind.REFERENCE else "",
        setting=found["path"].decode() + name,
    )


def _kind(knob: str, value: str) -> Kind | None:
    """What a value is, or None where the setting cannot have it."""
    if not re.match(r"[\d-]", value) and not _YES_OR_NO.fullmatch(value) and not _NOTHING.fullmatch(value):
        return Kind.REFERENCE
    if _NOTHING.fullmatch(value):
        return Kind.LITERAL if knob in {"num_workers", "prefetch_factor"} else None
    expected = {"pin_memory": _YES_OR_NO, "persistent_workers": _YES_OR_NO, "shm_size": _SIZE}.get(knob, _NUMBER)
    return Kind.LITERAL if expected.fullmatch(value) else None


def _role(knob: str, found: re.Match[bytes], *, flag: bool) -> Role:
    if knob in {"shm_size", "cpus_per_task"}:
        return Role.LIMIT
    if flag:
        return Role.FLAG
    variable = knob == "threads_env" or found["lead"].startswith(b"$")
    return Role.VARIABLE if variable or re.search(rb"(?i)\bset[ \t]+\"?$", _before(found)) else Role.CONFIG


def _before(found: re.Match[bytes]) -> bytes:
    """What stands before it on its line."""
    text = found.string
    return text[text.rfind(b"\n", 0, found.start()) + 1 : found.start()]
