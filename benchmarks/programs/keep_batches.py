"""The loop keeps every batch whole: memory has to grow by what is kept, by little more, and no kept batch may change.

The last line says how much memory was kept, how much the process grew, and how many kept batches are not what they were.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.full((3, 96, 96), float(index)), index


def memory_mb():
    """Resident memory, shared pages included; 0 where /proc is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    before_mb = memory_mb()
    loader = DataLoader(Images(32 * args.steps), batch_size=32, num_workers=args.num_workers)
    kept, start = [], time.perf_counter()
    for _ in range(args.epochs):
        for batch in loader:
            kept.append(batch)
    rate = len(kept) / (time.perf_counter() - start)
    changed = sum(bool((x != y.view(-1, 1, 1, 1)).any()) for x, y in kept)
    kept_mb = sum(x.nbytes + y.nbytes for x, y in kept) / 2**20
    print(
        f"kept {len(kept)} batches, {kept_mb:.0f} MB, at {rate:.1f} batches/s, {changed} of them changed, "
        f"memory +{max(0.0, memory_mb() - before_mb):.0f} MB"
    )


if __name__ == "__main__":
    main()
