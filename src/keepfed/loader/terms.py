"""How one iterator runs: its contract with the program, and what it may use.

*Fixed*: the worker count stays, batches and the parent's random state are torch's own, bit for bit. *Shared*: workers may
be added and retired in mid-epoch; each batch has a random state of its own, from base seed, epoch and number, so that for
code that draws from the global generators the same batches come out whatever the worker count; the sampler is read a fixed
number of batches ahead, chosen at `iter()`.
"""

from __future__ import annotations

from dataclasses import dataclass

from keepfed.loader.requests import NOTHING, Requests
from keepfed.plan import Plan

MAX_PREFETCH = 1024
"""What a Plan can say. torch knows no limit, and neither does the reading ahead of the sampler."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How one iterator runs."""

    plan: Plan
    """Workers and prefetch at the start."""
    fixed: bool
    """Whether the worker count stays for good (torch's contract) or may change (one random state per batch)."""
    max_workers: int
    """How many workers there may be at once; `get_worker_info().num_workers`."""
    lookahead: int
    """Batches for which the sampler is read ahead."""
    in_order: bool = True
    """Whether batches come out in the order of the sampler."""
    persistent: bool = False
    """Whether the workers outlive the epoch."""
    timeout_s: float = 0.0
    """torch's `timeout`: raise when nothing arrives for this long; 0 waits for ever."""
    copy_all: bool = False
    """Whether every batch is copied at delivery (KEEPFED_TRANSPORT=copy)."""
    pin_memory: str = ""
    """The kind of accelerator for whose copies batches lie in pinned memory; empty for none."""
    full_batches: bool = False
    """Whether the program asked for batches of one size (`drop_last`)."""
    requests: Requests = NOTHING
    """What the program asked for beyond torch's arguments."""
    traced: bool = False
    """Whether workers say what their first fetches leave behind in them."""
    verify: bool = False
    """Whether checksums are compared at delivery and at release (KEEPFED_VERIFY=1)."""
    method: str = "fork"
    """How workers are started: fork, spawn or forkserver."""

    @classmethod
    def fixed_count(cls, workers: int, prefetch: int) -> Terms:
        """torch's contract: this many workers, no more, no less. Raises ValueError for numbers that make no sense."""
        plan = Plan(workers, min(prefetch, MAX_PREFETCH))
        return cls(plan, fixed=True, max_workers=workers, lookahead=workers * prefetch)
