"""`keepfed recreate NAME --shm-size 2g`: a container again, with a larger /dev/shm and everything else as it was.

stdout gets the result: what happened, the plan, or with --json one object. Each step is a line on stderr.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepfed.errors import KeepfedError, UnreachableError, UsageError
from keepfed.knobs.knob import size_bytes
from keepfed.recreate.sizes import size_word
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.recreate.health import Expected
    from keepfed.recreate.spec import ContainerSpec, Uncarried
    from keepfed.recreate.survey import Survey
    from keepfed.recreate.swap import Swapped

SCHEMA = "keepfed.recreate/1"
_MOST_LISTED = 12
_LONGEST_WAIT_S = 86400


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked."""

    shm_bytes: int
    """The new size."""
    script: Path | None
    """Write a script there instead."""
    compose: Path | None
    """Write a compose file there instead."""
    dry_run: bool
    """Show the plan instead."""
    expected: Expected | None
    """What the URL has to answer."""
    timeout_s: float
    """How long the new container may take to be healthy."""
    commit: str
    """Keep what was written as this image; empty for not."""
    discard: bool
    """Let it go."""
    as_json: bool
    """One object on stdout."""


def recreate(
    name: Annotated[str, typer.Argument(metavar="NAME", help=say("recreate.name"))],
    shm_size: Annotated[str, typer.Option("--shm-size", metavar="SIZE", help=say("recreate.shm_size"))],
    script: Annotated[Path | None, typer.Option("--script", metavar="FILE", help=say("recreate.script"))] = None,
    compose: Annotated[Path | None, typer.Option("--compose", metavar="FILE", help=say("recreate.compose"))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("recreate.dry_run"))] = False,
    health: Annotated[str | None, typer.Option("--health", metavar="URL", help=say("recreate.health"))] = None,
    expect: Annotated[str | None, typer.Option("--expect", metavar="JSON", help=say("recreate.expect"))] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help=say("recreate.timeout"))] = 180.0,
    commit: Annotated[str, typer.Option("--commit", metavar="IMAGE", help=say("recreate.commit"))] = "",
    discard: Annotated[bool, typer.Option("--discard-changes", help=say("recreate.discard"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("recreate.json"))] = False,
) -> int:
    """Recreate a container, or write down how. Returns 0; every failure is an error with its own code."""
    order = _checked(shm_size, script, compose, dry_run, health, expect, timeout, commit, discard, as_json)
    from keepfed.engine.client import find_container
    from keepfed.recreate.survey import survey

    with find_container(name) as container:
        found = survey(container, order.shm_bytes)
        if order.dry_run:
            return _show(found, order)
        _require_ready(found, order)
        if order.script or order.compose:
            return _write(found, order)
        if found.now_bytes == order.shm_bytes:
            return _report(
                order, found, "unchanged", say("recreate.has_it", name=container.name, size=size_word(order.shm_bytes))
            )
        return _exchange(found, order)


def _checked(
    shm_size: str,
    script: Path | None,
    compose: Path | None,
    dry_run: bool,
    health: str | None,
    expect: str | None,
    timeout: float,
    commit: str,
    discard: bool,
    as_json: bool,
) -> Order:
    """Refuse what cannot be meant before any engine is asked. Raises UsageError."""
    from keepfed.recreate.commit import checked_reference
    from keepfed.recreate.files import beside, check_free
    from keepfed.recreate.health import expected

    wanted = size_bytes(shm_size)
    if sum((script is not None, compose is not None, dry_run)) > 1:
        raise UsageError(say("recreate.one_of_three"))
    if commit and discard:
        raise UsageError(say("recreate.commit_or_discard"))
    if commit:
        checked_reference(commit)
    if expect is not None and health is None:
        raise UsageError(say("recreate.expect_without_url"))
    if not 1 <= timeout <= _LONGEST_WAIT_S:
        raise UsageError(say("recreate.bad_timeout", value=timeout, most=_LONGEST_WAIT_S))
    for path in (script, compose):
        if path is not None:
            check_free([path, beside(path, "env"), beside(path, "exports")])
    answer = None if health is None else expected(health, expect)
    return Order(wanted, script, compose, dry_run, answer, timeout, commit, discard, as_json)


