"""How a setting is called beside a given neighbour: `--num-workers` stands with `--prefetch-factor`, `NUM_WORKERS` with `PIN_MEMORY`."""

from __future__ import annotations

import re

from keepfed.knobs.knob import KNOBS, Wish
from keepfed.knobs.spelling import words_of


def name_beside(wish: Wish, neighbour: str) -> str:
    """The name: as it was asked for where that is no canonical one, else the canonical words as the neighbour joins them."""
    if wish.spelling not in KNOBS:
        return wish.spelling
    path, _, last = neighbour.rpartition(".")
    words = wish.knob.split("_")
    if words_of(last)[:1] == ("dataloader",):  # Hugging Face's TrainingArguments have all four so
        words = ["dataloader", *words]
    name = _joined(words, last)
    return f"{path}.{name}" if path else name


def _joined(words: list[str], pattern: str) -> str:
    dashes = re.match(r"-*", pattern)
    lead = dashes[0] if dashes else ""
    bare = pattern[len(lead) :]
    if re.search(r"[a-z][A-Z]", bare):
        return lead + words[0] + "".join(word.capitalize() for word in words[1:])
    joint = "-" if "-" in bare else "_"
    name = joint.join(words)
    return lead + (name.upper() if bare.isupper() else name)
