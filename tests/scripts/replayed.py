"""What the replay test trains: all that makes a member's pass hard to do again.

Chance of every kind (dropout, augmentation by Python's, numpy's and torch's generators),
accumulation, clipping, schedulers (one follows the validation), a frozen table that is the node's
own until it pulls the run's, a learning rate that follows the members, a round's end in uneven
shares, and files that are written.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

SIZE = 103


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Points that look different each time."""

    def __init__(self, noise: float) -> None:
        self.x = torch.randn(SIZE, 8, generator=torch.Generator().manual_seed(1))
        self.noise = noise

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[index]
        chance = random.random() + float(np.random.random()) + torch.rand(())
        return x + self.noise * chance, (x.sum() > 0).long()


class Net(pl.LightningModule):
    """Dropout before and behind BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 16),
            nn.Dropout(0.2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(16, 2),
        )
        node = zlib.crc32(os.environ.get("CHAOS_NODE", "").encode())
        self.register_buffer("table", torch.rand(1 << 17, generator=_generator(node)))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * (1 + 0.1 * torch.rand(())), batch[1]] if self.training else batch

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        time.sleep(0.002)
        self.seen += batch[0].mean()
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def on_chaos_view(self, trainer: Any, view: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["weight_decay"] = 1e-3 * len(view.members)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        cycle = OneCycleLR(optimizer, 2e-2, total_steps=100_000)
        plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return [optimizer], [
            {"scheduler": cycle, "interval": "step"},
            {"scheduler": plateau, "monitor": "val_loss", "interval": "epoch"},
        ]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        max_epochs=100_000,
        logger=CSVLogger("out", name="", flush_logs_every_n_steps=1),
        callbacks=[ModelCheckpoint("checkpoints", "{step}", save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    train = DataLoader(Noisy(0.1), batch_size=4, shuffle=True)
    trainer.fit(Net(), train, DataLoader(Noisy(0.1), batch_size=50))
    print(f"done after {trainer.global_step} rounds")


if __name__ == "__main__":
    main()
