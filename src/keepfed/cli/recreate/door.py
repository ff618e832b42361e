"""`keepfed recreate NAME --shm-size 2g`: a container again, with a larger /dev/shm and everything else as it was.

stdout gets the result: what happened, the plan, or with --json one object. Each step is a line on stderr.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from keepfed.cli.recreate.report import Result, change_lines, plan, show, uncarried_line
from keepfed.engine.client import find_container
from keepfed.errors import KeepfedError, UnreachableError, UsageError
from keepfed.knobs.knob import size_bytes
from keepfed.recreate.commit import check_new, checked_reference, commit
from keepfed.recreate.files import beside, check_free, write_files
from keepfed.recreate.health import Expected, complaint, expected
from keepfed.recreate.interrupts import Interrupts
from keepfed.recreate.script import Health
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import read_spec
from keepfed.recreate.survey import Survey, survey
from keepfed.recreate.swap import RolledBack, Stranded, Swap, refuse_leftovers
from keepfed.recreate.wait import Waiting
from keepfed.recreate.written import as_compose, as_script
from keepfed.text import say

_LONGEST_WAIT_S = 86400


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked."""

    script: Path | None
    """Write a script there instead."""
    compose: Path | None
    """Write a compose file there instead."""
    expected: Expected | None
    """What the URL has to answer."""
    timeout_s: float
    """How long the new container may take to be healthy."""
    commit: str
    """Keep what was written as this image; empty for not."""
    discard: bool
    """Let it go."""

    @property
    def writes(self) -> bool:
        """Whether a file is written instead."""
        return self.script is not None or self.compose is not None


def recreate(
    name: Annotated[str, typer.Argument(metavar="NAME", help=say("recreate.name"))],
    shm_size: Annotated[str, typer.Option("--shm-size", metavar="SIZE", help=say("recreate.shm_size"))],
    script: Annotated[Path | None, typer.Option("--script", metavar="FILE", help=say("recreate.script"))] = None,
    compose: Annotated[Path | None, typer.Option("--compose", metavar="FILE", help=say("recreate.compose"))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("recreate.dry_run"))] = False,
    health: Annotated[str | None, typer.Option("--health", metavar="URL", help=say("recreate.health"))] = None,
    expect: Annotated[str | None, typer.Option("--expect", metavar="JSON", help=say("recreate.expect"))] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help=say("recreate.timeout"))] = 180.0,
    commit_as: Annotated[str, typer.Option("--commit", metavar="IMAGE", help=say("recreate.commit"))] = "",
    discard: Annotated[bool, typer.Option("--discard-changes", help=say("recreate.discard"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("recreate.json"))] = False,
) -> int:
    """Recreate a container, or write down how. Returns 0; every failure is an error with its own code."""
    wanted_bytes = size_bytes(shm_size)
    if sum((script is not None, compose is not None, dry_run)) > 1:
        raise UsageError(say("recreate.one_of_three"))
    answer = _answer(health, expect)
    order = Order(script, compose, answer, timeout, commit_as, discard)
    _check(order)
    with find_container(name) as container:
        found = survey(container, wanted_bytes)
        try:
            result = plan(found) if dry_run else _carry_out(found, order)
        except KeepfedError as error:
            if as_json:
                show(Result(_outcome(error), error.message, found.spec), found, as_json=True)
            raise
        show(result, found, as_json=as_json)
    return 0


def _answer(health: str | None, expect: str | None) -> Expected | None:
    if expect is not None and health is None:
        raise UsageError(say("recreate.expect_without_url"))
    return None if health is None else expected(health, expect)


def _check(order: Order) -> None:
    """Refuse what cannot be meant before any engine is asked. Raises UsageError."""
    if order.commit and order.discard:
        raise UsageError(say("recreate.commit_or_discard"))
    if order.commit:
        checked_reference(order.commit)
    if not 1 <= order.timeout_s <= _LONGEST_WAIT_S:
        raise UsageError(say("recreate.bad_timeout", value=order.timeout_s, most=_LONGEST_WAIT_S))
    for path in (order.script, order.compose):
        if path is not None:
            check_free([path, beside(path, "env"), beside(path, "exports")])


