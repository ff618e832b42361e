"""What `keepfed shm` shows: size and use, by whom, what is needed, the verdict, and the ways out."""

from __future__ import annotations

from collections.abc import Iterator

from keepfed.cli.shm.looking import Looked
from keepfed.cli.shm.ways import ways_in_words
from keepfed.host.shm import ShmUse
from keepfed.host.words import amount
from keepfed.policy.shm import Judgement, Verdict
from keepfed.text import say

_MOST_HOLDERS = 8
_LONGEST_COMMAND = 60


def lines(looked: Looked, judged: Judgement) -> Iterator[str]:
    """The answer line by line."""
    yield _head(looked)
    for site in looked.sites:
        yield f"  {site.file}:{site.line}  {site.spelling} = {site.value}"
    if looked.use is not None and looked.kind != "files":
        yield from _users(looked.use)
    for note in looked.notes:
        yield f"  {note}"
    yield ""
    yield say(f"shm.travel_{judged.travel.value}")
    if judged.verdict is not Verdict.NOT_NEEDED:
        yield _needed(judged)
    yield say(f"shm.verdict_{judged.verdict.value}")
    if judged.ways:
        yield ""
        yield say("shm.ways")
        for number, (_way, text) in enumerate(ways_in_words(looked, judged), 1):
            first, *more = text.split("\n")
            yield f"  {number}. {first}"
            yield from (f"     {line}" for line in more)
        if judged.memory_too:
            yield say("shm.memory_too", memory=amount(looked.room.memory_bytes), size=amount(judged.suggested_bytes))
        yield say("shm.ipcs")


def _head(looked: Looked) -> str:
    subject = say(f"shm.subject_{looked.kind}", name=looked.name)
    room = looked.room
    if not room.there:
        return say("shm.head_missing", subject=subject)
    if room.used_bytes is None:
        return say("shm.head_unused", subject=subject, size=amount(room.size_bytes))
    share = f"{room.used_bytes / room.size_bytes:.0%}" if room.size_bytes else "?"
    return say("shm.head", subject=subject, size=amount(room.size_bytes), used=amount(room.used_bytes), share=share)


def _users(use: ShmUse) -> Iterator[str]:
    for holder in use.holders[:_MOST_HOLDERS]:
        command = (
            holder.command if len(holder.command) <= _LONGEST_COMMAND else f"{holder.command[:_LONGEST_COMMAND]}..."
        )
        yield "  " + say(
            "shm.holder",
            pid=holder.pid,
            command=command,
            bytes=amount(holder.bytes),
            segments=holder.segments,
            unlinked=holder.unlinked,
        )
    if len(use.holders) > _MOST_HOLDERS:
        yield "  " + say("shm.more_holders", count=len(use.holders) - _MOST_HOLDERS)
    if use.segments:
        yield "  " + say("shm.names", named=amount(use.named_bytes), unlinked=amount(use.unlinked_bytes))
    if use.left_over:
        names = " ".join(segment.name for segment in use.left_over[:_MOST_HOLDERS])
        size = amount(sum(segment.bytes for segment in use.left_over))
        yield "  " + say("shm.left_over", count=len(use.left_over), bytes=size, names=names)
    if use.unseen_processes and use.dark_bytes:
        yield "  " + say("shm.unseen", count=use.unseen_processes, bytes=amount(use.dark_bytes))


def _needed(judged: Judgement) -> str:
    need = judged.need
    facts = {
        "bytes": amount(need.bytes),
        "workers": need.num_workers,
        "prefetch": need.prefetch_factor,
        "batch": amount(need.batch_bytes),
    }
    unknown = "_unknown" if need.source == "table" and need.num_workers is None else ""
    return say(f"shm.needed_{need.source}{unknown}", **facts)
