r"""One more item beside another: on a line of its own where the other has one, else on the same line.

num_workers: 4  # eight were too many     →  a line behind it: the remark stays with what it is about
num_workers=4,                            →  a line behind it, with a comma
num_workers=4                             →  before it, with a comma: whether one may end the list depends on the language
DataLoader(data, num_workers=4)           →  before it, on the same line
    --workers 8 \                         →  a line behind it, continued
, "num_workers": 4                        →  a line behind it, with the comma in front
"""

from __future__ import annotations

import re

from keepfed.edit.inserting.text import Text

_REMARK = r"[ \t]*(?:(?:#|//|;)[^\n]*)?"
_ALONE = re.compile(r"[ \t]*(?:-[ \t]+)?")
_COMMA_FIRST = re.compile(r"[ \t]*,[ \t]*")
_STATEMENT = re.compile(
    r"[ \t]*(?:export|declare -x|ENV|set|setenv|local|readonly|environment)[ \t]+|[ \t]*\$env:", re.IGNORECASE
)
_CONTINUED = re.compile(r"[ \t]*[\\^`]")


def beside(text: Text, start: int, end: int, item: str, *, comma: bool) -> tuple[int, str]:
    """Where to insert what, to have `item` beside the item [start, end); `comma` is whether items are parted by commas."""
    lead = text.all[text.line_start(start) : start]
    line_end = text.line_end(end)
    rest = text.all[end:line_end]
    continued = _CONTINUED.fullmatch(rest)
    if comma:
        return _in_list(text, start, lead, rest, line_end, item)
    if continued and (_ALONE.fullmatch(lead) or _STATEMENT.fullmatch(lead)):
        return line_end, text.eol + _blank(lead) + item + rest
    alone = _ALONE.fullmatch(lead) and not _is_continuation(text, start)
    if (alone or _STATEMENT.fullmatch(lead)) and re.fullmatch(_REMARK, rest):
        return line_end, text.eol + _repeated(lead, item) + item
    return end, f" {item}"


def _in_list(text: Text, start: int, lead: str, rest: str, line_end: int, item: str) -> tuple[int, str]:
    if _COMMA_FIRST.fullmatch(lead) and re.fullmatch(_REMARK, rest):
        return line_end, text.eol + lead + item
    if not _ALONE.fullmatch(lead):
        return start, f"{item}, "
    if re.fullmatch(r"[ \t]*," + _REMARK, rest):
        return line_end, f"{text.eol}{lead}{item},"
    return start, f"{item},{text.eol}{lead}"


def _repeated(lead: str, item: str) -> str:
    """What stands before the item on the new line: the dash of a list of `NAME=value` too, of a mapping only its room."""
    return _blank(lead) if "-" in lead and not re.match(r"[\"']?\w+=", item) else lead


def _blank(lead: str) -> str:
    return "".join(sign if sign == "\t" else " " for sign in lead)


def _is_continuation(text: Text, at: int) -> bool:
    """Whether the line before goes on in this one."""
    start = text.line_start(at)
    before = text.all[text.line_start(start - 1) : start].rstrip() if start else ""
    return before.endswith(("\\", "^", "`"))
