"""Who is told what a loader does, batch by batch: the pilot that steers it, and tests."""

from __future__ import annotations

from typing import Any, Protocol

from keepfed.loader.phases import Parts


class Listener(Protocol):
    """Who wants to know what an iterator does, batch by batch."""

    def epoch_started(self) -> None:
        """The next batch is the first of an epoch."""

    def epoch_ended(self) -> None:
        """The last batch of the epoch was delivered."""

    def made(self, worker_id: int, seconds: float, cpu_s: float, nbytes: int, parts: Parts | None = None) -> None:
        """A worker finished a batch of `nbytes`, in `seconds` of wall and `cpu_s` of CPU time, spent in these `parts`."""

    def waiting(self) -> None:
        """The program begins to wait for a batch."""

    def delivered(self, iterator: Any, asked_s: float, now_s: float) -> None:
        """`next()` was called at `asked_s` and is about to return at `now_s` (both time.perf_counter)."""
