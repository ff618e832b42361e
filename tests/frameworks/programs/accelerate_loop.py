"""A loop over a loader that Accelerate prepared: it is a DataLoaderShard around torch's own DataLoader by then."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from samples import Named, loader_of, report

import keepfed

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader_of(Named(), shuffle=True))
makers = []
for _ in range(2):
    for batch in loader:
        loss = torch.nn.functional.mse_loss(model(batch["x"]), batch["y"])
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        makers.append(bool(batch["maker"].all()))
report(makers, loader=type(loader).__name__, counted=keepfed.stats(loader.base_dataloader).batches)
