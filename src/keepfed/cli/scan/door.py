"""`keepfed scan train/ compose.yaml`: every place where a data loading setting is written, and which one counts.

It only reads, and what it reads is never executed. stdout has the answer alone (a table, one JSON object, or what differs from
what was expected); nothing of it is cut off where stdout is no terminal, since then it is read by grep. What only some options
need is imported where they are given: the plain scan stands in commit hooks, where it has to be quick.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from keepfed.cli.scan.expect import Verdict, verdict_of
from keepfed.cli.scan.report import as_text, report
from keepfed.errors import UsageError
from keepfed.knobs.knob import UnknownName, wish, wish_among
from keepfed.knobs.origin.changes import changes_of
from keepfed.knobs.origin.original import with_originals
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.host.running import Running


def scan(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH", help=say("scan.paths"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("scan.json"))] = False,
    expect: Annotated[list[str] | None, typer.Option("--expect", metavar="KNOB=VALUE", help=say("scan.expect"))] = None,
    pid: Annotated[int | None, typer.Option("--pid", metavar="PID", help=say("scan.pid"))] = None,
    changes: Annotated[bool, typer.Option("--changes", help=say("scan.changes"))] = False,
    container: Annotated[str | None, typer.Option("--container", metavar="NAME", help=say("scan.container"))] = None,
) -> int:
    """Show what the files say; with `--expect`, exit 1 where they say something else."""
    expected = [_expected(pair) for pair in expect or ()]
    if container is not None:
        if pid is not None:
            raise UsageError(say("scan.container_alone"))
        from keepfed.cli.scan.inside import scan_inside

        inside = scan_inside(container, paths or [], changes=changes)
        scanned, family, rows = inside.scanned, inside.family, inside.changes
    else:
        family = _running(pid)
        scanned = scan_paths(paths or ["."])
        scanned = replace(scanned, sites=tuple(with_originals(scanned.sites, scanned.files)))
        rows = changes_of(scanned.sites, scanned.files) if changes else None
    if family:
        from keepfed.cli.scan.live import with_processes

        scanned = with_processes(scanned, family)
    projects = Projects(scanned.files)
    spellings = {site.spelling: site.knob for site in scanned.sites}
    wishes = [wish_among(name, value, spellings) for name, value in expected]
    verdicts = [verdict_of(wished, scanned.sites, projects.of) for wished in wishes]
    if as_json:
        sys.stdout.write(as_text(report(scanned, verdicts, rows)))
    elif verdicts:
        _tell(verdicts)
    elif rows is not None:
        from keepfed.cli.scan.changes import show_changes

        show_changes(rows)
    else:
        _show(scanned, paths or [container or "."])
        if family:
            from keepfed.cli.scan.live import process_line

            sys.stdout.write(process_line(family) + "\n")
    return 0 if all(verdict.met for verdict in verdicts) else 1


def _running(pid: int | None) -> tuple[Running, ...]:
    """The process that was named and those that it started."""
    if pid is None:
        return ()
    from keepfed.host.running import read_running

    return read_running(pid)


def _expected(pair: str) -> tuple[str, str]:
    """Name and value, checked as far as that goes before the files are read. Raises UsageError."""
    name, equals, value = pair.partition("=")
    if not (name and equals and value):
        raise UsageError(say("scan.bad_expect", pair=pair), next_step=say("scan.bad_expect_next"))
    with suppress(UnknownName):
        wish(name.strip(), value)
    return name.strip(), value


def _tell(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        sys.stdout.write("".join(f"{line}\n" for line in verdict.lines()))


def _show(scanned: Scanned, paths: list[str]) -> None:
    from keepfed.cli.scan.table import show_table

    show_table(scanned, paths)
