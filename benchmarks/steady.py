"""What the nodes of a benchmark train: a small network, each step of 20 ms by a timer.

Two cores cannot compute for several nodes at once without them waiting for each other's
processor; a timer keeps that out of the figures.
"""

from __future__ import annotations

import argparse
import time

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Steady(pl.LightningModule):
    """A perceptron, of 270 000 parameters (1 MB of gradients) if 512 wide, and ballast."""

    def __init__(self, compute_ms: float, ballast_mb: int, width: int) -> None:
        super().__init__()
        self.compute_s = compute_ms / 1e3
        layers = nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        self.net = nn.Sequential(*layers)
        generator = torch.Generator()
        generator.seed()  # different at every node: equal shards would not be pulled
        self.register_buffer("ballast", torch.rand(ballast_mb << 18, generator=generator))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        until = time.perf_counter() + self.compute_s
        loss = self.net(batch[0]).square().mean()
        time.sleep(max(0.0, until - time.perf_counter()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--compute-ms", type=float, default=20.0)
    parser.add_argument("--ballast-mb", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    args = parser.parse_args()
    pl.seed_everything(7, verbose=False)
    data = TensorDataset(torch.randn(4096, 16))
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
    trainer.fit(
        Steady(args.compute_ms, args.ballast_mb, args.width), DataLoader(data, batch_size=8)
    )


if __name__ == "__main__":
    main()
