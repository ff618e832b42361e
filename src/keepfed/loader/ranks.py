"""Ranks of one host agree on one plan: one of them decides, the others read what it decided.

Training in lock step shows every rank the speed of the slowest: two controllers that explore at once would measure each
other. So the first rank of the host (LOCAL_RANK 0) decides for all; its plan for a loader stands in a file of the run
folder, which the others look at after every window. The host's cores are divided among the ranks by `host.ranks`, its
memory here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from keepfed.plan import LoaderId, Plan


class Agreement:
    """How this rank comes to its plans."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the run folder; without one every process decides for itself."""
        self._folder = folder
        rank = os.environ.get("LOCAL_RANK", "")
        self.decides = folder is None or not rank.isdecimal() or int(rank) == 0

    def announce(self, loader: LoaderId, plan: Plan) -> None:
        """The deciding rank puts this plan into force."""
        if self._folder is None or not self.decides:
            return
        path = self._path(loader)
        fresh = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # the others stay with what they have
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump({"num_workers": plan.num_workers, "prefetch_factor": plan.prefetch_factor}, file)
            os.replace(fresh, path)

    def announced(self, loader: LoaderId) -> Plan | None:
        """What the deciding rank has put into force; None where it has said nothing."""
        if self._folder is None:
            return None
        try:
            said = json.loads(self._path(loader).read_text(encoding="utf-8"))
            return Plan(int(said["num_workers"]), int(said["prefetch_factor"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _path(self, loader: LoaderId) -> Path:
        assert self._folder is not None
        name = hashlib.sha256(repr((loader.site, loader.dataset, loader.ordinal)).encode()).hexdigest()[:16]
        return self._folder / f"plan-{name}.json"
