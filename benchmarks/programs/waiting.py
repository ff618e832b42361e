"""Every sample waits 20 ms (a slow disk, a network), every step takes 40 ms, and the code asks for one worker.

One worker brings a batch of 8 every 160 ms; four bring them just as fast as they are used.
"""

import argparse
import time

import torch
from torch.utils.data import DataLoader, Dataset


class Remote(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.020)
        return torch.full((3, 32, 32), float(index)), index


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=25)
    args = parser.parse_args()

    loader = DataLoader(Remote(8 * args.steps), batch_size=8, shuffle=True, num_workers=args.num_workers)
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        for step, _batch in enumerate(loader, 1):
            time.sleep(0.040)
            if step % args.log_every == 0:
                now = time.perf_counter()
                print(f"epoch {epoch} step {step}: {args.log_every / (now - start):.2f} batches/s", flush=True)
                start = now


if __name__ == "__main__":
    main()
