"""Event lists as programs write them, for tests of everything that reads them."""

from __future__ import annotations

from keepfed.events import Ended, Event, Joined, LoaderSeen, Moved, Settled, Window
from keepfed.plan import LoaderId, Plan

TRAIN = LoaderId("train.py:41", "__main__.PhotoFolder")
EVAL = LoaderId("train.py:47", "__main__.PhotoFolder")


def joined(rank: int = 0) -> Joined:
    return Joined("/usr/bin/python3", "3.11.7", "2.13.0", rank, rank, cuda=False)


def seen(loader: LoaderId = TRAIN, workers: int = 1, source: str = "program") -> LoaderSeen:
    plan = Plan(workers, 2)
    return LoaderSeen(loader, 8, plan, plan, source, handled=True, reason="")


def left(loader: LoaderId = TRAIN) -> LoaderSeen:
    plan = Plan(2, 2)
    return LoaderSeen(loader, None, plan, plan, "program", handled=False, reason="it is an IterableDataset")


def window(
    workers: int, per_s: float, loader: LoaderId = TRAIN, *, seconds: float = 3.0, stall_s: float | None = None
) -> Window:
    wait_s = seconds * max(0.0, 1 - per_s / 25)
    return Window(loader, Plan(workers, 2), round(per_s * seconds), seconds, wait_s, stall_s, 100_000_000 * workers)


def moved(workers: int, per_s: float, loader: LoaderId = TRAIN, *, kept: bool = True) -> Moved:
    return Moved(loader, Plan(workers, 2), per_s, 1 - per_s / 25, kept, f"{workers} workers tried")


def settled(workers: int = 5, per_s: float = 24.0, loader: LoaderId = TRAIN, *, before: int = 1) -> Settled:
    return Settled(
        loader, Plan(workers, 2), per_s, 0.04, Plan(before, 2), 6.0, 0.76, "step", "The step takes 40 ms.", None, 21.5
    )


def ended(loader: LoaderId = TRAIN) -> Ended:
    return Ended(loader, Plan(1, 2), 4, 1.0, 0.5)


def tuned(loader: LoaderId = TRAIN) -> list[Event]:
    """A whole search: from 1 worker over 4 to 5."""
    return [
        joined(),
        seen(loader),
        window(1, 6.0, loader),
        window(1, 6.0, loader),
        window(4, 21.0, loader),
        moved(4, 21.0, loader),
        window(5, 24.0, loader),
        moved(5, 24.0, loader),
        window(6, 24.0, loader),
        moved(6, 24.0, loader, kept=False),
        settled(loader=loader),
    ]


def half_tuned(loader: LoaderId = TRAIN) -> list[Event]:
    """The same, cut off after the first move."""
    return tuned(loader)[:6]