def _require_ready(found: Survey, order: Order) -> None:
    """Raise the reason why this container must not be recreated now."""
    writes = order.script is not None or order.compose is not None
    for obstacle in found.obstacles:
        if obstacle.kind == "dependents" and writes:
            continue
        if obstacle.kind == "auto_remove" and order.compose is not None:
            continue
        raise KeepfedError(obstacle.message, next_step=obstacle.next_step)
    if not writes:
        found.container.require_running()
        if (found.container.detail.get("State") or {}).get("Paused"):
            raise UnreachableError(
                say("recreate.paused", name=found.container.name), next_step=say("recreate.paused_next")
            )
    if found.changes and not order.commit and not order.discard:
        message = say("recreate.has_changes", name=found.container.name, changes="\n".join(_change_lines(found)))
        raise KeepfedError(message, next_step=say("recreate.has_changes_next"))


# ------------------------------------------------------------------------------------------------------------------ exchange


def _exchange(found: Survey, order: Order) -> int:
    from keepfed.recreate.commit import commit
    from keepfed.recreate.health import complaint
    from keepfed.recreate.interrupts import Interrupts
    from keepfed.recreate.spec import read_spec
    from keepfed.recreate.swap import Swap
    from keepfed.recreate.wait import Waiting

    _refuse_leftovers(found)
    for note in (*found.notes, *(_uncarried_line(one) for one in found.spec.uncarried)):
        _tell(note)
    if order.expected is not None and (wrong := complaint(order.expected)):
        _tell(say("recreate.not_healthy_before", reason=wrong))
    spec, image = found.spec, found.image
    if order.commit and found.changes:
        image = commit(found.container, spec, order.commit)
        _tell(say("recreate.committed", image=order.commit))
        podman = found.container.engine.kind == "podman"
        again = read_spec(found.container.detail, image, image_name=order.commit, podman=podman)
        spec = again.with_shm(order.shm_bytes)
    elif order.commit:
        _tell(say("recreate.nothing_to_commit"))
    waiting = Waiting(order.expected, order.timeout_s)
    with Interrupts().noted() as interrupts:
        swapped = Swap(found.container, spec, image, waiting, _tell, interrupts).run()
    for one in swapped.lost:
        _tell(_uncarried_line(one))
    seen = size_word(swapped.seen_bytes) if swapped.seen_bytes is not None else say("recreate.unseen")
    facts = {
        "name": spec.name,
        "before": size_word(found.now_bytes),
        "size": size_word(swapped.shm_bytes),
        "seen": seen,
    }
    return _report(order, found, "recreated", say("recreate.done", **facts), spec, swapped)


def _refuse_leftovers(found: Survey) -> None:
    """Raise when an earlier attempt was killed half-way, or another one is at work."""
    prefix = f"{found.container.name}.keepfed-"
    names = [name for one in found.container.engine.containers() for name in one.names if name.startswith(prefix)]
    if names:
        message = say("recreate.left_over", names=", ".join(sorted(names)))
        raise KeepfedError(message, next_step=say("recreate.left_over_next", name=found.container.name))


# --------------------------------------------------------------------------------------------------------------------- files


def _write(found: Survey, order: Order) -> int:
    from keepfed.recreate.compose import compose_file
    from keepfed.recreate.environment import for_compose, for_run
    from keepfed.recreate.files import Written, beside, write_files
    from keepfed.recreate.flags import run_words
    from keepfed.recreate.script import Health, script

    spec = found.spec
    if order.script is not None:
        environment = for_run(spec.environment)
        url, body = (order.expected.url, order.expected) if order.expected else ("", None)
        wanted = json.dumps(body.body) if body is not None and not body.any_body else ""
        health = Health(url, wanted, max(1, round(order.timeout_s)))
        commit = order.commit if found.changes else ""
        files = [Written(order.script, script(spec, environment, order.script.stem, health, commit), 0o700)]
        for text, suffix in ((environment.env_file, "env"), (environment.exports, "exports")):
            files += [Written(beside(order.script, suffix), text, 0o600)] if text else []
        left = (*run_words(spec).uncarried, *environment.uncarried)
    else:
        assert order.compose is not None
        env_text, unheld = for_compose(spec.environment)
        env_file = beside(order.compose, "env")
        text, unsaid = compose_file(spec, f"./{env_file.name}" if env_text else "")
        files = [Written(order.compose, text, 0o600)]
        files += [Written(env_file, env_text, 0o600)] if env_text else []
        left = (*unsaid, *unheld)
    write_files(files)
    names = [str(file.path) for file in files]
    for note in found.notes:
        _tell(note)
    return _report(order, found, "written", say("recreate.written", files=", ".join(names)), left=left, files=names)


