"""The loop makes the dataset harder batch by batch: right with no workers only, for a worker has a copy of its own.

The last line says how many batches did not have the difficulty that the loop had set.
"""

import argparse
import time

import torch
from torch.utils.data import DataLoader, Dataset


class Curriculum(Dataset):
    def __init__(self, length):
        self.length = length
        self.difficulty = 0.0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.005)
        return torch.randn(3, 32, 32) * self.difficulty, self.difficulty


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args()

    dataset = Curriculum(8 * args.steps)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=args.num_workers)
    stale = 0
    for epoch in range(args.epochs):
        dataset.difficulty = epoch / args.epochs
        for step, (_images, difficulties) in enumerate(loader, 1):
            time.sleep(0.020)
            stale += bool((difficulties != dataset.difficulty).any())
            dataset.difficulty = (epoch + step / args.steps) / args.epochs
    print(f"{stale} of {args.epochs * args.steps} batches had another difficulty than the loop had set")


if __name__ == "__main__":
    main()
