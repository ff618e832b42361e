"""`keepfed scan --pid PID`: what the scan found, beside what a live program works with."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keepfed.errors import UnreachableError
from keepfed.events import LoaderSeen, Settled, Window
from keepfed.feed import RUN_VARIABLE, RunFolder
from keepfed.host.running import Running
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.precedence.ties import Ties
from keepfed.knobs.scan import Scanned
from keepfed.knobs.site import KnobSite
from keepfed.plan import LoaderId, Plan
from keepfed.policy.in_effect import Told, live_workers, with_effects
from keepfed.text import say

_SECRET = re.compile(r"(?i)token|secret|passw|credential|api[-_]?key")


def with_processes(scanned: Scanned, family: Sequence[Running]) -> Scanned:
    """The scan with `in_effect` filled in; `family` as `read_running` gives it, of this host or of a container."""
    ties = Ties(scanned.sites, Projects(scanned.files))
    told = _told(family, scanned.sites)
    return replace(scanned, sites=tuple(with_effects(scanned.sites, family, told, ties.spellings_of)))


def process_line(family: Sequence[Running]) -> str:
    """One line about a process: its command, its workers, its cores, its shared memory."""
    first, trainer = family[0], live_workers(family)
    facts = {
        "pid": first.pid,
        "command": " ".join(_without_secrets(first.argv))[:80] or "?",
        "workers": sum(len(one.workers) for one in family),
        "cores": first.cores or "?",
        "shm": _size(first.shm_bytes),
    }
    if trainer is not None and trainer.pid != first.pid:
        return say("scan.process_with_trainer", trainer=trainer.pid, **facts)
    return say("scan.process", **facts)


def _without_secrets(argv: Sequence[str]) -> list[str]:
    """A command line as it may be pasted into an issue: without the values of options that are called a token or a password."""
    shown: list[str] = []
    hidden = False
    for word in argv:
        name, equals, _ = word.partition("=")
        secret = bool(_SECRET.search(name)) and name.startswith("-")
        shown.append("***" if hidden and not word.startswith("--") else f"{name}=***" if secret and equals else word)
        hidden = secret and not equals
    return shown


def _size(number: int | None) -> str:
    return "?" if number is None else f"{number / (1 << 20):.0f} MiB"


def _told(family: Sequence[Running], sites: Sequence[KnobSite]) -> list[Told]:
    """What the loaders of a program that keepfed started say themselves, by the names that the scan gives their files."""
    pids = {one.pid for one in family}
    names = {os.path.realpath(site.file): site.file for site in sites}
    found: list[Told] = []
    for path in {one.environ.get(RUN_VARIABLE, "") for one in family} - {""}:
        with contextlib.suppress(UnreachableError):
            folder = RunFolder.open(Path(path))
            for (pid, loader), plan in _plans(folder).items():
                file, _, line = loader.site.rpartition(":")
                name = names.get(os.path.realpath(os.path.join(folder.config.start_folder, file)), "")
                if pid in pids and name and line.isdigit():
                    found.append(Told(pid, name, int(line), plan.num_workers, plan.prefetch_factor))
    return found


def _plans(folder: RunFolder) -> dict[tuple[int, LoaderId], Plan]:
    """The plan in force of each loader: the one it began with, or the one of its last window."""
    plans: dict[tuple[int, LoaderId], Plan] = {}
    for pid, event in folder.reader().read_new():
        if isinstance(event, LoaderSeen):
            plans[pid, event.loader] = event.used
        elif isinstance(event, (Window, Settled)):
            plans[pid, event.loader] = event.plan
    return plans
