"""Trains on data that takes more and more memory, and counts the batches that are right.

python growing.py workers    each worker keeps 0.5 MB for every sample that it has made, up to 240 MB
python growing.py batches    the last batches are 30 times as large as the first, and in the middle the program evaluates
"""

import logging
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

import keepfed


class Hoarding(Dataset):
    """Small samples, and a cache that nobody has thought about."""

    most_kept = 480

    def __init__(self):
        self.kept = []

    def __len__(self):
        return 2_000

    def __getitem__(self, index):
        time.sleep(0.01)
        if len(self.kept) < self.most_kept:
            self.kept.append(bytearray(b"x") * 500_000)
        return torch.tensor([float(index)])


class Growing(Dataset):
    """Samples of 0.1 MB to 3 MB, as in a curriculum of longer and longer sequences."""

    def __len__(self):
        return 1_200

    def __getitem__(self, index):
        return torch.full((25_000 * (1 + index // 40),), float(index))


def main():
    logging.basicConfig(format="%(message)s")
    case = sys.argv[1]
    if case == "workers":
        batch, loader = 4, keepfed.DataLoader(Hoarding(), batch_size=4, num_workers="auto")
    else:
        batch, loader = 8, keepfed.DataLoader(Growing(), batch_size=8, num_workers=2, prefetch_factor=32)
    assert isinstance(loader, DataLoader)
    right, evaluates_after = 0, 80
    for number, samples in enumerate(loader):
        right += samples[:, 0].tolist() == [float(batch * number + at) for at in range(batch)]
        time.sleep(3 if number == evaluates_after else 0.005)
    stats = loader.stats()
    print(stats.limited_by_memory or "not limited", stats.workers)
    print(f"{right} of {len(loader)} batches are right")


if __name__ == "__main__":
    main()
