"""A fit with much of what Lightning offers, as JSON on the command line asks; tells what it saw.

Events in ``<node>.script.jsonl``: ``hook`` (on_chaos_view), ``validated``, ``epoch``, ``together``
(results of collectives), ``alone`` (the same before and after), ``done``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from lightning_chaos.monitor.runlog import RunLog

NODE = os.environ["CHAOS_NODE"]
LOGS = Path(os.environ["CHAOS_LOG"])


class Wants:
    """What the command line asks for; see the tests for what each does."""

    def __init__(self, text: str) -> None:
        given = json.loads(text)
        self.trainer: dict[str, Any] = given.get("trainer", {})
        self.size: int = given.get("size", 64)
        self.round_s: float = given.get("round_s", 0.0)
        self.checkpoint: dict[str, Any] | None = given.get("checkpoint")
        self.early: dict[str, Any] | None = given.get("early")
        self.accumulate: dict[str, int] = given.get("accumulate", {})
        self.plateau: bool = given.get("plateau", False)
        self.csv: bool = given.get("csv", False)
        self.ckpt_path: str | None = given.get("ckpt_path")
        self.max_time_s: float | None = given.get("max_time_s")
        self.break_hook: str = given.get("break_hook", "")
        self.spoil_at: int = given.get("spoil_at", -1)


class Net(pl.LightningModule):
    """Logs whatever may be logged, with and without the others."""

    def __init__(self, wants: Wants, story: RunLog) -> None:
        super().__init__()
        self.wants, self.story = wants, story
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def on_chaos_view(self, trainer: Any, view: Any) -> None:
        self.story.write("hook", of="module", members=[m.node for m in view.members])

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        time.sleep(self.wants.round_s)
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val_loss", F.mse_loss(self.net(batch[0]), batch[1]), sync_dist=True)
        self.log("constant", 1.0, sync_dist=True)
        self.log("rank", float(self.global_rank), sync_dist=True, reduce_fx="sum")

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            place = {"step": self.global_step, "epoch": self.current_epoch}
            self.story.write("validated", world=self.trainer.world_size, **place)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        if not self.wants.plateau:
            return optimizer
        scheduler = ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        monitor = {"monitor": "val_loss", "interval": "step", "frequency": 7, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **monitor}}


class Data(pl.LightningDataModule):
    """Two sets, and a state of its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.asked = 0

    def _loader(self, size: int, **how: Any) -> DataLoader[Any]:
        x = torch.randn(size, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x.sum(dim=1, keepdim=True)), batch_size=4, **how)

    def train_dataloader(self) -> DataLoader[Any]:
        self.asked += 1
        return self._loader(self.size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(12)

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.trainer.current_epoch if self.trainer else 0}


class Unsendable:
    """No tensor, no number, no plain container."""


class Witness(Callback):
    """Tells what the strategy's collectives give, and may break things."""

    def __init__(self, wants: Wants, story: RunLog) -> None:
        self.wants, self.story = wants, story
        self.trainer: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        spoilt = 0 <= self.wants.spoil_at <= self.trainer.global_step
        return {"thing": Unsendable()} if spoilt else {"thing": 1}

    def on_chaos_view(self, trainer: Any, module: Any, view: Any) -> None:
        self.story.write("hook", of="callback", members=[m.node for m in view.members])
        if self.wants.break_hook == NODE and len(view.members) > 1:
            raise ValueError("a mistake in the user's hook")

    def _collect(self, trainer: Any, module: Any) -> dict[str, Any]:
        strategy, rank = trainer.strategy, trainer.global_rank
        strategy.barrier("here we are")
        return {
            "gathered": module.all_gather(torch.tensor([rank, 7])).tolist(),
            "trees": module.all_gather({"r": torch.tensor(rank)})["r"].tolist(),
            "first": strategy.broadcast({"node": NODE, "list": [1, (2, 3)]}),
            "last": strategy.broadcast(NODE, src=trainer.world_size - 1),
            "sum": float(strategy.reduce(torch.tensor(rank + 1.0), reduce_op="sum")),
            "mean": float(strategy.reduce(torch.tensor(rank), reduce_op="mean")),
            "all": strategy.reduce_boolean_decision(rank == 0, all=True),
            "any": strategy.reduce_boolean_decision(rank == 0, all=False),
        }

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.story.write("alone", **self._collect(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.story.write("together", **self._collect(trainer, pl_module))
        self.story.write(
            "epoch",
            epoch=trainer.current_epoch,
            round=trainer.strategy.node.round,
            step=trainer.global_step,
            accumulate=trainer.accumulate_grad_batches,
            metrics={k: float(v) for k, v in trainer.callback_metrics.items()},
        )

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.story.write("alone", **self._collect(trainer, pl_module))


def callbacks_for(wants: Wants, story: RunLog) -> list[Callback]:
    """The witness and whatever is asked for."""
    found: list[Callback] = [Witness(wants, story)]
    if wants.checkpoint is not None:
        found.append(ModelCheckpoint(**wants.checkpoint))
    if wants.early is not None:
        found.append(EarlyStopping(**wants.early))
    if wants.accumulate:
        schedule = {int(epoch): factor for epoch, factor in wants.accumulate.items()}
        found.append(GradientAccumulationScheduler(schedule))
    if wants.csv:
        found.append(LearningRateMonitor("step"))
    return found


def main() -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    wants = Wants(sys.argv[1])
    story = RunLog(LOGS / f"{NODE}.script.jsonl", NODE)
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        default_root_dir="out",
        logger=CSVLogger("out", name="", flush_logs_every_n_steps=1) if wants.csv else False,
        log_every_n_steps=1,
        callbacks=callbacks_for(wants, story),
        enable_checkpointing=wants.checkpoint is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_time=timedelta(seconds=wants.max_time_s) if wants.max_time_s else None,
        **wants.trainer,
    )
    data = Data(wants.size)
    trainer.fit(Net(wants, story), datamodule=data, ckpt_path=wants.ckpt_path)
    story.write("done", step=trainer.global_step, epoch=trainer.current_epoch, asked=data.asked)
    story.close()


if __name__ == "__main__":
    main()