# -------------------------------------------------------------------------------------------------------------------- report


def _show(found: Survey, order: Order) -> int:
    """The plan, with everything that is in the way, and nothing done."""
    from keepfed.recreate.flags import run_words
    from keepfed.recreate.plan import rows

    facts = {"name": found.spec.name, "before": size_word(found.now_bytes), "size": size_word(order.shm_bytes)}
    lines = [say("recreate.plan", **facts), *(f"  {field}: {value}" for field, value in rows(found.spec))]
    for obstacle in found.obstacles:
        lines += ["", say("recreate.in_the_way", reason=obstacle.message), obstacle.next_step]
    if found.changes:
        lines += ["", say("recreate.changes", changes="\n".join(_change_lines(found)))]
    lines += ["", *found.notes] if found.notes else []
    return _report(order, found, "planned", "\n".join(lines), left=run_words(found.spec).uncarried)


def _report(
    order: Order,
    found: Survey,
    outcome: str,
    text: str,
    spec: ContainerSpec | None = None,
    swapped: Swapped | None = None,
    left: tuple[Uncarried, ...] = (),
    files: list[str] | None = None,
) -> int:
    """Say what happened, in words or as the object."""
    uncarried = (*(spec or found.spec).uncarried, *left, *(swapped.lost if swapped else ()))
    if order.as_json:
        print_json(_object(order, found, outcome, spec or found.spec, swapped, uncarried, files))
        return 0
    typer.echo(text)
    if not swapped:
        for one in uncarried:
            typer.echo(_uncarried_line(one))
    return 0


def _object(
    order: Order,
    found: Survey,
    outcome: str,
    spec: ContainerSpec,
    swapped: Swapped | None,
    uncarried: tuple[Uncarried, ...],
    files: list[str] | None,
) -> dict[str, Any]:
    from keepfed.recreate.plan import rows

    changes = found.changes
    return {
        "schema": SCHEMA,
        "outcome": outcome,
        "container": found.container.name,
        "engine": found.container.engine.kind,
        "image": spec.image,
        "shm_bytes": {"before": found.now_bytes, "wanted": order.shm_bytes},
        "id": {"before": found.container.id, "after": swapped.identity if swapped else None},
        "verified": {"inspect": swapped.shm_bytes, "inside": swapped.seen_bytes} if swapped else None,
        "left_aside": swapped.left_aside if swapped else "",
        "plan": [{"field": field, "value": value} for field, value in rows(spec)],
        "uncarried": [asdict(one) for one in uncarried],
        "obstacles": [asdict(obstacle) for obstacle in found.obstacles],
        "changes": {
            "paths": [asdict(change) for change in changes.listed],
            "packages": [asdict(package) for package in changes.packages],
            "left_out": changes.noise,
        },
        "notes": list(found.notes),
        "files": files or [],
    }


def print_json(report: dict[str, Any]) -> None:
    """One object on stdout."""
    typer.echo(json.dumps(report, indent=1, ensure_ascii=False))


def _change_lines(found: Survey) -> list[str]:
    changes = found.changes
    packages = [f"  {say(f'recreate.package_{package.kind}', package=package)}" for package in changes.packages]
    if len(packages) > _MOST_LISTED:
        packages = [*packages[:_MOST_LISTED], f"  {say('recreate.and_more', count=len(packages) - _MOST_LISTED)}"]
    if len(changes.listed) <= _MOST_LISTED:
        paths = [f"  {say(f'recreate.change_{change.kind}', path=change.path)}" for change in changes.listed]
    else:
        paths = [f"  {say('recreate.below', folder=folder, count=count)}" for folder, count in changes.folders()]
    noise = [f"  {say('recreate.noise', count=changes.noise)}"] if changes.noise else []
    return [*packages, *paths, *noise]


def _uncarried_line(one: Uncarried) -> str:
    from keepfed.recreate.plan import hide

    return say("recreate.uncarried", field=one.field, value=hide(one.value), why=one.why)


def _tell(line: str) -> None:
    sys.stderr.write(f"keepfed: {line}\n")
