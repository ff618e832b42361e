"""A training script without `if __name__ == "__main__":`. Argument: the start method."""

from __future__ import annotations

import sys

from torch.utils.data import Dataset

import keepfed

print("the main module runs", flush=True)


class Squares(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index * index


for batch in keepfed.DataLoader(Squares(), num_workers=2, multiprocessing_context=sys.argv[1]):
    print(batch)
