"""What can be done about a /dev/shm, in words that can be copied: printed, and never done."""

from __future__ import annotations

from keepfed.cli.shm.looking import Looked
from keepfed.policy.shm import Judgement, as_docker_writes
from keepfed.text import say


def ways_in_words(looked: Looked, judged: Judgement) -> list[tuple[str, str]]:
    """Each way with its sentence, the best first."""
    size = as_docker_writes(judged.suggested_bytes)
    file = next((site.file for site in looked.sites if site.knob == "shm_size"), f"{looked.name} --insert")
    kubernetes = f"{size[:-1]}{size[-1].upper()}i" if size[-1:].isalpha() else size
    facts = {
        "size": size,
        "name": looked.name if looked.kind == "container" else looked.container or "NAME",
        "file": file,
        "kubernetes_size": kubernetes,
        "pids": " ".join(str(holder.pid) for holder in (looked.use.holders[:5] if looked.use else ())) or "?",
    }
    # From inside its container nobody can recreate it.
    keys = {"recreate": "shm.way_recreate_outside"} if looked.kind == "host" else {}
    return [(way, say(keys.get(way, f"shm.way_{way}"), **facts)) for way in judged.ways]
