"""What would be carried over, field by field, for reading: names of variables without their values, and no passwords.

A password may also stand in a command line, a label or an option of the log. Those that say what they are (`--api-key`, `token=`)
are hidden; nobody can know the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keepfed.recreate.shown import harmless
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec

_HIDDEN = "***"
_SECRET = re.compile(r"(?i)passw|secret|token|api.?key|credential|private.?key|access.?key")
_ASSIGNED = re.compile(
    r"(?i)((?:passw\w*|secret\w*|token\w*|api.?key\w*|credential\w*|access.?key\w*)[=:]).*", re.DOTALL
)


def rows(spec: ContainerSpec) -> list[tuple[str, str]]:
    """Every field with what it says, by name."""
    found = [("Name", spec.name), ("Image", spec.image)]
    for prefix, values in (("Config", spec.config), ("HostConfig", spec.host)):
        found += [(f"{prefix}.{name}", _shown(name, values[name])) for name in sorted(values)]
    for endpoint in spec.endpoints:
        found.append((f"Networks.{endpoint.network}", json.dumps(endpoint.settings) if endpoint.settings else ""))
    return found


def _shown(name: str, value: Any) -> str:
    if name == "Env":
        return " ".join(f"{entry.partition('=')[0]}={_HIDDEN}" for entry in value)
    if name in ("ShmSize", "Memory", "MemoryReservation", "MemorySwap"):
        return size_word(int(value))
    hidden = hide(value)
    return harmless(hidden) if isinstance(hidden, str) else json.dumps(hidden, ensure_ascii=False)


def hide(value: Any) -> Any:
    """The same value with every password that says that it is one taken out.

    >>> hide(["--api-key", "abc", "--port", "1"]), hide({"token": "x"}), hide("PASSWORD=y")
    (['--api-key', '***', '--port', '1'], {'token': '***'}, 'PASSWORD=***')
    """
    if isinstance(value, str):
        return _ASSIGNED.sub(rf"\1{_HIDDEN}", value)
    if isinstance(value, Mapping):
        return {name: _HIDDEN if _is_secret(name, one) else hide(one) for name, one in value.items()}
    return list(_hide_list(value)) if isinstance(value, list | tuple) else value


def _hide_list(words: Iterable[Any]) -> Iterator[Any]:
    before = ""
    for word in words:
        is_value = (
            before.startswith("-") and _SECRET.search(before) and isinstance(word, str) and not word.startswith("-")
        )
        yield _HIDDEN if is_value else hide(word)
        before = word if isinstance(word, str) and "=" not in word else ""


def _is_secret(name: object, value: object) -> bool:
    return isinstance(value, str) and bool(_SECRET.search(str(name)))
