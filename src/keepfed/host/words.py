"""The ceilings of a host in the reader's words: how much there is, and what sets the limit."""

from __future__ import annotations

from keepfed.host.facts import HostFacts
from keepfed.host.limits import Ceiling
from keepfed.text import say


def cores_in_words(facts: HostFacts) -> str:
    """How many cores this process has and why not more, as one sentence."""
    return say(
        f"host.cores.{facts.cores.cause}",
        cores=number(facts.cores.value),
        machine=number(facts.cores_machine),
        pool=number(facts.cores_pool.value),
        ranks=facts.ranks.count,
        source=facts.cores.source,
    )


def memory_in_words(facts: HostFacts) -> str:
    """How much memory there is, how much of it is free, and why not more, as one sentence."""
    return say(
        f"host.memory.{facts.memory.cause}",
        memory=amount(facts.memory.value),
        available=amount(facts.memory_available.value),
        source=facts.memory.source,
    )


def shm_in_words(facts: HostFacts) -> str:
    """How large /dev/shm is, how much of it is used, and why not larger, as one sentence."""
    ceiling: Ceiling = facts.shm.ceiling
    return say(
        "host.shm.unknown" if facts.shm.size_bytes is None else f"host.shm.{ceiling.cause}",
        size=amount(facts.shm.size_bytes),
        used=amount(facts.shm.used_bytes),
        limit=amount(ceiling.value),
        filesystem=facts.shm.filesystem or "?",
        source=ceiling.source,
    )


def gpus_in_words(facts: HostFacts) -> str:
    """Which GPUs there are, or why none can be seen, as one sentence."""
    if not facts.gpus:
        return say(f"host.gpus.{facts.gpus_reason}")
    names = dict.fromkeys(gpu.name or "?" for gpu in facts.gpus)
    counted = [f"{sum((gpu.name or '?') == name for gpu in facts.gpus)} × {name}" for name in names]
    return say("host.gpus.found", gpus=", ".join(counted))


def number(value: float | None) -> str:
    """A count with at most two decimals: "8", "1.5"; "?" for unknown."""
    return "?" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def amount(value: float | None) -> str:
    """Bytes in binary units with three digits: "64 MiB", "23.5 GiB"; "?" for unknown."""
    if value is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB" if value < 1000 else f"{value:.0f} TiB"
