"""What can be set: a Plan is one complete choice of the knobs of one loader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Plan:
    """One choice of settings for one DataLoader."""

    num_workers: int
    """Worker processes; 0 loads in the training process itself. Range 0-1024."""

    prefetch_factor: int = 2
    """Batches in preparation per worker (torch's default is 2); at least 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.num_workers <= 1024:
            raise ValueError(f"num_workers={self.num_workers}: expected 0 to 1024")
        if not 1 <= self.prefetch_factor <= 1024:
            raise ValueError(f"prefetch_factor={self.prefetch_factor}: expected 1 to 1024")


@dataclass(frozen=True, slots=True, order=True)
class LoaderId:
    """How one DataLoader of a program is recognised from one epoch, or one run, to the next."""

    site: str
    """Where the program builds it, "file:line": the first frame outside torch, frameworks and keepfed."""

    dataset: str
    """Qualified name of the dataset's class."""

    ordinal: int = 0
    """Tells apart loaders of one site and dataset class that are alive at the same time."""

    def __str__(self) -> str:
        name = f"{self.site} {self.dataset.rpartition('.')[2]}"
        return f"{name} #{self.ordinal + 1}" if self.ordinal else name
