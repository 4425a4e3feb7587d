"""Tells how many threads it computes with; ``THREADS`` says what its user has chosen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

chosen = os.environ.get("THREADS", "")
if chosen == "variable":
    os.environ["OMP_NUM_THREADS"] = "2"
else:
    os.environ.pop("OMP_NUM_THREADS", None)

import lightning.pytorch as pl  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from lightning_chaos.monitor.runlog import RunLog  # noqa: E402

DEFAULT = torch.get_num_threads()
if chosen == "call":
    torch.set_num_threads(DEFAULT + 1)


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def on_train_end(self) -> None:
        node = os.environ["CHAOS_NODE"]
        story = RunLog(Path(os.environ["CHAOS_LOG"]) / f"{node}.script.jsonl", node)
        story.write("threads", used=torch.get_num_threads(), default=DEFAULT)
        story.close()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


trainer = pl.Trainer(
    strategy="chaos",
    accelerator="cpu",
    devices=1,
    max_steps=5,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Net(), DataLoader(TensorDataset(torch.ones(80, 2)), batch_size=2))
