"""Handwritten digits, trained by as many machines as happen to be there.

    python examples/digits.py        # in one terminal: trains alone, at once
    python examples/digits.py        # in a second one: joins the first

Nothing here knows about other machines but the word "chaos" in the Trainer.
"""

import argparse
import os
import zlib

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    """A small convolutional network for 8 x 8 images.

    Args:
        lr: learning rate of AdamW.
        padding_mb: MiB of a frozen buffer that only makes the training state bigger; its
            random numbers are the node's own until it pulls the run's.
    """

    def __init__(self, lr: float, padding_mb: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * 4 * 4, 10),
        )
        node = os.environ.get("CHAOS_NODE", f"{os.getpid()}")
        generator = torch.Generator().manual_seed(zlib.crc32(node.encode()))
        size = padding_mb * (1 << 18)
        self.register_buffer("padding", torch.rand(size, generator=generator))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        x, y = batch
        hits = (self.net(x).argmax(dim=1) == y).float()
        self.log("test_acc", hits.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), lr=self.lr)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1437 images to train on and 360 to test with, always the same ones."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    return TensorDataset(x[train], y[train]), TensorDataset(x[test], y[test])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train on digits, alone or together.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--max-epochs", type=int, default=100, help="passes, counted for all nodes together")
    add("--max-steps", type=int, default=-1, help="rounds, -1 for no limit")
    add("--batch-size", type=int, default=32, help="samples per node and round")
    add("--lr", type=float, default=3e-3, help="learning rate of AdamW")
    add("--checkpoint-epochs", type=int, default=2, help="epochs between two, 0 for none")
    add("--padding-mb", type=int, default=0, help="MiB of frozen ballast")
    add("--out-dir", default="out", help="where metrics and checkpoints go")
    args = parser.parse_args()

    pl.seed_everything(7)
    train, test = digits()
    checkpoints = args.checkpoint_epochs > 0
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        max_epochs=args.max_epochs,
        max_steps=args.max_steps,
        default_root_dir=args.out_dir,
        logger=CSVLogger(args.out_dir, name="digits", flush_logs_every_n_steps=10),
        callbacks=[ModelCheckpoint(every_n_epochs=args.checkpoint_epochs)] if checkpoints else [],
        enable_checkpointing=checkpoints,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Digits(args.lr, args.padding_mb)
    trainer.fit(model, DataLoader(train, batch_size=args.batch_size, shuffle=True))
    (result,) = trainer.test(model, DataLoader(test, batch_size=360), verbose=False)
    print(f"test accuracy {result['test_acc']:.3f} after {trainer.global_step} rounds")


if __name__ == "__main__":
    main()
