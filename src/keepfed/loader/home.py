"""Batches of a loader with "auto" made in the process that trains: when that may be, and how.

Where samples are cheap, handing a batch over costs more than making it. But a dataset that was written for workers may not
mean the same in the training process, and what it leaves there (an open file) every worker that is forked later inherits.
So dataset code runs in this process only after all of this:

    the program asked for "auto", without worker_init_fn or limits of time per batch       why_not_home
    the same loader was read for two epochs, and the program changed nothing in it         seen, changed_by_program
    workers loaded their first batches and left nothing behind: attribute, file, mapping   traces.py
    iter()     a zygote holds the dataset as it is now; one worker makes the first batches
    next() 1,2 the worker's batch arrives, then this process makes it from the same seed, twice: equal byte for byte, each
               in memory of its own, dataset unchanged, no new file. What the program gets is the worker's batch
    next() …   made here. Now and then the dataset is looked at, before and after

Whatever fails, it is over for good, for this loader's identity: workers are forked from that zygote, in mid-epoch.
"""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from keepfed.loader import torch_seam
from keepfed.loader.aside import Aside
from keepfed.loader.broken import NOTHING, Holes
from keepfed.loader.codec import EMPTY
from keepfed.loader.compare import first_difference, first_in_common
from keepfed.loader.requests import requests_of
from keepfed.loader.stats import Tally
from keepfed.loader.traces import left_behind, open_files
from keepfed.loader.watch import first_change, open_handle, state_of
from keepfed.text import say

CHECKED_BATCHES = 2
"""Batches that a worker and this process both make."""
READ_EPOCHS = 2
"""Epochs that a loader was read for before: one that is built anew for each would need a proof for each."""
LOOKING_SHARE = 0.005
"""Looking at the dataset may take this share of the time."""


def why_not_home(loader: Any) -> str:
    """Why this loader's batches are never made in the training process, in words; empty where they may be."""
    requests = requests_of(loader)
    if not requests.auto:
        return say("loader.home_not_asked")
    if loader.worker_init_fn is not None:
        return say("loader.home_init_fn")
    if loader.timeout > 0 or requests.stall_timeout_s is not None:
        return say("loader.home_timeout")
    if requests.device:
        return say("loader.home_device")
    return ""


@dataclass(frozen=True, slots=True)
class Made:
    """A batch that was made here, in the place of one that a worker sent."""

    batch: Any
    """The batch, or its exception as torch wraps it."""
    seconds: float
    """Wall time that it took."""
    cpu_s: float
    """CPU time that it took."""
    skipped: tuple[Any, ...]
    """Samples that were left out of it."""
    kind: str = "home"
    """How it is encoded: not at all; as EMPTY where no sample is left."""
    slots: tuple[Any, ...] = ()
    """It has none."""


