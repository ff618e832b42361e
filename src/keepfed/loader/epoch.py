"""torch's iterator protocol over a crew of workers.

`EpochIter` *is* a `_MultiProcessingDataLoaderIter` for those who look (Lightning shuts it down only if it is one), takes
every draw and warning from `_BaseDataLoaderIter`, and leaves the rest to `Crew`: no queues, no threads, no locks.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

from keepfed.errors import ForkedIterator, LoaderError
from keepfed.loader import torch_seam
from keepfed.loader.broken import wants_full_batches
from keepfed.loader.crew import Crew
from keepfed.loader.fallback import start_method
from keepfed.loader.forks import start_anew_in_children
from keepfed.loader.handle import Worker
from keepfed.loader.listener import Listener
from keepfed.loader.requests import requests_of
from keepfed.loader.shelf import Shelf, shelf_of
from keepfed.loader.stats import Tally
from keepfed.loader.terms import Terms
from keepfed.plan import Plan
from keepfed.policy.governor import Rung
from keepfed.text import say


class NoThread:
    """Stands where torch has the thread that pins: for programs that ask whether it is gone."""

    def is_alive(self) -> bool:
        """There is none."""
        return False

    def join(self, timeout: float | None = None) -> None:
        """There is nothing to wait for."""


class EpochIter(torch_seam.MultiProcessingDataLoaderIter):  # type: ignore[misc]  # private base, typed as Any
    """What `iter(loader)` returns."""

    def __init__(
        self, loader: Any, terms: Terms, tally: Tally, *, shelf: Shelf | None = None, listener: Listener | None = None
    ) -> None:
        """Start the workers and their first tasks. `shelf`: where regions come from and go back to."""
        self._shutdown = False
        self._owner_pid = os.getpid()
        torch_seam.BaseDataLoaderIter.__init__(self, loader)
        self._profile_name = torch_seam.profile_name(torch_seam.MultiProcessingDataLoaderIter)
        self._num_workers, self._prefetch_factor = terms.plan.num_workers, terms.plan.prefetch_factor
        self._in_order = getattr(loader, "in_order", True)
        self._worker_init_fn = torch_seam.worker_init_fn(self, loader.worker_init_fn)
        self._index_queues: list[Any] = []
        self._reader = 0  # the thread that is inside next(); one that Ctrl-C drove out may come again
        pins_for = torch_seam.pins_for(self)
        if pins_for == "cuda":
            self._pin_memory_thread = NoThread()
        requests = requests_of(loader)
        terms = dataclasses.replace(
            terms,
            in_order=self._in_order,
            persistent=self._persistent_workers,
            timeout_s=self._timeout,
            method=start_method(loader),
            pin_memory="cuda" if requests.device else pins_for,
            full_batches=wants_full_batches(self),
            requests=requests,
        )
        shelf = shelf_of(loader) if shelf is None else shelf
        self._again = (terms, tally, shelf, listener)
        if terms.persistent:
            start_anew_in_children(loader)
        self._crew = self._crew_for(loader, terms, tally, shelf, listener)
        self._reset(loader, first_iter=True)

    def _crew_for(self, loader: Any, terms: Terms, tally: Tally, shelf: Shelf, listener: Listener | None) -> Crew:
        del loader
        return Crew(terms, loop_arguments(self, terms), tally, shelf, listener)

    def _begin(self, loader: Any) -> None:
        del loader
        self._crew.begin_epoch(self._sampler_iter, self._shared_seed)

    @property
    def _workers(self) -> list[Worker]:
        return self._crew.roster.members

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch. With persistent workers this comes on the same object, perhaps in mid-epoch."""
        self._own()
        if not (
            first_iter or self._crew.shut_down.alive
        ):  # workers lost, or shut down by a framework: as a new one would
            terms, tally, shelf, listener = self._again
            terms = dataclasses.replace(terms, plan=self._crew.plan)
            EpochIter.__init__(self, loader, terms, tally, shelf=shelf, listener=listener)
            return
        torch_seam.BaseDataLoaderIter._reset(self, loader, first_iter)
        self._crew.tally.begin_epoch(time.perf_counter())
        if self._crew.listener is not None:
            self._crew.listener.epoch_started()
        self._begin(loader)

    def __next__(self) -> Any:
        """The next batch."""
        if torch_seam.profiler_enabled():
            return super().__next__()  # under the label that profiles of torch's loader have
        if self._sampler_iter is None:
            self._reset(None)
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _next_data(self) -> Any:
        self._own()
        thread = threading.get_ident()
        if self._reader not in (0, thread):
            raise LoaderError(say("loader.two_threads"))
        try:
            self._reader = thread
            return self._crew.deliver(time.perf_counter(), self)
        except StopIteration:
            if not self._persistent_workers:
                self._shutdown_workers()
            raise
        finally:
            self._reader = 0

    def _shutdown_workers(self) -> None:
        """End the workers. In a forked child nothing is ended: they are the parent's."""
        if not self._shutdown:
            self._shutdown = True
            self._crew.shut_down()

    def __del__(self) -> None:
        """End the workers when the program drops the iterator."""
        if hasattr(self, "_crew"):
            self._shutdown_workers()

    def change_plan(self, plan: Plan) -> None:
        """Add or retire workers and change the prefetch, in mid-epoch; raises as `Crew.change_plan`."""
        self._own()
        self._crew.change_plan(plan)
        self._num_workers, self._prefetch_factor = plan.num_workers, plan.prefetch_factor

    @property
    def working_crew(self) -> Crew:
        """The workers that make its batches."""
        return self._crew

    def undecided(self) -> bool:
        """Whether it is not known yet if this loader may have workers: it has them."""
        return False

    def refused(self) -> str:
        """Why this loader may have no workers: it may."""
        return ""

    def active_workers(self) -> list[int]:
        """Ids of the workers that take tasks."""
        return self._crew.active_workers()

    def worker_bytes(self) -> float:
        """Private memory of one worker."""
        return self._crew.roster.worker_bytes()

    def transport_bytes(self) -> int:
        """Memory that the batches in preparation and in the program's hands take."""
        return self._crew.roster.transport_bytes()

    def memory_allowed(self) -> Rung | None:
        """What is left of the plan, since memory is short; None while that is all of it."""
        return self._crew.memory.allowed

    def memory_room(self) -> int | None:
        """What workers and batches may take together, at present; None where nothing binds them."""
        return self._crew.memory.room_bytes

    def _own(self) -> None:
        if os.getpid() != self._owner_pid:
            raise ForkedIterator(say("loader.forked_iterator"), next_step=say("loader.forked_iterator_next"))


class StreamIter(EpochIter):
    """What `iter(loader)` returns for an iterable dataset."""

    # torch's own: it warns, with the program's line, when more samples come than `len(loader)` had said.
    __next__ = torch_seam.BaseDataLoaderIter.__next__


def iterator_kind(loader: Any) -> type[EpochIter]:
    """The class of this loader's iterators."""
    return EpochIter if torch_seam.is_map_style(loader) else StreamIter


def loop_arguments(iterator: Any, terms: Terms) -> dict[str, Any]:
    """The arguments of torch's worker loop that all workers of this iterator share."""
    return {
        "dataset_kind": iterator._dataset_kind,
        "dataset": iterator._dataset,
        "auto_collation": iterator._auto_collation,
        "collate_fn": iterator._collate_fn,
        "drop_last": iterator._drop_last,
        "base_seed": iterator._base_seed,
        "init_fn": iterator._worker_init_fn,
        "num_workers": terms.max_workers,
        "persistent_workers": terms.persistent,
        "shared_seed": iterator._shared_seed,
    }
