"""The words of `keepfed set`: which are settings, and which are paths.

`=` tells them apart: `num_workers=8` is a setting, `train.py` a path. A path that has one in it is written with its folder
(`./lr=0.1/run.sh`), which no setting has. A setting may look like an option (`--workers=8`, `-j=8`): scan prints such names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keepfed.errors import UsageError
from keepfed.knobs.knob import UnknownName, Wish, wish, wish_among
from keepfed.knobs.site import KnobSite
from keepfed.text import say


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands on the command line."""

    settings: tuple[tuple[str, str], ...]
    """Names and values in their order; those whose name is known were checked."""
    paths: tuple[str, ...]
    """Files and folders; none means the current folder."""

    def wishes(self, sites: Iterable[KnobSite]) -> tuple[Wish, ...]:
        """The settings, checked; a name that says nothing by itself is looked up in what was found. Raises UsageError."""
        spellings = {site.spelling: site.knob for site in sites}
        return tuple(wish_among(name, value, spellings) for name, value in self.settings)


def asked(words: Iterable[str], plan: Path | None) -> Asked:
    """Settings and paths. Raises UsageError where there is nothing to set, or two sources of it."""
    settings: list[tuple[str, str]] = []
    paths: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and not {"/", "\\"} & {*name}:
            settings.append((name.strip(), value))
        elif word.startswith("-") and word != "-":
            raise UsageError(say("edit.no_such_option", option=word), next_step=say("edit.no_such_option_next"))
        else:
            paths.append(word)
    if settings and plan is not None:
        raise UsageError(say("edit.two_sources"), next_step=say("edit.one_source_next"))
    if not settings and plan is None:
        raise UsageError(say("edit.no_source"), next_step=say("edit.one_source_next"))
    _check(settings)
    return Asked(tuple(settings), tuple(paths))


def _check(settings: Iterable[tuple[str, str]]) -> None:
    """Refuse what is wrong whatever the files say, before they are read."""
    seen: dict[str, str] = {}
    for name, value in settings:
        with contextlib.suppress(UnknownName):
            value = wish(name, value).value  # noqa: PLW2901  # `yes` and `true` are one value
        other = seen.setdefault(name, value)
        if other != value:
            raise UsageError(say("edit.set_twice", name=name, one=other, other=value))
