"""A model whose gradients are 100 MB and cost next to nothing to compute."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUMBERS = 25_000_000


class Net(pl.LightningModule):
    """Its loss pulls every number to the same value."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(NUMBERS))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.numbers.mean() * batch[0].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main() -> None:
    torch.set_num_threads(1)
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
    trainer.fit(Net(), DataLoader(TensorDataset(torch.ones(1000, 1)), batch_size=4))


if __name__ == "__main__":
    main()
