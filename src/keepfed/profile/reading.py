"""keepfed.toml → records, or an error that names the line.

People edit this file and carry it to other machines. A misspelt `num_worker` that is silently ignored costs somebody a
night of slow training, so every key and value is checked, and every complaint says where, what was expected, what to do.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from keepfed.errors import ProfileError
from keepfed.plan import LoaderId, Plan
from keepfed.profile.records import LIMITS, SCHEMA, Evidence, HostProfile, LoaderProfile, Measured, Profile
from keepfed.text import say

FILE_NAME = "keepfed.toml"


def find_profile(folder: Path) -> Path | None:
    """The keepfed.toml of `folder`; parents are not searched, since another project's settings may lie there."""
    path = folder / FILE_NAME
    return path if path.exists() or path.is_symlink() else None


def read_profile(path: Path) -> Profile:
    """The profile in `path`.

    Raises ProfileError for a file that cannot be read, is no TOML, or has a key or value that is not expected; the message
    starts with `file:line`.
    """
    return Reading(path, read_text(path)).profile()


def read_text(path: Path) -> str:
    """The text of a profile, UTF-8 with or without a byte order mark. Raises ProfileError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(
            say("plan.unreadable", file=path, error=error.strerror or error), next_step=say("plan.unreadable_next")
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ProfileError(say("plan.not_utf8", place=f"{path}:{line}"), next_step=say("plan.not_utf8_next")) from error


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one key may hold."""

    fits: Callable[[Any], bool]
    expected: str
    required: bool = True


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and low <= value <= high


def _whole(low: int, high: int, *, required: bool = True) -> _Rule:
    return _Rule(
        lambda value: isinstance(value, int) and _is_number(value, low, high), f"whole_{low}_{high}", required=required
    )


_HUGE = 2**62
_TEXT = _Rule(lambda value: isinstance(value, str) and value != "", "text")
_TABLE = _Rule(lambda value: isinstance(value, dict), "table")
_AMOUNT = _Rule(lambda value: _is_number(value, 0, _HUGE), "amount")
_SHARE = _Rule(lambda value: _is_number(value, 0, 1), "share")
_RULES: dict[str, dict[str, _Rule]] = {
    "": {
        "schema": _Rule(lambda value: value == SCHEMA, "schema"),
        "host": _TABLE,
        "loader": _Rule(
            lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
            "loaders",
            required=False,
        ),
    },
    "host": {
        "fingerprint": _TEXT,
        "cores": _Rule(lambda value: _is_number(value, 0.001, 65536), "cores", required=False),
        "memory_bytes": _whole(0, _HUGE, required=False),
        "gpus": _Rule(
            lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
            "names",
            required=False,
        ),
    },
    "loader": {
        "dataset": _TEXT,
        "site": _Rule(lambda value: isinstance(value, str) and bool(re.search(r".:\d+\Z", value, re.DOTALL)), "site"),
        "ordinal": _whole(0, 1024, required=False),
        "num_workers": _whole(0, 1024),
        "prefetch_factor": _whole(1, 1024),
        "evidence": _Rule(_TABLE.fits, "table", required=False),
    },
    "evidence": {
        "date": _Rule(lambda value: isinstance(value, date), "date"),
        "before": _TABLE,
        "after": _TABLE,
        "limited_by": _Rule(lambda value: value in LIMITS, "limit"),
        "seconds": _AMOUNT,
        "host": _Rule(_TEXT.fits, "text", required=False),
    },
    "measured": {
        "num_workers": _whole(0, 1024),
        "prefetch_factor": _whole(1, 1024),
        "batches_per_s": _AMOUNT,
        "wait_share": _SHARE,
    },
}

_Trail = tuple[str | int, ...]


