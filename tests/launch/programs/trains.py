"""Builds a loader, iterates it, prints what came out."""

import sys

from torch.utils.data import DataLoader

loader = DataLoader([1, 2, 3], num_workers=1)
print(list(loader), sys.argv[1:])
