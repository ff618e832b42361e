"""What a profile says: frozen records, and which entry belongs to which loader of a running program.

An edit above a DataLoader moves its line; matching by line alone would forget a measurement at every such edit, matching
by class alone would give the evaluation loader the settings of the training loader.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from keepfed.plan import LoaderId, Plan
from keepfed.text import say

SCHEMA = "keepfed.profile/1"
LIMITS = ("step", "cores", "memory", "io", "workers", "unknown")
"""What can limit a loader, in the words of events and files."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one plan brought."""

    plan: Plan
    """The plan that was in force."""

    batches_per_s: float
    """Batches that the program received per second of training."""

    wait_share: float
    """Share of the time that it spent waiting for them, 0 to 1."""

    def to_json(self) -> dict[str, float]:
        """One flat object: num_workers, prefetch_factor, batches_per_s, wait_share."""
        return {
            "num_workers": self.plan.num_workers,
            "prefetch_factor": self.plan.prefetch_factor,
            "batches_per_s": round(self.batches_per_s, 4),
            "wait_share": round(self.wait_share, 4),
        }


@dataclass(frozen=True, slots=True)
class HostProfile:
    """The machine on which a profile was measured."""

    fingerprint: str
    """Equal on two runs when their settings can be exchanged."""

    cores: float | None = None
    """Cores that its programs can use, maybe fractional (a quota); None if unknown."""

    memory_bytes: int | None = None
    """Memory that they can use, in bytes; None if unknown."""

    gpus: tuple[str, ...] = ()
    """Names of its GPUs."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why these settings: the measurement behind them."""

    date: datetime
    """When it was measured."""

    before: Measured
    """What the program asked for, and what that brought."""

    after: Measured
    """The settled plan, and what it brought."""

    limited_by: str
    """What limits the program now: one of LIMITS."""

    seconds: float
    """How long the search took."""

    host: str = ""
    """Fingerprint of the host it was measured on, where that is not the one in `[host]`."""


@dataclass(frozen=True, slots=True)
class LoaderProfile:
    """The settings of one loader."""

    loader: LoaderId
    """Which loader."""

    plan: Plan
    """Its settings."""

    evidence: Evidence | None = None
    """The measurement behind them; None where somebody wrote them by hand."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One keepfed.toml."""

    host: HostProfile
    """Where it was measured."""

    loaders: tuple[LoaderProfile, ...] = ()
    """One entry per loader."""


@dataclass(frozen=True, slots=True)
class Match:
    """The entry of a profile that belongs to a loader of the running program."""

    entry: LoaderProfile
    """The entry found."""

    measured_here: bool
    """Whether it was measured on this host; if not, its plan is a first guess."""

    note: str = ""
    """What the reader should know of the match, in words; empty for an ordinary one."""

    @property
    def plan(self) -> Plan:
        """The settings of the entry."""
        return self.entry.plan


def plan_for(
    profile: Profile, loader: LoaderId, *, fingerprint: str = "", taken: Collection[LoaderId] = ()
) -> Match | None:
    """The entry for `loader`: the same construction site, dataset class and ordinal.

    An edit above the DataLoader moves its line. So an entry of the same file and class with another line still counts when
    it is the only one, unless it is in `taken`: the entries (`match.entry.loader`) that other loaders of this program have
    found. `fingerprint` is that of the host that asks.
    """
    wanted = portable(loader)
    same_kind = [
        entry
        for entry in profile.loaders
        if entry.loader.dataset == wanted.dataset
        and entry.loader.ordinal == wanted.ordinal
        and _same_file(_file(entry.loader), _file(wanted))
    ]
    here = [entry for entry in same_kind if _line(entry.loader) == _line(wanted)]
    if here:
        exact = [entry for entry in here if entry.loader.site == wanted.site]
        return _match(profile, (exact or here)[0], fingerprint)
    owned = {portable(other) for other in taken}
    if len(same_kind) == 1 and same_kind[0].loader not in owned:
        note = say("plan.moved", old=same_kind[0].loader.site, new=wanted.site)
        return _match(profile, same_kind[0], fingerprint, note)
    return None


def _match(profile: Profile, entry: LoaderProfile, fingerprint: str, note: str = "") -> Match:
    measured_on = (entry.evidence.host if entry.evidence else "") or profile.host.fingerprint
    return Match(entry, measured_here=bool(fingerprint) and measured_on == fingerprint, note=note)


def _file(loader: LoaderId) -> str:
    return loader.site.rpartition(":")[0].replace("\\", "/")


def _line(loader: LoaderId) -> str:
    return loader.site.rpartition(":")[2]


def _same_file(one: str, other: str) -> bool:
    """Equal, or one is the tail of the other: `train.py` and `/home/ann/cats/train.py`."""
    short, long = sorted((one.removeprefix("./"), other.removeprefix("./")), key=len)
    return long == short or long.endswith("/" + short)


def portable(loader: LoaderId) -> LoaderId:
    """The loader as the file can hold it: bytes of a path that are no UTF-8 are written as escapes."""
    site, dataset = (text.encode("utf-8", "backslashreplace").decode("utf-8") for text in (loader.site, loader.dataset))
    return LoaderId(site, dataset, loader.ordinal)
