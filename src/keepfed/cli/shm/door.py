"""`keepfed shm`: whether /dev/shm is large enough, who fills it, and what to do. It only reads.

stdout has the answer alone. Exit code 0 where it is large enough or not needed, 1 where something has to be done, 3 where it
could not be looked at.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated

import typer

from keepfed.cli.shm.looking import Looked, look_at_container, look_at_files, look_at_host, look_at_pid
from keepfed.errors import UsageError
from keepfed.knobs.knob import checked, size_bytes
from keepfed.policy.shm import Loading, Verdict, judge
from keepfed.text import say


def shm(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH", help=say("shm.paths"))] = None,
    pid: Annotated[int | None, typer.Option("--pid", metavar="PID", help=say("shm.pid"))] = None,
    container: Annotated[str | None, typer.Option("--container", metavar="NAME", help=say("shm.container"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("shm.json"))] = False,
    num_workers: Annotated[str | None, typer.Option("--num-workers", metavar="N", help=say("shm.num_workers"))] = None,
    prefetch_factor: Annotated[
        str | None, typer.Option("--prefetch-factor", metavar="P", help=say("shm.prefetch_factor"))
    ] = None,
    batch_bytes: Annotated[
        str | None, typer.Option("--batch-bytes", metavar="SIZE", help=say("shm.batch_bytes"))
    ] = None,
) -> int:
    """Look at one /dev/shm and judge it."""
    if sum(asked is not None for asked in (paths or None, pid, container)) > 1:
        raise UsageError(say("shm.one_subject"))
    given = _given(num_workers, prefetch_factor, batch_bytes)
    looked = _look(paths, pid, container)
    looked = replace(looked, loading=_with(looked.loading, given))
    judged = judge(looked.loading, looked.room, looked.setting)
    if as_json:
        from keepfed.cli.shm.report import report

        sys.stdout.write(json.dumps(report(looked, judged), indent=1, ensure_ascii=False) + "\n")
    else:
        from keepfed.cli.shm.shown import lines

        sys.stdout.writelines(f"{line}\n" for line in lines(looked, judged))
    if judged.verdict is Verdict.UNKNOWN:
        return 3
    return 1 if judged.verdict.bad else 0


def _given(num_workers: str | None, prefetch_factor: str | None, batch_bytes: str | None) -> Loading:
    """What the command line says of the loaders. Raises UsageError."""
    return Loading(
        num_workers=None if num_workers is None else int(checked("num_workers", "--num-workers", num_workers)),
        prefetch_factor=None
        if prefetch_factor is None
        else int(checked("prefetch_factor", "--prefetch-factor", prefetch_factor)),
        batch_bytes=None if batch_bytes is None else size_bytes(batch_bytes),
    )


def _look(paths: list[str] | None, pid: int | None, container: str | None) -> Looked:
    if pid is not None:
        return look_at_pid(pid)
    if container is not None:
        return look_at_container(container)
    return look_at_files(paths) if paths else look_at_host()


def _with(found: Loading, given: Loading) -> Loading:
    """What was found, and what was given instead."""
    return replace(
        found,
        num_workers=found.num_workers if given.num_workers is None else given.num_workers,
        prefetch_factor=found.prefetch_factor if given.prefetch_factor is None else given.prefetch_factor,
        batch_bytes=found.batch_bytes if given.batch_bytes is None else given.batch_bytes,
    )