def _outcome(error: KeepfedError) -> str:
    return {RolledBack: "rolled_back", Stranded: "stranded"}.get(type(error), "refused")


# ----------------------------------------------------------------------------------------------------------------- what is done


def _carry_out(found: Survey, order: Order) -> Result:
    _require_ready(found, order)
    if order.writes:
        return _write(found, order)
    if found.now_bytes == found.spec.shm_bytes:
        facts = {"name": found.container.name, "size": size_word(found.now_bytes)}
        return Result("unchanged", say("recreate.has_it", **facts), found.spec)
    return _exchange(found, order)


def _require_ready(found: Survey, order: Order) -> None:
    """Raise the reason why this container must not be recreated now."""
    harmless = {"dependents", "itself"} if order.writes else set()
    harmless |= {"auto_remove"} if order.compose is not None else set()
    for obstacle in found.obstacles:
        if obstacle.kind not in harmless:
            raise KeepfedError(obstacle.message, next_step=obstacle.next_step)
    if not order.writes:
        found.container.require_running()
        if (found.container.detail.get("State") or {}).get("Paused"):
            message = say("recreate.paused", name=found.container.name)
            raise UnreachableError(message, next_step=say("recreate.paused_next"))
    if found.changes and not order.commit and not order.discard:
        message = say("recreate.has_changes", name=found.container.name, changes=change_lines(found))
        raise KeepfedError(message, next_step=say("recreate.has_changes_next"))
    if order.commit and found.changes:
        check_new(found.container.engine, order.commit)


def _exchange(found: Survey, order: Order) -> Result:
    refuse_leftovers(found.container)
    for note in (*found.notes, *(uncarried_line(one) for one in found.spec.uncarried)):
        _tell(note)
    if order.expected is not None and (wrong := complaint(order.expected)):
        _tell(say("recreate.not_healthy_before", reason=wrong))
    spec, image = found.spec, found.image
    if order.commit and found.changes:
        image = commit(found.container, spec, order.commit)
        _tell(say("recreate.committed", image=order.commit))
        again = read_spec(found.container.detail, image, image_name=order.commit, podman=spec.podman)
        spec = again.with_shm(spec.shm_bytes)
    elif order.commit:
        _tell(say("recreate.nothing_to_commit"))
    waiting = Waiting(order.expected, order.timeout_s)
    with Interrupts().noted() as interrupts:
        swapped = Swap(found.container, spec, image, waiting, _tell, interrupts).run()
    for one in swapped.lost:
        _tell(uncarried_line(one))
    seen = size_word(swapped.seen_bytes) if swapped.seen_bytes is not None else say("recreate.unseen")
    facts = {
        "name": spec.name,
        "before": size_word(found.now_bytes),
        "size": size_word(swapped.shm_bytes),
        "seen": seen,
    }
    return Result("recreated", say("recreate.done", **facts), spec, swapped)


def _write(found: Survey, order: Order) -> Result:
    if order.script is not None:
        files, left = as_script(found.spec, order.script, _health(order), order.commit if found.changes else "")
    else:
        assert order.compose is not None
        files, left = as_compose(found.spec, order.compose)
    write_files(files)
    names = tuple(str(file.path) for file in files)
    for note in found.notes:
        _tell(note)
    return Result("written", say("recreate.written", files=", ".join(names)), found.spec, left=left, files=names)


def _health(order: Order) -> Health:
    """The same for a script, which compares the text."""
    wanted = order.expected
    body = "" if wanted is None or wanted.any_body else json.dumps(wanted.body)
    return Health("" if wanted is None else wanted.url, body, max(1, round(order.timeout_s)))


def _tell(line: str) -> None:
    sys.stderr.write(f"keepfed: {line}\n")
