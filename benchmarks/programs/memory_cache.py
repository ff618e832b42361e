"""The dataset keeps every sample it has loaded: with workers each would keep a copy, and lose it after the epoch.

The last line says how many samples the cache holds in the end: all of them, or none when workers had filled copies.
"""

import argparse
import time

import torch
from torch.utils.data import DataLoader, Dataset


class Cached(Dataset):
    def __init__(self, length):
        self.length = length
        self.cache = {}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index not in self.cache:
            time.sleep(0.005)
            self.cache[index] = torch.full((3, 32, 32), float(index))
        return self.cache[index], index


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args()

    dataset = Cached(8 * args.steps)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=args.num_workers)
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        for _batch in loader:
            time.sleep(0.020)
        print(f"epoch {epoch}: {args.steps / (time.perf_counter() - start):.2f} batches/s", flush=True)
    print(f"{len(dataset.cache)} of {len(dataset)} samples are in memory")


if __name__ == "__main__":
    main()
