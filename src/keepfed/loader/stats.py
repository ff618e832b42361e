"""What a loader has done so far, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keepfed.plan import Plan


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """A snapshot of one loader, over all its epochs. Times are seconds, sizes bytes."""

    batches: int
    """Batches delivered."""
    samples: int
    """Samples in them, as far as the sampler's indices tell; of an iterable dataset, as many as were asked for."""
    elapsed_s: float
    """From the first `iter()` to the last delivery."""
    wait_s: float
    """Time spent inside `next()`."""
    step_s: float
    """Mean time that the program took between two `next()` calls."""
    batch_s: float
    """Mean time that a worker took to make a batch."""
    epochs: int
    """Epochs begun."""
    epoch_s: float
    """Duration of the last epoch that was read to its end; 0 before that."""
    workers: int
    """Workers alive now."""
    prefetch_factor: int
    """Batches per worker in preparation now."""
    restarts: int
    """Workers that were replaced because they died."""
    redone_batches: int
    """Batches that were made again because of that."""
    bytes: int
    """Bytes that travelled in slots."""
    skipped: int
    """Samples that were left out because their making raised (on_error="skip"), over all epochs."""
    skipped_indices: tuple[Any, ...]
    """Indices of the last hundred of them; of an iterable dataset, their places in what one worker read."""
    memory_bytes: int
    """What workers and batches took when last looked at; 0 before that."""
    limited_by_memory: str
    """Why fewer batches or workers than planned are under way now, so that throughput may have fallen; empty while all are."""
    fallback: str
    """Why torch's own iterator runs this loader; empty when it does not."""
    held: str
    """Why its worker count is not changed although it is steered; empty when it may be, or when nobody would."""
    plan: Plan | None
    """The plan in force; None before the first `iter()`."""


if TYPE_CHECKING:
    from keepfed.loader.broken import Skip
    from keepfed.loader.journal import Journal

SKIPS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Skips:
    """What was skipped so far. Replaced as a whole: Ctrl-C finds the old or the new one."""

    count: int = 0
    """Samples."""
    last: tuple[Any, ...] = ()
    """Indices of the last of them."""
    counted: tuple[Any, ...] = ()
    """What was counted last, by its identity."""


_NONE_SKIPPED = Skips()


@dataclass(slots=True)
class Tally:
    """The running counts behind LoaderStats; one per loader, shared by its iterators."""

    batches: int = 0
    samples: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    wait_s: float = 0.0
    made_s: float = 0.0
    made: int = 0
    epochs: int = 0
    epoch_began_s: float = 0.0
    epoch_s: float = 0.0
    workers: int = 0
    restarts: int = 0
    redone: int = 0
    bytes: int = 0
    skips: Skips = _NONE_SKIPPED
    edited: int = 0
    told_of_nothing: bool = False
    memory_bytes: int = 0
    limited_by_memory: str = ""
    told_of_memory: bool = False
    told_of_copies: bool = False
    fallback: str = ""
    held: str = ""
    traces: str = ""  # what a fetch left behind in a worker
    plan: Plan | None = None
    journal: Journal | None = None

    def begin_epoch(self, now_s: float) -> None:
        """An epoch begins."""
        self.epochs += 1
        self.epoch_began_s = now_s
        self.first_s = self.first_s or now_s

    def delivered(self, asked_s: float, now_s: float, samples: int) -> None:
        """A batch goes to the program, which asked for it at `asked_s`."""
        self.batches += 1
        self.samples += samples
        self.wait_s += now_s - asked_s
        self.last_s = now_s

    def skip(self, skips: tuple[Skip, ...]) -> bool:
        """These samples were left out. False when this very tuple was counted last: `next()` was interrupted after that."""
        if self.skips.counted is skips:
            return False
        last = (*self.skips.last, *(skip.index for skip in skips))[-SKIPS_KEPT:]
        self.skips = Skips(self.skips.count + len(skips), last, skips)
        return True

    def snapshot(self) -> LoaderStats:
        """The counts as they are now."""
        elapsed_s = max(0.0, self.last_s - self.first_s)
        return LoaderStats(
            batches=self.batches,
            samples=self.samples,
            elapsed_s=elapsed_s,
            wait_s=self.wait_s,
            step_s=max(0.0, elapsed_s - self.wait_s) / max(1, self.batches),
            batch_s=self.made_s / max(1, self.made),
            epochs=self.epochs,
            epoch_s=self.epoch_s,
            workers=self.workers,
            prefetch_factor=self.plan.prefetch_factor if self.plan else 0,
            restarts=self.restarts,
            redone_batches=self.redone,
            bytes=self.bytes,
            skipped=self.skips.count,
            skipped_indices=self.skips.last,
            memory_bytes=self.memory_bytes,
            limited_by_memory=self.limited_by_memory,
            fallback=self.fallback,
            held=self.held,
            plan=self.plan,
        )
