"""Part of the fake torch."""

from __future__ import annotations

from torch.utils.data._utils import worker as worker
from torch.utils.data.dataloader import DataLoader as DataLoader
