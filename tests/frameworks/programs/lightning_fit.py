"""Lightning's fit, validate and predict; two DDP ranks and predict build the loaders anew."""

from __future__ import annotations

import sys

import lightning
import torch
from samples import Named, loader_of, report

makers = []


class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, _index):
        makers.append(bool(batch["maker"].all()))
        return torch.nn.functional.mse_loss(self.layer(batch["x"]), batch["y"])

    def validation_step(self, batch, _index):
        makers.append(bool(batch["maker"].all()))

    def predict_step(self, batch, _index):
        makers.append(bool(batch["maker"].all()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


ranks = int(sys.argv[3])
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=ranks,
    strategy="ddp" if ranks > 1 else "auto",
    max_epochs=2,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
train = loader_of(Named(), shuffle=True)
trainer.fit(Line(), train, loader_of(Named()))
kept = trainer.train_dataloader
if ranks == 1:
    trainer.predict(Line(), loader_of(Named()), return_predictions=False)
if trainer.is_global_zero:
    report(makers, loader=type(kept).__name__, rebuilt=kept is not train)
