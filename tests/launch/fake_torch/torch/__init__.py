"""As much of torch as the hook sees, importable in milliseconds. Like torch, it imports its loader while it is half made."""

from __future__ import annotations

import torch.utils.data.dataloader  # noqa: F401  # for its effect: the hook runs now

HALF_MADE_WHEN_THE_LOADER_WAS_IMPORTED = True
__version__ = "0.0-fake"
