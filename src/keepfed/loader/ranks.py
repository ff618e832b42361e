"""Ranks of one host agree on one plan: one of them decides, the others read what it decided and say how they wait.

Training in lock step shows every rank the speed of the slowest: two controllers that explore at once would measure each
other. So the first rank of the host (LOCAL_RANK 0) decides for all; its plan for a loader stands in a file of the run
folder, which the others look at after every window.

Lock step also hides who waits. Whichever rank gets its batch last waits in its loader; all others wait for it in the
collective operation, which looks like a long step. So the others leave the share of their time that they waited, and the
deciding rank judges by the one that waits most.

    plan-<loader>.json           the deciding rank's plan
    wait-<loader>-<rank>.json    another rank's last window: the plan it was measured under, wait and stall as shares

The host's cores are divided among the ranks by `host.ranks`, its memory by the pilot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keepfed.plan import LoaderId, Plan
from keepfed.policy.window import Observation

PATIENCE_WINDOWS = 3
"""Windows for which the deciding rank waits for the others' word; a rank without this loader never gives it."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How much of its time a rank waited for data."""

    wait_share: float
    """Share of its time in `next()`, 0 to 1."""
    stall_share: float | None
    """Share in which its GPU idled for that; None off CUDA."""

    @property
    def lost(self) -> float:
        """What counts: the GPU's idling where it is known, else the wait."""
        return self.wait_share if self.stall_share is None else self.stall_share


def waits_of(window: Observation) -> Waits:
    """How this rank waited in a window."""
    stall = None if window.stall_s is None else window.stall_s / window.elapsed_s
    return Waits(min(1.0, window.wait_s / window.elapsed_s), stall)


class Agreement:
    """How this rank comes to its plans."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the run folder; without one every process decides for itself."""
        self._folder = folder
        rank = os.environ.get("LOCAL_RANK", "")
        self._rank = int(rank) if folder is not None and rank.isdecimal() else 0
        self.decides = self._rank == 0
        size = os.environ.get("LOCAL_WORLD_SIZE", "")
        self.others = int(size) - 1 if folder is not None and rank.isdecimal() and size.isdecimal() and int(size) else 0
        """Ranks of this host besides this one."""

    def announce(self, loader: LoaderId, plan: Plan) -> None:
        """The deciding rank puts this plan into force."""
        if self.decides:
            self._write(f"plan-{_key(loader)}.json", _plain(plan))

    def announced(self, loader: LoaderId) -> Plan | None:
        """What the deciding rank has put into force; None where it has said nothing."""
        said = self._read(f"plan-{_key(loader)}.json")
        return _plan(said)

    def report(self, loader: LoaderId, plan: Plan, waits: Waits) -> None:
        """Another rank says how it waited in its last window, which was measured under `plan`."""
        shares = {"wait_share": waits.wait_share, "stall_share": waits.stall_share}
        self._write(f"wait-{_key(loader)}-{self._rank}.json", _plain(plan) | shares)

    def reported(self, loader: LoaderId, plan: Plan) -> list[Waits]:
        """How the other ranks waited under this plan, as far as they have said."""
        found = []
        for rank in range(1, self.others + 1):
            said = self._read(f"wait-{_key(loader)}-{rank}.json")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                stall = said["stall_share"]
                waits = Waits(float(said["wait_share"]), None if stall is None else float(stall))
                if _plan(said) == plan and 0 <= waits.wait_share <= 1:
                    found.append(waits)
        return found

    def exchange(self, loader: LoaderId, window: Observation, unheard: int) -> Observation | None:
        """This window as it is to be judged: by the rank that waited most. `unheard`: windows that were held back before.

        None while the others have not measured its plan yet. A rank that does not decide leaves its word and judges as it is.
        """
        if not self.decides:
            self.report(loader, window.plan, waits_of(window))
        if not self.decides or not self.others:
            return window
        reported = self.reported(loader, window.plan)
        if len(reported) < self.others and unheard < PATIENCE_WINDOWS:
            return None
        most = max([waits_of(window), *reported], key=lambda waits: waits.lost)
        stall_s = None if most.stall_share is None else most.stall_share * window.elapsed_s
        return replace(window, wait_s=most.wait_share * window.elapsed_s, stall_s=stall_s)

    def _write(self, name: str, said: dict[str, Any]) -> None:
        if self._folder is None:
            return
        fresh = self._folder / f"{name}.{os.getpid()}"
        with contextlib.suppress(OSError):  # the others stay with what they have
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(said, file)
            os.replace(fresh, self._folder / name)

    def _read(self, name: str) -> Any:
        if self._folder is None:
            return None
        try:
            return json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None


def _plain(plan: Plan) -> dict[str, Any]:
    return {"num_workers": plan.num_workers, "prefetch_factor": plan.prefetch_factor}


def _plan(said: Any) -> Plan | None:
    try:
        return Plan(int(said["num_workers"]), int(said["prefetch_factor"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _key(loader: LoaderId) -> str:
    return hashlib.sha256(repr((loader.site, loader.dataset, loader.ordinal)).encode()).hexdigest()[:16]
