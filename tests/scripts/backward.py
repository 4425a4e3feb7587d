"""Nodes that stand still in the middle of backward, until the others' first buckets are there.

In round ``--at`` the backward of the first of three layers, each a bucket of its own, waits until
a bucket of every other member has come; it tells that as ``gate``.  Then one node may pause (to be
killed) or raise (when the test has made the file ``fail``), and the others wait until the view has
lost it.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_chaos.collective.actions import Landing
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.layout import HEADER
from lightning_chaos.monitor.runlog import RunLog

BOUND_S = 15.0
WIDTH = 1024  # a layer's weights are as many bytes as a bucket has
NODE = os.environ["CHAOS_NODE"]

came: dict[int, set[str]] = defaultdict(set)
"""Whose buckets have come, by round."""
news = threading.Condition()


def wait(condition: Callable[[], bool], what: str) -> None:
    """Stand still until it is so."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.005)


class Watched(Exchange):
    """Tells the training thread what comes."""

    def complete(self, sender: str, frame: Frame, landing: Landing) -> None:
        super().complete(sender, frame, landing)
        if frame.chunk != HEADER:
            with news:
                came[frame.op.round].add(sender)
                news.notify_all()


class Gate(torch.autograd.Function):
    """Passes values and gradients through, and stops backward at a gate."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, module: Net) -> Tensor:
        ctx.module = module
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.module.gate()
        return grad, None


class Net(pl.LightningModule):
    """Three layers; backward reaches the first one last."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        self.story = RunLog(Path(os.environ["CHAOS_LOG"]) / f"{NODE}.script.jsonl", NODE)
        self.first, self.second, self.third = (
            nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)
        )
        self.ready = False
        """The last gradient of this backward is there."""
        self.first.weight.register_hook(lambda _: setattr(self, "ready", True))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.ready = False
        hidden = Gate.apply(self.first(batch[0]), self)
        loss: Tensor = self.third(self.second(hidden).relu()).square().mean()
        return loss

    def gate(self) -> None:
        node = self.trainer.strategy.node
        if node.round != self.args.at or self.trainer.fit_loop._should_accumulate():
            return
        members = node.view.uids
        others = {uid for uid in members if uid != node.uid}
        with news:
            arrived = news.wait_for(lambda: others <= came[node.round], BOUND_S)
        self.story.write("gate", round=node.round, arrived=arrived, before_last=not self.ready)
        if self.args.pause == NODE:
            time.sleep(BOUND_S)
        if self.args.fail == NODE:
            wait(Path(os.environ["CHAOS_LOG"], "fail").exists, "the word to fail")
            if self.args.mistake == "collective":
                self.all_gather(torch.ones(1))
            raise ValueError("a mistake in the user's code")
        if self.args.pause or self.args.fail:
            wait(lambda: node.view.uids != members, "the loss of a member")
        self.story.write("on", round=node.round, view=node.view.epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", type=int, default=3)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--pause", default="")
    parser.add_argument("--fail", default="")
    parser.add_argument("--mistake", choices=["error", "collective"], default="error")
    args = parser.parse_args()

    import lightning_chaos.worker.outfit as outfit

    outfit.Exchange = Watched  # type: ignore[misc]
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    data = TensorDataset(torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1)))
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        max_epochs=100_000,
        accumulate_grad_batches=args.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Net(args)
    trainer.fit(module, DataLoader(data, batch_size=4))
    module.story.close()


if __name__ == "__main__":
    main()
