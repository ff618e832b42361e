"""What the loaders of one process share when they may change their plans: the run folder, the plan file, the host.

Below `keepfed run` or `keepfed tune` the session joins the run folder that the environment names; without one (the program
uses `keepfed.DataLoader(num_workers="auto")` by itself) nothing is written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from keepfed.errors import KeepfedError
from keepfed.events import Event, Joined
from keepfed.feed import RunConfig, RunFolder
from keepfed.host.facts import HostFacts, read_host
from keepfed.host.gpu import skip_gpus
from keepfed.loader import beats
from keepfed.loader.cores import Cores
from keepfed.loader.ranks import Agreement
from keepfed.loader.stall import StallMeter
from keepfed.plan import LoaderId
from keepfed.profile import Match, Profile, plan_for, read_profile
from keepfed.text import choose_language


class Session:
    """One process that trains."""

    def __init__(self, folder: RunFolder | None) -> None:
        """Join `folder`, if there is one: the launcher reads there that this process is armed."""
        self.config = folder.config if folder is not None else RunConfig()
        self.agreement = Agreement(folder.path if folder is not None else None)
        self.facts: HostFacts = read_host(gpus=skip_gpus)
        self.cores = Cores()
        self._writer = folder.writer() if folder is not None else None
        self._profile = self._read_profile()
        self._matched: set[LoaderId] = set()
        if folder is not None:
            choose_language(self.config.lang)
            beats.shared.write_into(folder.path)
            self.emit(_joined())

    @property
    def reports(self) -> bool:
        """Whether there is a run folder, in which a launcher reads along."""
        return self._writer is not None

    def emit(self, event: Event) -> None:
        """Append an event to the run folder, if there is one."""
        if self._writer is not None:
            self._writer.write(event)

    def close(self) -> None:
        """Nothing more will be emitted."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def plan_of(self, loader: LoaderId) -> Match | None:
        """What the plan file says of this loader."""
        if self._profile is None or self.config.mode != "run":
            return None
        match = plan_for(
            self._profile, loader, fingerprint=self.config.fingerprint or self.facts.fingerprint, taken=self._matched
        )
        if match is not None:
            self._matched.add(match.entry.loader)
        return match

    def _read_profile(self) -> Profile | None:
        if self.config.plan_file is None:
            return None
        try:
            return read_profile(Path(self.config.plan_file))
        except (KeepfedError, OSError):
            return None  # the launcher checked it before the program started: whoever spoilt it since must not stop us


def _joined() -> Joined:
    return Joined(
        executable=sys.executable,
        python=".".join(map(str, sys.version_info[:3])),
        torch=str(torch.__version__),
        rank=_number("RANK"),
        local_rank=_number("LOCAL_RANK"),
        cuda=StallMeter.usable(),
    )


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0
