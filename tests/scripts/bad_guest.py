"""A node like the others but for one thing, which the variable ``BUT`` names."""

from __future__ import annotations

import os
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        time.sleep(0.003)
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Hoarder(pl.Callback):
    """Its state can be sent at first, and no more once it has seen a batch."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def on_train_batch_end(self, *_: Any) -> None:
        self.kept = [self]


def main(but: str) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    trainer: dict[str, Any] = {"max_epochs": 100_000}
    loader: dict[str, Any] = {"batch_size": 4, "shuffle": True}
    size = 64
    match but:
        case "precision":
            trainer["precision"] = "bf16-mixed"
        case "clipping":
            trainer["gradient_clip_val"] = 1.0
        case "batch":
            loader["batch_size"] = 8
        case "size":
            size = 65
        case "hoards":
            trainer["callbacks"] = [Hoarder()]
    data = TensorDataset(torch.ones(size, 2))
    fit = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    fit.fit(Net(width=5 if but == "model" else 4), DataLoader(data, **loader))


if __name__ == "__main__":
    main(os.environ.get("BUT", ""))