class Home:
    """Makes one loader's batches in this process, and knows whether it may."""

    def __init__(self, loader: Any, tally: Tally) -> None:
        """Look at the dataset as it is before anything of it has run here."""
        self.refused = ""
        """Why not; empty while it may be."""
        self.passed = False
        """Whether it was proven for the workers that there are."""
        self.epochs = 0
        """Epochs begun."""
        self.stale = False
        """Whether workers of the next epoch need the dataset as the program has changed it."""
        self._roots = loader.dataset, loader.collate_fn
        self._tally = tally
        self._fetcher = torch_seam.fetcher_of(loader)
        self._holes = Holes(full_batches=loader.drop_last or getattr(loader._index_sampler, "drop_last", False))
        if requests_of(loader).on_error == "skip":
            self._holes.guard(self._fetcher)
        self._aside = Aside()
        self._compared: set[tuple[int, int]] = set()
        self._seen = state_of(*self._roots)
        self._rest_until_s = 0.0
        self._looking = self._unlooked = False

    def is_of(self, loader: Any, tally: Tally) -> bool:
        """Whether these are its dataset and collate function still (the latter may be assigned anew), and its pilot's tally."""
        return self._roots[0] is loader.dataset and self._roots[1] is loader.collate_fn and self._tally is tally

    @property
    def proving(self) -> bool:
        """Whether it is not known yet."""
        return not (self.passed or self.refused)

    def begin_proof(self) -> None:
        """There is another zygote."""
        self.passed = False
        self._compared.clear()

    def refuse(self, reason: str) -> None:
        """Not here, from now on."""
        self.refused = self.refused or reason
        self.passed = False

    # ---- looking ----------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """The program begins an epoch, and may have changed the dataset since the last look."""
        self.epochs += 1
        self.look(at_once=True)
        if self.stale or self.refused:
            return
        if self._tally.traces:
            self.refuse(say("loader.home_leaves_traces", what=self._tally.traces))
        elif (where := open_handle(*self._roots)) is not None:
            self.refuse(say("loader.home_open_file", what=where))

    def look(self, *, at_once: bool = False) -> None:
        """Refuse when the program has changed the dataset since the last look."""
        began_s = time.perf_counter()
        self._looking = at_once or began_s >= self._rest_until_s
        if not self._looking:
            return
        now = state_of(*self._roots)
        changed, self._seen = first_change(self._seen, now), now
        if changed is not None:
            self.stale = True
            key = "loader.home_changed" if self._unlooked else "loader.home_changed_by_program"
            self.refuse(say(key, what=changed))
        self._unlooked = False
        self._rested(began_s)

    def _rested(self, began_s: float) -> None:
        now_s = time.perf_counter()
        self._rest_until_s = now_s + (now_s - began_s) / LOOKING_SHARE

    def holds_file(self) -> bool:
        """Whether workers that were forked now would share an open file with this process."""
        return open_handle(*self._roots) is not None

    # ---- making -----------------------------------------------------------------------------------------------------

    def make(self, index: Any, seed: int) -> Made:
        """The batch that a worker would make of this."""
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        self._holes.take()
        try:
            self._aside.seed(seed)
            batch = self._fetched(list(index) if type(index) is list else index)  # it may be taken apart there
        except Exception as error:  # whatever the dataset raises: as a worker would send it
            batch = torch_seam.wrap_exception(error, "in the training process")
        finally:
            self._aside.put_back()
        kind = EMPTY.kind if batch is NOTHING else "home"
        times = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        return Made(batch, *times, self._holes.take(), kind)

    def _fetched(self, index: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return self._fetcher.fetch(index)
        with torch.inference_mode(mode=False):  # an evaluation loop's; its workers were not forked inside
            return self._fetcher.fetch(index)

    def make_and_look(self, index: Any, seed: int) -> Made:
        """The same, and now and then a look at what it leaves behind. Not at files: the program's threads open some as well."""
        made = self.make(index, seed)
        if not self._looking:
            self._unlooked = True
            return made
        began_s = time.perf_counter()
        now = state_of(*self._roots)
        what, self._seen = first_change(self._seen, now), now
        if what is not None:
            self.refuse(say("loader.home_leaves_traces", what=what))
        self._looking = self._unlooked = False
        self._rested(began_s)
        return made

    def compare(self, number: tuple[int, int], index: Any, seed: int, batch: Any) -> None:
        """A worker made this batch, of this epoch and number: find out whether it is the same here."""
        if not self.proving or number in self._compared or torch_seam.is_exception(batch):
            return
        try:
            reason = self._against(number[1], index, seed, batch)
        except Exception as error:  # a batch that cannot be compared
            reason = say("loader.home_failed", what=f"{type(error).__name__}: {error}")
        if reason:
            self.refuse(reason)
            return
        self._compared.add(number)
        self.passed = len(self._compared) >= CHECKED_BATCHES

    def _against(self, number: int, index: Any, seed: int, batch: Any) -> str:
        """Why this batch may not be made here; empty where it may."""
        if self._tally.traces:
            return say("loader.home_leaves_traces", what=self._tally.traces)
        self.look(at_once=True)
        if self.refused:
            return self.refused
        files = open_files()
        ours, again = self.make(index, seed), self.make(index, seed)
        what = left_behind(self._seen, files, *self._roots)
        self._seen = state_of(*self._roots)
        if what is not None:
            return say("loader.home_leaves_traces", what=what)
        if torch_seam.is_exception(ours.batch):
            return say("loader.home_failed", what=ours.batch.exc_msg.strip().splitlines()[-1])
        if (where := first_difference(batch, ours.batch)) is not None:
            return say("loader.home_differs", number=number, what=where)
        if (where := first_in_common(ours.batch, again.batch)) is not None:
            return say("loader.home_own_memory", what=where)
        return ""


class Own:
    """What is kept with a loader.

    In its `__dict__`: its collate function may be a method of an object that has the loader, and as the value of a weak
    dictionary it would keep its own key. Copies and pickles of the loader, and forked children, have nothing of it.
    """

    def __init__(self, loader: Any = None) -> None:
        self._loader = weakref.ref(loader) if loader is not None else None
        self._pid = os.getpid()
        self.home: Home | None = None
        self.kept: Any = None
        """Its crew, once batches were made here (`homing.py`)."""

    def __reduce__(self) -> tuple[type[Own], tuple[()]]:
        """Of another loader: nothing yet."""
        return Own, ()

    def is_of(self, loader: Any) -> bool:
        """Whether it is this object's, in this process; a shallow copy brings that of another."""
        return self._loader is not None and self._loader() is loader and self._pid == os.getpid()


def own_of(loader: Any) -> Own:
    """What is kept with this loader."""
    own: Own | None = vars(loader).get("_keepfed_own")
    if own is None or not own.is_of(loader):
        own = Own(loader)
        object.__setattr__(loader, "_keepfed_own", own)
    return own


def home_of(loader: Any, tally: Tally) -> Home:
    """The home of this loader; another one where its dataset or collate function is another."""
    own = own_of(loader)
    if own.home is None or not own.home.is_of(loader, tally):
        own.home = Home(loader, tally)
    return own.home
