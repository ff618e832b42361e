"""What came of it: a sentence, the plan, or with --json one object."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import typer

from keepfed.recreate.flags import run_words
from keepfed.recreate.plan import hide, rows
from keepfed.recreate.shown import harmless
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec, Uncarried
from keepfed.recreate.survey import Survey
from keepfed.recreate.swap import Swapped
from keepfed.text import say

SCHEMA = "keepfed.recreate/1"
_MOST_LISTED = 12


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended."""

    outcome: str
    """planned, written, unchanged, recreated, refused, rolled_back or stranded."""
    text: str
    """The same for people."""
    spec: ContainerSpec
    """What was carried over."""
    swapped: Swapped | None = None
    """What the exchange brought, if there was one."""
    left: tuple[Uncarried, ...] = ()
    """What the written files cannot say."""
    files: tuple[str, ...] = ()
    """The written files."""


def plan(found: Survey) -> Result:
    """Everything that would be carried over, and everything that is in the way."""
    facts = {"name": found.spec.name, "before": size_word(found.now_bytes), "size": size_word(found.spec.shm_bytes)}
    lines = [say("recreate.plan", **facts), *(f"  {field}: {value}" for field, value in rows(found.spec))]
    for obstacle in found.obstacles:
        lines += ["", say("recreate.in_the_way", reason=obstacle.message), obstacle.next_step]
    if found.changes:
        lines += ["", say("recreate.changes", changes=change_lines(found))]
    lines += ["", *found.notes] if found.notes else []
    return Result("planned", "\n".join(lines), found.spec, left=run_words(found.spec).uncarried)


def show(result: Result, found: Survey, *, as_json: bool) -> None:
    """On stdout."""
    if as_json:
        typer.echo(json.dumps(_object(result, found), indent=1, ensure_ascii=False))
        return
    typer.echo(result.text)
    if result.swapped is None:
        for one in _uncarried(result):
            typer.echo(uncarried_line(one))


def change_lines(found: Survey) -> str:
    """What the container has written: packages, then paths or, where these are many, folders."""
    changes = found.changes
    lines = [say(f"recreate.package_{package.kind}", package=package) for package in changes.packages[:_MOST_LISTED]]
    if len(changes.packages) > _MOST_LISTED:
        lines.append(say("recreate.and_more", count=len(changes.packages) - _MOST_LISTED))
    if len(changes.listed) <= _MOST_LISTED:
        lines += [say(f"recreate.change_{change.kind}", path=change.path) for change in changes.listed]
    else:
        lines += [say("recreate.below", folder=folder, count=count) for folder, count in changes.folders()]
    lines += [say("recreate.noise", count=changes.noise)] if changes.noise else []
    return "\n".join(f"  {harmless(line)}" for line in lines)


def uncarried_line(one: Uncarried) -> str:
    """One thing that is not carried over, with its reason."""
    return say("recreate.uncarried", field=one.field, value=harmless(hide(one.value)), why=one.why)


def _uncarried(result: Result) -> tuple[Uncarried, ...]:
    return (*result.spec.uncarried, *result.left, *(result.swapped.lost if result.swapped else ()))


def _object(result: Result, found: Survey) -> dict[str, Any]:
    swapped, changes = result.swapped, found.changes
    return {
        "schema": SCHEMA,
        "outcome": result.outcome,
        "message": result.text if result.outcome != "planned" else "",
        "container": found.container.name,
        "engine": found.container.engine.kind,
        "image": result.spec.image,
        "shm_bytes": {"before": found.now_bytes, "wanted": found.spec.shm_bytes},
        "id": {"before": found.container.id, "after": swapped.identity if swapped else None},
        "verified": {"inspect": swapped.shm_bytes, "inside": swapped.seen_bytes} if swapped else None,
        "left_aside": swapped.left_aside if swapped else "",
        "plan": [{"field": field, "value": value} for field, value in rows(result.spec)],
        "uncarried": [asdict(one) | {"value": hide(one.value)} for one in _uncarried(result)],
        "obstacles": [asdict(obstacle) for obstacle in found.obstacles],
        "changes": {
            "paths": [asdict(change) for change in changes.listed],
            "packages": [asdict(package) for package in changes.packages],
            "left_out": changes.noise,
        },
        "notes": list(found.notes),
        "files": list(result.files),
    }
