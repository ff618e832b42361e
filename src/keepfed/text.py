"""All words that users read, in their language: `say("run.not_found", command="trian.py")`.

Words live in `locales/<language>/<room>.json`, one file per room, with the same keys and placeholders in every language (a
test compares them). Falls back to English, then to the bare key with its facts: a missing translation must never be the
thing that stops somebody's training.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh")
_chosen: list[str] = []


def choose_language(language: str | None) -> None:
    """Fix the language for this process ("en" or "zh"); None goes back to the locale's."""
    _chosen[:] = [language] if language in LANGUAGES else []


def language() -> str:
    """The language in force: chosen, else KEEPFED_LANG, else the locale's (LC_ALL, LC_MESSAGES, LANG), else English."""
    if _chosen:
        return _chosen[0]
    for variable in ("KEEPFED_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def words(language: str) -> dict[str, str]:
    """All sentences of one language by key."""
    merged: dict[str, str] = {}
    folder = files("keepfed") / "locales" / language
    for page in sorted(folder.iterdir(), key=lambda page: page.name):
        if page.name.endswith(".json"):
            merged.update(json.loads(page.read_text(encoding="utf-8")))
    return merged


def say(key: str, **facts: object) -> str:
    """The sentence `key` with `facts` filled in. Never raises."""
    for candidate in (language(), "en"):
        try:
            return words(candidate)[key].format(**facts)
        except (KeyError, IndexError, ValueError, OSError):
            continue
    return " ".join([key, *(f"{name}={value}" for name, value in facts.items())])
