"""The values of a sweep, and the command with one of them filled in."""

from __future__ import annotations

from collections.abc import Sequence

from keepfed.errors import UsageError
from keepfed.text import say

PLACEHOLDER = "{}"


def parse_values(text: str) -> tuple[str, ...]:
    """The values of `--sweep 0,2,4` or `--sweep fork,spawn`, in order. Raises UsageError for none, empty ones, repeated ones."""
    values = tuple(word.strip() for word in text.split(","))
    reason = ""
    if not all(values):
        reason = say("sweep.empty_value")
    elif len(set(values)) < len(values):
        repeated = next(value for value in values if values.count(value) > 1)
        reason = say("sweep.repeated_value", value=repeated)
    elif any("\0" in value for value in values):
        reason = say("sweep.null_byte")
    if reason:
        raise UsageError(say("sweep.bad_values", text=text, reason=reason), next_step=say("sweep.bad_values_next"))
    return values


def check_placeholder(command: Sequence[str]) -> None:
    """Raises UsageError when no word of the command has a place for the value: every run would be the same."""
    if not any(PLACEHOLDER in word for word in command):
        raise UsageError(say("sweep.no_placeholder"), next_step=say("sweep.no_placeholder_next"))


def with_value(command: Sequence[str], value: str) -> tuple[str, ...]:
    """The command of one run: `{}` replaced in every word, also inside it (`--workers={}`). No shell ever reads it."""
    return tuple(word.replace(PLACEHOLDER, value) for word in command)
