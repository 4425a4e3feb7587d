"""What the drift tests train: sizes that vector kernels cut unevenly, and a bit that flips.

``--flip NODE=ROUND`` changes one weight of that node before it begins that round, as a memory
error would.  The ballast makes the state longer than one segment.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

NODE = os.environ.get("CHAOS_NODE", "")
BALLAST = 1 << 21


class Net(pl.LightningModule):
    """A perceptron with BatchNorm, and a schedule of its learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 33), nn.BatchNorm1d(33), nn.Tanh(), nn.Linear(33, 17), nn.Linear(17, 2)
        )
        self.register_buffer("ballast", torch.zeros(BALLAST))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        time.sleep(0.005)
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Flip(Callback):
    """Flips a bit of a weight at one node, once, between two rounds."""

    def __init__(self, where: str) -> None:
        node, _, at = where.partition("=")
        self.round = int(at) if node == NODE else -1

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.strategy.node.round == self.round - 1:
            module.net[0].weight.view(torch.int32)[0, 0] ^= 1 << 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flip", default="")
    parser.add_argument("--buffers", default="mean")
    args = parser.parse_args()
    pl.seed_everything(7, verbose=False)
    x = torch.randn(240, 8, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(x, (x.sum(dim=1) > 0).long()), batch_size=8, shuffle=True)
    from lightning_chaos import ChaosStrategy

    trainer = pl.Trainer(
        strategy=ChaosStrategy(buffers=args.buffers),
        accelerator="cpu",
        devices=1,
        max_epochs=100_000,
        callbacks=[Flip(args.flip)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), loader)
    print(f"{NODE} is done after {trainer.global_step} rounds")


if __name__ == "__main__":
    main()
