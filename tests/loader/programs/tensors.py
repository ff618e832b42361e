"""A dataset of tensors, far larger than /dev/shm. Argument: the start method."""

from __future__ import annotations

import os
import sys

import torch
from torch.utils.data import TensorDataset

import keepfed

if __name__ == "__main__":
    rows = torch.arange(16 << 20, dtype=torch.float32).view(16, 1 << 20)
    dataset = TensorDataset(rows, torch.arange(16))
    loader = keepfed.DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=sys.argv[1])
    count = 0
    for images, labels in loader:
        if not torch.equal(images, rows[labels]):
            sys.exit("a batch is wrong")
        count += 1
    shm = os.statvfs("/dev/shm")
    print(f"{rows.nbytes >> 20} MiB in a /dev/shm of {shm.f_blocks * shm.f_frsize >> 20} MiB: {count} batches")