class Reading:
    """One file: every table is checked against _RULES, then the records are built."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self._syntax_error(error) from error

    def profile(self) -> Profile:
        """The records. Raises ProfileError for the first complaint."""
        tables = list(self._tables())
        # A misspelt key is also a missing one, and a wrong value says more than a missing table: in this order.
        for check in (self._unknown, self._misfit, self._missing):
            for kind, table, trail in tables:
                check(_RULES[kind], table, trail)
        loaders = tuple(_loader(table) for table in self.data.get("loader", ()))
        self._refuse_twins(loaders)
        host = self.data["host"]
        gpus = tuple(host.get("gpus", ()))
        return Profile(HostProfile(host["fingerprint"], host.get("cores"), host.get("memory_bytes"), gpus), loaders)

    def _tables(self) -> Iterator[tuple[str, dict[str, Any], _Trail]]:
        """Every table of the file that has rules, with where it stands; what is no table is left to its parent's rules."""
        yield "", self.data, ()
        yield from _inner("host", self.data, "host", ())
        loaders = self.data.get("loader")
        for index, loader in enumerate(loaders if isinstance(loaders, list) else ()):
            for _, table, trail in _inner("loader", {index: loader}, index, ("loader",)):
                yield "loader", table, trail
                for _, evidence, inner in _inner("evidence", table, "evidence", trail):
                    yield "evidence", evidence, inner
                    yield from _inner("measured", evidence, "before", inner)
                    yield from _inner("measured", evidence, "after", inner)

    def _unknown(self, rules: Mapping[str, _Rule], table: Mapping[str, Any], trail: _Trail) -> None:
        for key in table:
            if key not in rules:
                close = get_close_matches(key, rules, n=1)
                hint = (
                    say("plan.did_you_mean", name=close[0]) if close else say("plan.known_keys", names=", ".join(rules))
                )
                raise self._error((*trail, key), say("plan.unknown_key", name=key, table=_table_name(trail)), hint)

    def _misfit(self, rules: Mapping[str, _Rule], table: Mapping[str, Any], trail: _Trail) -> None:
        for key, value in table.items():
            if not rules[key].fits(value):
                what = say("plan.bad_value", name=key, value=_shown(value), expected=_expected(rules[key]))
                raise self._error((*trail, key), what, say("plan.bad_value_next"))

    def _missing(self, rules: Mapping[str, _Rule], table: Mapping[str, Any], trail: _Trail) -> None:
        for key, rule in rules.items():
            if rule.required and key not in table:
                what = say("plan.missing_key", name=key, table=_table_name(trail))
                raise self._error(trail, what, say("plan.missing_key_next", name=key, expected=_expected(rule)))

    def _refuse_twins(self, loaders: tuple[LoaderProfile, ...]) -> None:
        seen: dict[LoaderId, int] = {}
        for index, entry in enumerate(loaders):
            if entry.loader in seen:
                first = self._line_of(("loader", seen[entry.loader]))
                raise self._error(
                    ("loader", index), say("plan.twice", loader=entry.loader, line=first), say("plan.twice_next")
                )
            seen[entry.loader] = index

    def _error(self, trail: _Trail, what: str, next_step: str) -> ProfileError:
        return ProfileError(f"{self.path}:{self._line_of(trail)}: {what}", next_step=next_step)

    def _syntax_error(self, error: tomllib.TOMLDecodeError) -> ProfileError:
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(place[1]) if place else max(1, len(self.text.splitlines()))
        what = re.sub(r" \(at .*\)$", "", str(error))
        return ProfileError(f"{self.path}:{line}: {say('plan.syntax', what=what)}", next_step=say("plan.syntax_next"))

    def _line_of(self, trail: _Trail) -> int:
        """The line on which `trail` is written: the parser keeps no lines, so it is asked with ever longer beginnings."""
        lines = self.text.splitlines(keepends=True)
        whole = 0
        for count in range(1, len(lines) + 1):
            try:
                beginning = tomllib.loads("".join(lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            if _has(beginning, trail):
                return whole + 1
            whole = count
        return 1


def _inner(
    kind: str, parent: Mapping[Any, Any], key: str | int, trail: _Trail
) -> Iterator[tuple[str, dict[str, Any], _Trail]]:
    table = parent.get(key)
    if isinstance(table, dict):
        yield kind, table, (*trail, key)


def _loader(table: Mapping[str, Any]) -> LoaderProfile:
    return LoaderProfile(
        LoaderId(table["site"], table["dataset"], table.get("ordinal", 0)),
        Plan(table["num_workers"], table["prefetch_factor"]),
        _evidence(table["evidence"]) if "evidence" in table else None,
    )


def _evidence(table: Mapping[str, Any]) -> Evidence:
    when = table["date"]
    if not isinstance(when, datetime):
        when = datetime(when.year, when.month, when.day, tzinfo=UTC)
    return Evidence(
        date=when if when.tzinfo else when.replace(tzinfo=UTC),
        before=_measured(table["before"]),
        after=_measured(table["after"]),
        limited_by=table["limited_by"],
        seconds=float(table["seconds"]),
        host=table.get("host", ""),
    )


def _measured(table: Mapping[str, Any]) -> Measured:
    plan = Plan(table["num_workers"], table["prefetch_factor"])
    return Measured(plan, float(table["batches_per_s"]), float(table["wait_share"]))


def _has(data: Any, trail: _Trail) -> bool:
    for step in trail:
        held = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if step not in held:
            return False
        data = data[step]
    return bool(trail)


def _table_name(trail: _Trail) -> str:
    names = [step for step in trail if isinstance(step, str)]
    if not names:
        return say("plan.top_level")
    return f"[[{names[0]}]]" if names == ["loader"] else f"[{'.'.join(names)}]"


def _expected(rule: _Rule) -> str:
    if rule.expected.startswith("whole_"):
        _, low, high = rule.expected.split("_")
        return (
            say("plan.expect_at_least", low=low) if int(high) == _HUGE else say("plan.expect_whole", low=low, high=high)
        )
    return say(f"plan.expect_{rule.expected}", schema=SCHEMA, limits=", ".join(LIMITS))


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
