"""All words that users read, in their language: `say("run.not_found", command="trian.py")`.

Words live in `locales/<language>/<room>.json`, one file per room, with the same keys and placeholders in every language (a
test compares them). Falls back to English, then to the bare key with its facts: a missing translation must never be the
thing that stops somebody's training.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")

# In order of precedence; the last three as POSIX has them (Base Definitions 8.2). KEEPFED_LANG is for one's shell profile.
_VARIABLES = ("KEEPFED_LANG", "LC_ALL", "LC_MESSAGES", "LANG")

_LOCALES = Path(__file__).parent / "locales"
_chosen: list[str] = []


def choose_language(language: str | None) -> None:
    """Fix the language for this process ("en" or "zh"); None, or one that is not known, goes back to the locale's."""
    _chosen[:] = [language] if language in LANGUAGES else []


def language() -> str:
    """The language in force: chosen, else KEEPFED_LANG, else the locale's (LC_ALL, LC_MESSAGES, LANG), else English."""
    if _chosen:
        return _chosen[0]
    for variable in _VARIABLES:
        value = os.environ.get(variable, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def words(language: str) -> dict[str, str]:
    """All sentences of one language by key."""
    merged: dict[str, str] = {}
    for page in sorted((_LOCALES / language).glob("*.json")):
        merged.update(json.loads(page.read_text(encoding="utf-8")))
    return merged


def say(key: str, **facts: object) -> str:
    """The sentence `key` with `facts` filled in. Never raises."""
    for candidate in (language(), "en"):
        try:
            return words(candidate)[key].format(**facts)
        except Exception:  # noqa: S112  # a fact may fail in any way when it is formatted; the next fallback is the answer
            continue
    return " ".join([key, *(f"{name}={_shown(value)}" for name, value in facts.items())])


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
