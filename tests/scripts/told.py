"""A model of one number, whose learning rate every view changes.

Two chunks make a round: the header, which the oldest member gathers, and the number, which the
youngest adds up.  So a member that does not hear the oldest cannot finish a round, the others can.
``<node>.script.jsonl`` beside the run log tells of every ``step``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_chaos.monitor.runlog import RunLog


class Net(pl.LightningModule):
    """A line through the origin."""

    def __init__(self, story: RunLog) -> None:
        super().__init__()
        self.story = story
        self.line = nn.Linear(1, 1, bias=False)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        time.sleep(0.005)
        x = batch[0]
        loss: Tensor = ((self.line(x) - torch.sin(9 * x)) ** 2).mean()
        return loss

    def on_chaos_view(self, trainer: Any, view: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.1 / view.epoch

    def on_train_batch_end(self, *_: Any) -> None:
        self.story.write("step", step=self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main() -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
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
    node, logs = os.environ["CHAOS_NODE"], os.environ.get("CHAOS_LOG")
    story = RunLog(Path(logs) / f"{node}.script.jsonl" if logs else None, node)
    x = torch.rand(101, 1, generator=torch.Generator().manual_seed(1))
    trainer.fit(Net(story), DataLoader(TensorDataset(x), batch_size=4, shuffle=True))
    story.close()


if __name__ == "__main__":
    main()
