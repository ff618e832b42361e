"""How a new value is spelled in the place of an old one: in the language of the file, and in the style of whoever wrote it.

A value that is right in one file is wrong in the next: `True` is a name in JSON, `2g` is no quantity in Kubernetes, and a number
that stood in quotes has to stay in them, because the program that reads it would get another type. So the old text is the
pattern for the new one.

    old        asked for    new            old        asked for    new
    4          8            8              "64gb"     2g           "2gb"
    None       8            8              4Gi        2g           2Gi
    False      true         True           16G        2048m        2G
    yes        false        no             8589934592 2g           2147483648
"""

from __future__ import annotations

import re

from keepfed.edit.replacement import EditRefused
from keepfed.knobs.knob import Wish, size_bytes
from keepfed.knobs.site import Form, KnobSite
from keepfed.text import say

# Pairs that say no and yes; a file that says one of them is answered in the same pair.
_ANSWERS = (("false", "true"), ("no", "yes"), ("off", "on"), ("n", "y"), ("f", "t"), ("0", "1"))
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([ \t]*)([A-Za-z]*)")
_PREFIXES = ("", "k", "m", "g", "t")
_NUMBER = re.compile(r"[+-]?\d+")


def respelled(site: KnobSite, old: str, wish: Wish) -> str:
    """The text for what `wish` asks, in the place where `old` stands (its quotes, if any, stay outside both).

    Raises EditRefused where the language of the file has no such value.
    """
    if wish.knob == "shm_size":
        return _size(old, wish.value, kubernetes=is_kubernetes(site))
    if wish.value in {"true", "false"}:
        return _answer(old, site.form, yes=wish.value == "true")
    return _nothing(site) if wish.value == "none" else wish.value


def says_the_same(site: KnobSite, old: str, wish: Wish) -> bool:
    """Whether the old text already means what is asked for."""
    if wish.knob == "shm_size":
        return _bytes(old, kubernetes=is_kubernetes(site)) == size_bytes(wish.value)
    if wish.value in {"true", "false"}:
        return old.lower() in {pair[wish.value == "true"] for pair in _ANSWERS}
    if wish.value == "none":
        return old.lower() in {"none", "null", "~"} and not site.quoted
    return bool(_NUMBER.fullmatch(old)) and int(old) == int(wish.value)


def is_kubernetes(site: KnobSite) -> bool:
    """Whether a size is one of Kubernetes, where `G` is 10^9 and `g` is nothing."""
    return site.spelling.rpartition(".")[2].lower() == "sizelimit"


def unit_changes(old: str, new: str) -> bool:
    """Whether a size is now written in another style than before, which the reader should be told."""
    one, other = _SIZE.fullmatch(old), _SIZE.fullmatch(new)
    return one is not None and other is not None and _style(one[3]) != _style(other[3])


def docker_size(asked: str) -> str:
    """A size as Docker and compose take it, in whole gigabytes or the largest smaller unit: `2g`."""
    return _in_units(size_bytes(asked), "t", "")


def kubernetes_size(asked: str) -> str:
    """A size as a quantity of Kubernetes: `2Gi`."""
    return _in_units(size_bytes(asked), "Ti", "")


def answer_in(form: Form, *, yes: bool) -> str:
    """True or false as a file of this form says it when nothing stands there that could be a pattern."""
    return str(yes) if form is Form.PYTHON else str(yes).lower()


def _nothing(site: KnobSite) -> str:
    word = {Form.PYTHON: "None", Form.JSON: "null", Form.YAML: "null"}.get(site.form, "")
    if not word or site.quoted:
        place = f"{site.file}:{site.line}"
        raise EditRefused(say("edit.no_none", place=place, name=site.spelling), next_step=say("edit.no_none_next"))
    return word


def _answer(old: str, form: Form, *, yes: bool) -> str:
    pair = next((pair for pair in _ANSWERS if old.lower() in pair), None)
    if pair is None:
        return answer_in(form, yes=yes)
    new = pair[yes]
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new


def _size(old: str, asked: str, *, kubernetes: bool) -> str:
    wanted = size_bytes(asked)
    match = _SIZE.fullmatch(old.strip())
    suffix = match[3] if match else ""
    gap = match[2] if match else ""
    if kubernetes:
        return _in_units(wanted, suffix, "") if suffix.endswith("i") else kubernetes_size(asked)
    if match and not suffix:
        return str(wanted)
    return _in_units(wanted, suffix or "g", gap)


def _in_units(wanted: int, pattern: str, gap: str) -> str:
    """The size in the pattern's own unit, or in the largest smaller one of the same style in which it is a whole number."""
    power = _PREFIXES.index(pattern[0].lower()) if pattern[0].lower() in _PREFIXES else 0
    for smaller in range(power, 0, -1):
        if wanted % 1024**smaller == 0:
            letter = _PREFIXES[smaller]
            return f"{wanted // 1024**smaller}{gap}{letter.upper() if pattern[0].isupper() else letter}{pattern[1:]}"
    return f"{wanted}"


def _bytes(text: str, *, kubernetes: bool) -> int | None:
    match = _SIZE.fullmatch(text.strip())
    if not match:
        return None
    suffix = match[3].lower()
    power = _PREFIXES.index(suffix[:1]) if suffix[:1] in _PREFIXES else 0
    base: int = 1000 if kubernetes and suffix and not suffix.endswith("i") else 1024
    scale: int = base**power
    return round(float(match[1]) * scale)


def _style(suffix: str) -> tuple[bool, bool, str]:
    return bool(suffix), suffix[:1].isupper(), suffix[1:]
