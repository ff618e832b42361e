"""What a live process makes of the settings in the files: which places it shows to be in effect, and with which value.

Only what was seen counts: an option on the actual command line, a variable of the actual environment, workers that live, the size
of the shared memory that the process has. A place that should be in effect by its file alone gets nothing: the file may have been
edited since the program started, and that is what the user wants to know.

Workers cannot be told apart from outside: two loaders with 4 and 2 are six workers. Their number is shown where it can belong to
one place only. A program that keepfed started says itself which loader has how many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from keepfed.errors import UsageError
from keepfed.host.running import Running
from keepfed.knobs.knob import checked, size_bytes
from keepfed.knobs.precedence.ties import last_word, words
from keepfed.knobs.site import InEffect, Kind, KnobSite, Role

_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_OVERRIDE = re.compile(r"\+{0,2}([A-Za-z_][\w./@]*)=(.*)", re.DOTALL)
_SHORT = re.compile(r"(-[A-Za-z])(\d+)")
_OUT_OF_PLAY = frozenset({Kind.RECORD, Kind.DEAD})
_MOST_LINES = 30


@dataclass(frozen=True, slots=True)
class Told:
    """A loader as a program that keepfed started tells of it."""

    pid: int
    """The process that iterates it."""
    file: str
    """Where it is built, as the scan would call the file."""
    line: int
    """The line of that call."""
    num_workers: int
    """Workers that it has."""
    prefetch_factor: int | None
    """Batches per worker that it asks for ahead."""


def with_effects(
    sites: Sequence[KnobSite],
    family: Sequence[Running],
    told: Sequence[Told] = (),
    spellings: Callable[[KnobSite], AbstractSet[str]] = lambda _: frozenset(),
) -> list[KnobSite]:
    """The same sites with `in_effect` where the processes show it; `family` begins with the one that was asked about.

    `spellings` gives what else a command line may call an option, `-j` beside `--workers`.
    """
    found = [_by_loader(site, told) or _by_process(site, family, spellings) for site in sites]
    found = [
        None if seen and _is_anothers(site, seen, sites, family) else seen
        for site, seen in zip(sites, found, strict=True)
    ]
    counted = _counted(sites, found, family)
    return [
        replace(site, in_effect=seen or counted if site.knob == "num_workers" and _is_source(site, sites) else seen)
        for site, seen in zip(sites, found, strict=True)
    ]


def live_workers(family: Sequence[Running]) -> Running | None:
    """The process whose workers are meant: the only one that has any, or the first of ranks that have equally many."""
    trainers = [one for one in family if one.workers]
    return trainers[0] if trainers and len({len(one.workers) for one in trainers}) == 1 else None


def _counted(sites: Sequence[KnobSite], found: Sequence[InEffect | None], family: Sequence[Running]) -> InEffect | None:
    """The number of living workers, where one place alone can have asked for them."""
    trainer = live_workers(family)
    asking = [site for site, seen in zip(sites, found, strict=True) if seen is None and _is_source(site, sites)]
    shown = any(site.knob == "num_workers" and seen for site, seen in zip(sites, found, strict=True))
    if trainer is None or shown or len(asking) != 1:
        return None
    return InEffect(str(len(trainer.workers)), trainer.pid)


def _is_source(site: KnobSite, sites: Sequence[KnobSite]) -> bool:
    """Whether a place gives a loader its number of workers, as far as is known: it wins, or it alone might."""
    if site.knob != "num_workers" or site.kind in _OUT_OF_PLAY or site.kind is Kind.REFERENCE:
        return False
    winners = [other for other in sites if other.knob == "num_workers" and other.wins]
    return bool(site.wins) or (not winners and site.wins is None)


def _by_loader(site: KnobSite, told: Sequence[Told]) -> InEffect | None:
    """What the loader that is built around a place says itself."""
    if site.role is not Role.CALL or site.knob not in ("num_workers", "prefetch_factor"):
        return None
    around = [one for one in told if one.file == site.file and one.line <= site.line <= one.line + _MOST_LINES]
    if not around:
        return None
    loader = max(around, key=lambda one: one.line)
    value = loader.num_workers if site.knob == "num_workers" else loader.prefetch_factor
    return None if value is None else InEffect(str(value), loader.pid)


def _by_process(
    site: KnobSite, family: Iterable[Running], spellings: Callable[[KnobSite], AbstractSet[str]]
) -> InEffect | None:
    """What the command line, the environment or the limits of one of the processes say."""
    if site.kind in _OUT_OF_PLAY:
        return None
    for process in family:
        value = _value(site, process, spellings)
        if value is not None:
            return InEffect(value, process.pid)
    return None


def _is_anothers(site: KnobSite, seen: InEffect, sites: Sequence[KnobSite], family: Sequence[Running]) -> bool:
    """Whether an option on the command line is meant for another place of the same name: another program's, another script's."""
    alike = [
        other for other in sites if other.role is site.role and last_word(other.spelling) == last_word(site.spelling)
    ]
    if site.role is Role.OPTION:
        scripts = {PurePosixPath(word).name for one in family for word in one.argv if word.endswith(".py")}
        mine = {other.file for other in alike if PurePosixPath(other.file).name in scripts}
        return bool(mine) and site.file not in mine
    if site.role is Role.FLAG:
        return (
            site.kind is Kind.LITERAL and any(other.value == seen.value for other in alike) and site.value != seen.value
        )
    if site.role is Role.LIMIT:
        # The process has one of several limits that are written: a job's, a service's. Which one, its value alone can tell.
        limits = [other for other in sites if other.knob == site.knob and other.wins is not False]
        return len(limits) > 1 and not _same(site, seen)
    return False


def _same(site: KnobSite, seen: InEffect) -> bool:
    """Whether a limit says what the process has."""
    if site.knob != "shm_size":
        return site.value == seen.value
    try:
        return size_bytes(site.value) == int(seen.value)
    except (UsageError, ValueError):
        return False


def _value(site: KnobSite, process: Running, spellings: Callable[[KnobSite], AbstractSet[str]]) -> str | None:
    if site.knob == "threads_env":
        # A program that sets it in itself does so after the kernel took its picture of the environment.
        return None if site.file.endswith((".py", ".ipynb")) else process.environ.get(site.spelling)
    if site.knob == "shm_size":
        return None if process.shm_bytes is None else str(process.shm_bytes)
    if site.knob == "cpus_per_task":
        return process.environ.get("SLURM_CPUS_PER_TASK") or (str(process.cores) if process.cores else None)
    if site.role is Role.OPTION:
        return _sensible(site, given(process.argv, site, spellings(site)))
    return _sensible(site, given(process.argv, site)) if site.role in (Role.FLAG, Role.CONFIG, Role.DEFAULT) else None


def _sensible(site: KnobSite, value: str | None) -> str | None:
    """The value if the setting can have it: a word behind an option that was mistaken may be a password, and is not repeated."""
    try:
        checked(site.knob, site.spelling, value or "")
    except UsageError:
        return None
    return value


def given(argv: Sequence[str], site: KnobSite, spellings: Iterable[str] = ()) -> str | None:
    """The value that a command line gives to an option, or to a key of Hydra's; the last one where it does so twice.

    `spellings` is what the option is called besides.
    """
    called = {site.spelling, *spellings}
    short = {name for name in called if re.fullmatch(r"-[A-Za-z]", name)}
    names = {last_word(name) for name in (*called - short, site.setting)} - {""}
    found: str | None = None
    for at, word in enumerate(argv):
        option, override, glued = _OPTION.fullmatch(word), _OVERRIDE.fullmatch(word), _SHORT.fullmatch(word)
        if glued and glued[1] in short:
            found = glued[2]
        elif option and (word in short or (word.startswith("--") and last_word(option[1]) in names)):
            following = argv[at + 1] if at + 1 < len(argv) else ""
            found = option[2] if option[2] is not None else following if not following.startswith("--") else found
        elif override and _ends_alike(words(override[1]), words(site.setting or site.spelling)):
            found = override[2]
    return found


def _ends_alike(left: Sequence[str], right: Sequence[str]) -> bool:
    shared = min(len(left), len(right))
    return shared > 0 and list(left[-shared:]) == list(right[-shared:])
