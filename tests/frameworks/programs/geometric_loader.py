"""torch_geometric's loaders are subclasses of torch's: one collates graphs, one wraps the base class' iterator."""

from __future__ import annotations

import sys

import torch
from samples import BATCH, ours, report
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

import keepfed

keepfed.install()


class Rings(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        nodes = torch.arange(4)
        edges = torch.stack([nodes, nodes.roll(1)])
        return Data(x=torch.full((4, 2), float(index)), edge_index=edges, maker=ours().reshape(1))


loader = DataLoader(Rings(), batch_size=BATCH, num_workers=int(sys.argv[2]), shuffle=True)
makers, seen = [], set()
for _ in range(2):
    for batch in loader:
        assert batch.edge_index.max() < batch.num_nodes == 4 * batch.num_graphs
        makers.append(bool(batch.maker.all()))
        seen |= set(batch.x[:, 0].int().tolist())
assert seen == set(range(24))
report(makers, counted=keepfed.stats(loader).batches)
