"""A StatefulDataLoader beside one of ours: it keeps its own iterators and its state; also when Accelerate makes it."""

from __future__ import annotations

import sys

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from samples import BATCH, Named, loader_of, report
from torchdata.stateful_dataloader import StatefulDataLoader

import keepfed

if sys.argv[1] == "install":
    keepfed.install()
    loader = found = StatefulDataLoader(Named(), batch_size=BATCH, num_workers=int(sys.argv[2]))
else:
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True))
    loader = accelerator.prepare(loader_of(Named()))
    found = loader.base_dataloader
makers = []
for batch in loader:
    makers.append(bool(batch["maker"].any()))
    if len(makers) == 2:
        state = loader.state_dict()
        break
loader.load_state_dict(state)
makers += [bool(batch["maker"].any()) for batch in loader]
report(makers, fallback=keepfed.stats(found).fallback)
