"""The loaders of one process that may change their plans, each with its pilot.

There is one fleet per process: of a program below `keepfed run` or `keepfed tune` it steers every loader, otherwise those
that ask for it (`num_workers="auto"`, `keepfed.install(num_workers="auto")`). What it cannot handle runs on torch's own
iterator, and the run folder says why.
"""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any

from keepfed.errors import UsageError
from keepfed.events import LoaderSeen
from keepfed.loader import torch_seam
from keepfed.loader.ceiling import ceiling
from keepfed.loader.fallback import tell_once, why_torch
from keepfed.loader.fixed import adopt_tally, fixed_iterator, left_to_torch
from keepfed.loader.held import why_held
from keepfed.loader.home import why_not_home
from keepfed.loader.homing import HomingIter
from keepfed.loader.identity import identify
from keepfed.loader.pilot import Pilot, iterator_with
from keepfed.loader.readahead import raised_by_sampler
from keepfed.loader.requests import requests_of
from keepfed.loader.session import Session
from keepfed.loader.switches import disabled
from keepfed.loader.zero import ZeroIter
from keepfed.plan import LoaderId, Plan
from keepfed.text import say

logger = logging.getLogger("keepfed")
TORCH_PREFETCH = 2
"""What torch prefetches per worker unless told otherwise; also meant by a loader without workers."""


class Fleet:
    """Pilots by identity of their loaders."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pid = os.getpid()
        self._pilots: dict[LoaderId, Pilot] = {}
        self._told: set[LoaderId] = set()
        self._said_draws = False
        atexit.register(self.ended)

    def iterator(self, loader: Any) -> Any:
        """What `iter(loader)` returns."""
        if type(loader).__hash__ is None:
            return torch_seam.original_get_iterator(loader)  # nothing can be kept by such a key
        if self.foreign:  # a child that the program forked is not the one that trains
            return left_to_torch(loader, say("loader.forked_fleet"))
        if disabled():
            return left_to_torch(loader, say("loader.disabled"))
        asked = _asked(loader)
        name = identify(loader)
        if reason := why_torch(loader):
            self._say_once(name, loader, asked, reason)
            return left_to_torch(loader, reason)
        if self._session.config.exact:
            self._say_once(name, loader, asked, "")
            return fixed_iterator(loader)
        try:
            return self._steered(name, loader, asked)
        except UsageError:  # the user set a switch to something that does not exist
            raise
        except Exception as error:  # whatever is wrong with us must not end somebody's training
            if raised_by_sampler(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            tell_once(loader, reason)
            return left_to_torch(loader, reason)

    def _steered(self, name: LoaderId, loader: Any, asked: Plan) -> Any:
        pilot, held = self._pilots.get(name), why_held(loader)
        if pilot is not None and held and pilot.asked != asked:
            pilot.close()  # what is built at this line has another count now, and that is the program's to choose
            pilot = None
        if pilot is None:
            if requests_of(loader).auto and not held:
                memory = ceiling(self._session.facts, asked, requests_of(loader).memory_limit_bytes).memory_bytes
                asked = self._session.cores.first_guess(asked, memory)
            pilot = self._pilots[name] = Pilot(
                name,
                loader.batch_size,
                asked,
                self._session,
                held=held,
                may_go_home=not (held or why_not_home(loader)),
                memory_limit_bytes=requests_of(loader).memory_limit_bytes,
            )
            if not self._session.reports:  # with a run folder the launcher says it
                self._say_what_changes(loader, asked, held)
        adopt_tally(loader, pilot.tally)
        if asked.num_workers == 0:
            return ZeroIter(loader, pilot)
        if held or (reason := why_not_home(loader)):
            pilot.leave_home(held or reason)
            return iterator_with(pilot, loader)
        return HomingIter(loader, pilot)

    def _say_what_changes(self, loader: Any, asked: Plan, held: str) -> None:
        if held:
            dataset = type(loader.dataset).__name__
            logger.warning(say("loader.held", dataset=dataset, workers=asked.num_workers, reason=held))
        elif not self._said_draws:
            self._said_draws = True
            logger.warning(say("loader.auto"))

    def left_out(self, loader: Any, reason: str) -> bool:
        """This loader makes iterators of its own. Whether somebody reads along who is told so."""
        if self.foreign or not self._session.reports:
            return False
        self._say_once(identify(loader), loader, _asked(loader), reason)
        return True

    def _say_once(self, name: LoaderId, loader: Any, asked: Plan, reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            source, handled = ("program", False) if reason else ("exact", True)
            self._session.emit(
                LoaderSeen(name, getattr(loader, "batch_size", None), asked, asked, source, handled, reason)
            )

    @property
    def foreign(self) -> bool:
        """Whether it came into this process by a fork: its loaders are the parent's."""
        return os.getpid() != self._pid

    def ended(self) -> None:
        """The process ends: the last words of its loaders."""
        if not self.foreign:
            for pilot in self._pilots.values():
                pilot.ended()

    def close(self) -> None:
        """Steer no more. Iterators in use go on with the workers that they have, or with none; new ones are somebody else's."""
        atexit.unregister(self.ended)
        if not self.foreign:
            for pilot in self._pilots.values():
                pilot.close()
        self._pilots.clear()
        self._session.close()


def _asked(loader: Any) -> Plan:
    return Plan(min(1024, int(loader.num_workers)), min(1024, loader.prefetch_factor or TORCH_PREFETCH))
