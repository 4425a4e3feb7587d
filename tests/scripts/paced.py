"""What the tests of slow members train: a batch takes its time, sample by sample.

A node is ten times slower while there is a file ``<node>.slow`` in the directory of the run logs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SAMPLE_S = 0.001
BATCH = 12


class Net(pl.LightningModule):
    """A line with BatchNorm, which minds single samples."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        name = f"{os.environ['CHAOS_NODE']}.slow"
        self.slow = Path(os.environ.get("CHAOS_LOG", ""), name)  # a replay has no logs

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        time.sleep(len(batch[0]) * SAMPLE_S * (10 if self.slow.exists() else 1))
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        max_epochs=100_000,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = TensorDataset(x, x.sum(dim=1, keepdim=True).sin())
    trainer.fit(Net(), DataLoader(data, batch_size=BATCH, shuffle=True))


if __name__ == "__main__":
    main()
