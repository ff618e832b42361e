"""Reads an epoch of 8 MB batches where something is scarce, and counts those that are what one process makes of them.

python scarce.py keepfed|torch [--descriptors N] [--keep] [--fields N] [--batches N] [--prefetch N] [--method spawn] [--tensor]
"""

import argparse
import resource

import torch
from torch.utils.data import DataLoader, Dataset

import keepfed


class Samples(Dataset):
    def __init__(self, batches, fields, tensor):
        self.length = 4 * batches
        self.fields = fields
        self.added = torch.arange(1_000_000, dtype=torch.float32) if tensor else None

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        drawn = torch.Generator().manual_seed(index)
        added = 0 if self.added is None else self.added[index + 900_000]
        return {f"field {n}": torch.rand(500_000 // self.fields, generator=drawn) + added for n in range(self.fields)}


def same(batch, other):
    return list(batch) == list(other) and all(torch.equal(batch[name], other[name]) for name in batch)


parser = argparse.ArgumentParser()
parser.add_argument("loader", choices=("keepfed", "torch"))
parser.add_argument("--descriptors", type=int, default=0)
parser.add_argument("--keep", action="store_true")
parser.add_argument("--fields", type=int, default=1)
parser.add_argument("--batches", type=int, default=12)
parser.add_argument("--prefetch", type=int, default=2)
parser.add_argument("--method", default="fork")
parser.add_argument("--tensor", action="store_true")


def main():
    args = parser.parse_args()
    dataset = Samples(args.batches, args.fields, args.tensor)
    wanted = DataLoader(dataset, batch_size=4)
    kind = keepfed.DataLoader if args.loader == "keepfed" else DataLoader
    loader = kind(
        dataset,
        batch_size=4,
        num_workers=2,
        prefetch_factor=args.prefetch,
        timeout=30,
        multiprocessing_context=args.method,
    )
    if args.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (args.descriptors, args.descriptors))
    batches = list(loader) if args.keep else loader
    right = sum(same(batch, other) for batch, other in zip(batches, wanted, strict=True))
    print(f"{right} of {len(wanted)} batches are right")


if __name__ == "__main__":
    main()
