"""Stands in for keepfed.loader.armed where KEEPFED_TEST_ARM says how: so that the way to it is tested without a loader."""

from __future__ import annotations

import os
import sys
from types import ModuleType


def arm() -> None:
    """Install a loader that adds 100 to each item, and report it as the real one does."""
    how = os.environ["KEEPFED_TEST_ARM"]
    if how == "fails":
        raise RuntimeError("no such thing\nsecond line")
    if how == "declines":
        return
    import torch
    import torch.utils.data.dataloader as module

    from keepfed.events import Joined, LoaderSeen
    from keepfed.feed import RunFolder
    from keepfed.plan import LoaderId, Plan

    folder = RunFolder.from_environment()
    assert folder is not None
    writer = folder.writer()
    rank = int(os.environ.get("RANK", "0"))
    writer.write(Joined(sys.executable, "3.11", torch.__version__, rank, rank, False))

    def _get_iterator(self: module.DataLoader) -> object:
        asked = Plan(self.num_workers, 2)
        seen = LoaderSeen(
            LoaderId(getattr(self, "_keepfed_site", ""), "list"), 1, asked, Plan(3, 2), "first-guess", True, ""
        )
        writer.write(seen)
        return iter([item + 100 for item in self.dataset])

    module.DataLoader._get_iterator = _get_iterator


if "KEEPFED_TEST_ARM" in os.environ and os.environ["KEEPFED_TEST_ARM"] != "missing":
    sys.modules["keepfed.loader.armed"] = ModuleType("keepfed.loader.armed")
    sys.modules["keepfed.loader.armed"].arm = arm
elif "KEEPFED_TEST_ARM" in os.environ:
    sys.modules["keepfed.loader.armed"] = None
