"""A variable where no other stands yet: `.env`, a Dockerfile, a shell script."""

from __future__ import annotations

import re

from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit
from keepfed.knobs.knob import Wish

_STARTS = re.compile(r"(?m)^[ \t]*(?:CMD|ENTRYPOINT)\b", re.IGNORECASE)
_FROM = re.compile(r"(?m)^[ \t]*FROM\b", re.IGNORECASE)
_HEAD = re.compile(r"(?:#[^\n]*\n|[ \t\r]*\n|[ \t]*set[ \t]+[-+][^\n]*\n)*")


def insert_in_dotenv(wish: Wish, text: Text) -> Edit:
    """One more line at the end."""
    return _at_end(wish, text, f"{wish.spelling}={wish.value}")


def insert_in_dockerfile(wish: Wish, text: Text) -> Edit:
    """Before the command of the last stage, so that no layer that costs something is built again."""
    stages = list(_FROM.finditer(text.all))
    start = next(_STARTS.finditer(text.all, stages[-1].end() if stages else 0), None)
    line = f"ENV {wish.spelling}={wish.value}"
    if start is None:
        return _at_end(wish, text, line)
    return text.edit(wish, wish.spelling, start.start(), line + text.eol)


def insert_in_shell(wish: Wish, text: Text) -> Edit:
    """Behind the first line, the remarks (`#SBATCH` among them) and the `set -e` at the top."""
    head = _HEAD.match(text.all)
    at = head.end() if head else 0
    return text.edit(wish, wish.spelling, at, f"export {wish.spelling}={wish.value}{text.eol}")


def _at_end(wish: Wish, text: Text, line: str) -> Edit:
    """A last line that did not end keeps not ending: the new one is the last then."""
    end = len(text.all)
    whole = not text.all or text.all.endswith("\n")
    return text.edit(wish, wish.spelling, end, line + text.eol if whole else text.eol + line)
