"""The words of `keepfed set`: which are settings, and which are paths.

`=` tells them apart: `num_workers=8` is a setting, `train.py` a path. A path that has one in it is written with its folder
(`./lr=0.1/run.sh`), which no setting has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keepfed.errors import UsageError
from keepfed.knobs.knob import Wish, wish
from keepfed.text import say


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands on the command line."""

    wishes: tuple[Wish, ...]
    """Settings, checked, in their order."""
    paths: tuple[str, ...]
    """Files and folders; none means the current folder."""


def asked(words: Iterable[str], plan: Path | None) -> Asked:
    """Settings and paths. Raises UsageError where there is nothing to set, or two sources of it."""
    wishes, paths = [], []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and not {"/", "\\"} & {*name}:
            wishes.append(wish(name.strip(), value))
        else:
            paths.append(word)
    if wishes and plan is not None:
        raise UsageError(say("edit.two_sources"), next_step=say("edit.one_source_next"))
    if not wishes and plan is None:
        raise UsageError(say("edit.no_source"), next_step=say("edit.one_source_next"))
    _refuse_twice(wishes)
    return Asked(tuple(wishes), tuple(paths))


def _refuse_twice(wishes: Iterable[Wish]) -> None:
    seen: dict[str, Wish] = {}
    for one in wishes:
        other = seen.setdefault(one.spelling, one)
        if other.value != one.value:
            raise UsageError(say("edit.set_twice", name=one.spelling, one=other.value, other=one.value))
