"""The Trainer of transformers: it makes torch's DataLoader itself, or takes the program's, and hands it to Accelerate."""

from __future__ import annotations

import sys
import tempfile

import torch
from samples import BATCH, Named, loader_of, report
from transformers import Trainer, TrainingArguments

import keepfed

makers = []


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x, y, maker):
        makers.append(bool(maker.all()))
        return {"loss": torch.nn.functional.mse_loss(self.layer(x), y)}


class WithOurLoader(Trainer):
    def get_train_dataloader(self):
        return self.accelerator.prepare(loader_of(self.train_dataset, shuffle=True))


door, workers = sys.argv[1:3]
if door == "install":
    keepfed.install()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=2,
        per_device_train_batch_size=BATCH,
        dataloader_num_workers=int(workers) if workers != "auto" else 0,
        dataloader_persistent_workers=door == "install",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    kind = WithOurLoader if door == "own" else Trainer
    trainer = kind(model=Line(), args=arguments, train_dataset=Named())
    trainer.train()
report(makers, loader=type(trainer.callback_handler.train_dataloader).__name__)
