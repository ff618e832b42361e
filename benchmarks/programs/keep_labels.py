"""The loop keeps the labels of every batch, as evaluation loops do, and nothing else of it.

The last line says how much memory the process holds more than after its first batches: it should be next to nothing.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

WARM_UP = 20


class Images(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.full((3, 128, 128), float(index % 97)), index


def memory_mb():
    """Resident memory, shared pages included; 0 where /proc is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()

    loader = DataLoader(Images(32 * args.steps), batch_size=32, num_workers=args.num_workers)
    targets, before_mb, start = [], 0.0, time.perf_counter()
    for _ in range(args.epochs):
        for _x, y in loader:
            targets.append(y)
            if len(targets) == WARM_UP:
                before_mb = memory_mb()
    rate = len(targets) / (time.perf_counter() - start)
    expected = torch.arange(32 * args.steps).repeat(args.epochs)
    wrong = int((torch.cat(targets) != expected).sum())
    print(
        f"kept {len(targets)} batches of labels at {rate:.1f} batches/s, {wrong} labels wrong, "
        f"memory +{max(0.0, memory_mb() - before_mb):.0f} MB"
    )


if __name__ == "__main__":
    main()
