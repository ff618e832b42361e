"""Samples that say who made them: the name of the process is part of every batch."""

from __future__ import annotations

import json
import multiprocessing
import sys

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

import keepfed

SAMPLES, BATCH = 48, 4


class Named(Dataset):
    """Pairs for a straight line, each with its maker's name as bytes in a tensor (frameworks move and gather tensors)."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        x = torch.full((3,), index / SAMPLES)
        return {"x": x, "y": x.sum(dim=0, keepdim=True), "maker": ours()}


def ours():
    return torch.tensor(int(multiprocessing.current_process().name.startswith("keepfed-")))


def loader_of(dataset, **arguments):
    """The DataLoader that the command line asks for: `own` (keepfed's class) or `install` (torch's, after install())."""
    door, workers = sys.argv[1:3]
    if door == "install":
        keepfed.install()
        return TorchDataLoader(dataset, batch_size=BATCH, num_workers=int(workers), **arguments)
    count = workers if workers == "auto" else int(workers)
    return keepfed.DataLoader(dataset, batch_size=BATCH, num_workers=count, **arguments)


def report(makers, **more):
    """One line for the test that runs this program."""
    print("REPORT", json.dumps({"batches": len(makers), "ours": all(makers), "theirs": not any(makers), **more}))
