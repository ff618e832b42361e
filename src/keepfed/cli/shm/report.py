"""What `keepfed shm --json` prints: one object, whose keys stay what they are (docs/shm.md has each of them)."""

from __future__ import annotations

from typing import Any

from keepfed.cli.shm.looking import Looked
from keepfed.cli.shm.ways import ways_in_words
from keepfed.policy.shm import Judgement

SCHEMA = "keepfed.shm/1"


def report(looked: Looked, judged: Judgement) -> dict[str, Any]:
    """The whole answer."""
    use = looked.use
    return {
        "schema": SCHEMA,
        "subject": {"kind": looked.kind, "name": looked.name, "runs_in": looked.setting.value},
        "filesystem": use.filesystem if use else None,
        "size_bytes": looked.room.size_bytes,
        "used_bytes": looked.room.used_bytes,
        "inodes_left": looked.room.inodes_left,
        "memory_bytes": looked.room.memory_bytes,
        "holders": [
            {
                "pid": holder.pid,
                "command": holder.command,
                "segments": holder.segments,
                "unlinked": holder.unlinked,
                "bytes": holder.bytes,
                "torch_bytes": holder.torch_bytes,
            }
            for holder in (use.holders if use else ())
        ],
        "named_bytes": use.named_bytes if use else None,
        "unlinked_bytes": use.unlinked_bytes if use else None,
        "dark_bytes": use.dark_bytes if use else None,
        "unseen_processes": use.unseen_processes if use else None,
        "left_over": [segment.name for segment in use.left_over] if use else [],
        "needed": {
            "bytes": judged.need.bytes,
            "num_workers": judged.need.num_workers,
            "prefetch_factor": judged.need.prefetch_factor,
            "batch_bytes": judged.need.batch_bytes,
            "source": judged.need.source,
        },
        "travel": judged.travel.value,
        "verdict": judged.verdict.value,
        "suggested_bytes": judged.suggested_bytes or None,
        "memory_too": judged.memory_too,
        "ways": [{"way": way, "text": text} for way, text in ways_in_words(looked, judged)],
        "sites": [
            {"file": site.file, "line": site.line, "column": site.column, "knob": site.knob, "value": site.value}
            for site in looked.sites
        ],
        "notes": list(looked.notes),
    }
