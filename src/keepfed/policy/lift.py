"""What would lift the limit: from what was measured of a settled loader to a short list of remedies, best first.

Advice on data loading is cheap and mostly wrong: a faster decoder helps nobody whose step is the limit, and more workers help
nobody whose cores are busy. So three rules:

    nothing above the ceiling    with every batch ready the steps take so long, measured: no remedy can promise more
    no factor without a clock    a factor comes from a timed alternative (replay, draft, cached files) or from measured
                                 CPU time and cores, and is then marked as derived
    no remedy for what is idle   where the ceiling is reached there is one sentence: the step is the limit

How a saving inside a sample becomes a factor of the program: the sample's time in the dataset shrinks as it did for the samples
that were timed; collating and copying stay (Amdahl's law); workers then supply so much more, and the ceiling cuts it off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

WORTH = 1.05
"""Smaller factors are within the noise of a window, and nobody's afternoon is worth them."""
NOTABLE = 0.3
"""A phase with at least this share of a sample or a batch is named, also where nothing was timed against it."""
MOSTLY_LOADING = 20.0
"""From this headroom on the program does next to nothing but load: its steps are no ceiling that anybody will meet."""
BUSY = 0.75
"""From this share of the cores on they are what binds, where workers are not idle."""
CROWDED = 0.6
"""A program that gets less than this part of the cores, while its workers queue for them, shares them with others."""
MOST_CORES_MORE = 4.0
"""Cores are offered up to so many times those that are there: beyond, memory bandwidth and sharing make nonsense of a line."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The same samples, timed in two ways."""

    samples: int
    """How many."""
    from_s: float
    """As they are."""
    to_s: float
    """In the other way."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Single samples, timed alone in a child with everything cached."""

    sample_s: float
    """One sample."""
    decode_s: float | None = None
    """Part of it decoding; None where no known decoder was called."""
    decoder: str = ""
    """Which."""
    transform_s: float | None = None
    """Part of it in the dataset's transform, decoding left out; None where that cannot be told."""
    draft: Timed | None = None
    """With JPEGs decoded at a part of their size; None where that does not fit."""
    cold: Timed | None = None
    """`from_s` with its files in memory, `to_s` from the storage; None where files could not be forgotten."""
    storage_bytes_per_s: float = 0.0
    """What the storage gave to one reader; 0 where not measured."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a settled loader stands. Times per batch, rates in batches per second."""

    rate: float
    """Throughput of the whole program."""
    limited_by: str
    """The controller's verdict: step, cores, memory, io, workers or unknown."""
    cores: float
    """Cores that the program may use; 0 when unknown."""
    workers: int
    """Of the plan."""
    ceiling: float = 0.0
    """Rate of the steps alone; 0 when not measured."""
    replayed: int = 0
    """On so many batches that were made ahead; 0 if it is the time outside `next()` in the windows."""
    fetch_s: float = 0.0
    """Seconds in the dataset, in a worker; 0 without workers or when not measured, as the next five."""
    collate_s: float = 0.0
    """In the collate function."""
    copy_s: float = 0.0
    """Copying into shared memory."""
    cpu_s: float = 0.0
    """CPU time of these three."""
    queued_s: float = 0.0
    """Time in a worker in which it could have computed and had no core."""
    trainer_cpu_s: float = 0.0
    """CPU time of the training process."""
    sample: Sample | None = None
    """What single samples told; None when none were timed."""

    @property
    def work_s(self) -> float:
        """One batch in a worker."""
        return self.fetch_s + self.collate_s + self.copy_s

    @property
    def headroom(self) -> float:
        """How many times the present rate the steps alone would allow; 0 when not measured."""
        return self.ceiling / self.rate if self.rate > 0 and self.ceiling > 0 else 0.0

    @property
    def cores_used(self) -> float:
        """Cores that workers and training process keep busy."""
        return self.rate * (self.cpu_s + self.trainer_cpu_s)

    @property
    def cores_bind(self) -> bool:
        """Whether there is nothing left of the cores."""
        return self.limited_by == "cores" or (self.cores > 0 and self.cores_used >= BUSY * self.cores)


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that would help, or the reason why nothing would."""

    key: str
    """Which sentence says it: `lift.<key>`."""
    factor: float | None
    """How many times the present throughput, at most; None where nothing was timed."""
    facts: Mapping[str, float | str] = field(default_factory=dict)
    """What the sentence names: seconds, shares from 0 to 1, rates, counts."""


def remedies(now: Standing) -> tuple[Remedy, ...]:
    """What would lift the limit, greatest gain first (of equal ones, what was timed); those without a factor come last."""
    if now.rate <= 0 or now.headroom <= 0:
        return ()
    how = "replay" if now.replayed else "steps"
    facts = {"rate": now.rate, "ceiling": now.ceiling, "batches": now.replayed}
    if now.headroom < WORTH:
        return (Remedy(f"step_{how}", now.headroom, facts),)
    key = f"ceiling_{how}" if now.headroom < MOSTLY_LOADING else "loading"
    top = Remedy(key, now.headroom, {**facts, "share": 1 / now.headroom})
    timed = [found for found in (_draft(now), _cached(now), _cores(now)) if found is not None]
    timed = [found for found in timed if found.factor is not None and found.factor >= WORTH]
    named = {found.key for found in timed}
    untimed = [_decode(now), _transform(now), _workers(now), _waiting(now), *_moving(now)]
    rest = [found for found in untimed if found is not None and not _said(found.key, named)]
    return (top, *sorted(timed, key=lambda found: -(found.factor or 0.0)), *rest, *_storage(now, rest, named))


def _said(key: str, named: set[str]) -> bool:
    return (key == "decode" and "draft" in named) or (key == "waiting" and "cached" in named)


def _cores(now: Standing) -> Remedy | None:
    """Derived: twice the cores do twice the work, until the steps alone are the limit. First those that others have."""
    if not now.cores_bind or now.cores <= 0 or now.cpu_s <= 0:
        return None
    cpu_s = now.cpu_s + now.trainer_cpu_s
    facts = {"cores": now.cores, "cpu_s": cpu_s, "used": now.cores_used}
    if now.cores_used < CROWDED * now.cores:
        return Remedy("crowded", min(now.headroom, now.cores / now.cores_used), facts) if _queues(now) else None
    more = math.ceil((min(now.headroom, MOST_CORES_MORE) - 1) * now.cores - 1e-9)
    if more < 1:
        return None
    return Remedy("cores", min(now.headroom, (now.cores + more) / now.cores), {**facts, "more": more})


def _queues(now: Standing) -> bool:
    """Whether workers spend much of their time in the queue for a core."""
    return now.queued_s >= NOTABLE * now.work_s > 0


def _saved(now: Standing, timed: Timed | None, new_s: float, old_s: float) -> float | None:
    """The factor for the program when samples take `new_s` instead of `old_s` in the dataset."""
    if timed is None or now.work_s <= 0 or old_s <= 0 or new_s <= 0:
        return None
    less_s = now.fetch_s * new_s / old_s + now.collate_s + now.copy_s
    if less_s <= 0:
        return None
    factor = min(now.headroom, now.work_s / less_s)
    if now.cores_bind and now.cpu_s > 0:  # the training process wants the same cores, and wants no less of them
        cpu_s = now.cpu_s + now.trainer_cpu_s
        factor = min(factor, cpu_s / max(cpu_s - max(0.0, now.work_s - less_s), now.trainer_cpu_s, 1e-12))
    return factor


def _draft(now: Standing) -> Remedy | None:
    sample = now.sample
    if sample is None or sample.draft is None or not sample.decode_s:
        return None
    draft = sample.draft
    factor = _saved(now, draft, draft.to_s, draft.from_s)
    share = min(1.0, sample.decode_s / max(sample.sample_s, 1e-12))
    return Remedy(
        "draft",
        factor,
        {"share": share, "from_s": draft.from_s, "to_s": draft.to_s, "samples": draft.samples},
    )


def _cached(now: Standing) -> Remedy | None:
    """Only where workers do wait: else the files are in memory already while the program runs."""
    sample = now.sample
    if sample is None or sample.cold is None or not _waits(now):
        return None
    cold = sample.cold
    saved_s = min(max(0.0, cold.to_s - cold.from_s) / max(cold.to_s, 1e-12), _waiting_share(now))
    factor = _saved(now, cold, 1 - saved_s, 1.0)
    return Remedy("cached", factor, {"from_s": cold.to_s, "to_s": cold.from_s, "samples": cold.samples})


def _decode(now: Standing) -> Remedy | None:
    sample = now.sample
    if sample is None or not sample.decode_s or sample.decode_s < NOTABLE * sample.sample_s:
        return None
    return Remedy("decode", None, {"share": min(1.0, sample.decode_s / sample.sample_s), "decoder": sample.decoder})


def _transform(now: Standing) -> Remedy | None:
    sample = now.sample
    if sample is None or not sample.transform_s or sample.transform_s < NOTABLE * sample.sample_s:
        return None
    return Remedy("transform", None, {"share": min(1.0, sample.transform_s / sample.sample_s)})


def _waiting_share(now: Standing) -> float:
    return max(0.0, 1 - (now.cpu_s + now.queued_s) / now.work_s) if now.work_s > 0 else 0.0


def _waits(now: Standing) -> bool:
    """Whether workers spend much of their time on something other than computing, which is not the queue for a core."""
    return not now.cores_bind and _waiting_share(now) >= NOTABLE


def _workers(now: Standing) -> Remedy | None:
    """Who waits needs no core for it: as many as are allowed may be too few. What more would bring was not tried."""
    if now.limited_by != "workers" or not _waits(now):
        return None
    return Remedy("workers", None, {"workers": now.workers, "more": 2 * now.workers})


def _waiting(now: Standing) -> Remedy | None:
    return Remedy("waiting", None, {"share": _waiting_share(now), "fetch_s": now.fetch_s}) if _waits(now) else None


def _moving(now: Standing) -> list[Remedy]:
    parts = {"collate": now.collate_s, "copy": now.copy_s}
    shares = {key: seconds / now.work_s for key, seconds in parts.items() if now.work_s > 0}
    return [
        Remedy(key, None, {"share": share, "seconds": parts[key]}) for key, share in shares.items() if share >= NOTABLE
    ]


def _storage(now: Standing, untimed: list[Remedy], named: set[str]) -> tuple[Remedy, ...]:
    """What the storage gives, beside the sentence that says that reading is what takes the time."""
    reads = "cached" in named or any(found.key == "waiting" for found in untimed)
    if not reads or now.sample is None or now.sample.storage_bytes_per_s <= 0:
        return ()
    return (Remedy("storage", None, {"bytes_per_s": now.sample.storage_bytes_per_s}),)
