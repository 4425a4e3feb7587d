"""What the nodes of the fault and life tests train: small, quick, and telling what it does.

Besides the run log, each node writes ``<node>.script.jsonl`` into the same directory: ``fits``,
``last round``, ``validating``, ``saving``, ``saved``, ``state`` (digests of model and optimizer at
the end of an epoch) and ``done``.  ``--pause NODE=PLACE`` makes a node stand still there until it
is killed; with ``--seize`` all its threads do.
With ``--holds`` each node tells of every step (``stepped``), and stands still (``holds``) before
backward of the step that stands in the file ``hold.<node>`` beside its log, or of a later one,
until that is gone or names one that is still to come; at -1 before it asks for a seat.
The first step of the node that ``--compiles`` takes long, like that of a model that is compiled.
With ``--disks`` a node that has a ``DISK`` saves there every few steps and goes on from what is
there.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import math
import os
import time
import zlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_chaos.collective import gauging
from lightning_chaos.monitor.runlog import RunLog

# Long enough for a test to kill this node on any machine, and late enough for all to be members.
PAUSE_S = 300.0
PAUSE_EPOCH = 1
COMPILES_S = 2.5
SAVE_EVERY = 5
HOLD_POLL_S = 0.002
NODE = os.environ.get("CHAOS_NODE", f"pid{os.getpid()}")


def digest_of(module: nn.Module | dict[str, torch.Tensor]) -> str:
    """Digest of all parameters and buffers."""
    state = module if isinstance(module, dict) else module.state_dict()
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest()


def moments(optimizer: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What an optimizer's state remembers of every parameter."""
    states = optimizer["state"].items()
    return {f"{name} of {index}": t for index, state in states for name, t in state.items()}


class Net(pl.LightningModule):
    """A perceptron with BatchNorm and dropout, and ballast that only makes the state bigger."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        self.first = True
        self.net = nn.Sequential(
            nn.Linear(8, args.width),
            nn.BatchNorm1d(args.width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(args.width, 2),
        )
        # Different at every node until one pulls another's: equal shards would not be pulled.
        generator = torch.Generator().manual_seed(zlib.crc32(NODE.encode()))
        self.register_buffer("ballast", torch.rand(args.ballast_kb * 256, generator=generator))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step == self.args.fail_at and self.args.fail_node == NODE:
            raise ValueError("a mistake in the user's code")
        if self.first and self.args.compiles == NODE:
            time.sleep(COMPILES_S)
        self.first = False
        time.sleep(self.args.round_ms / 1e3)
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Witness(Callback):
    """Tells the test where this node stands."""

    def __init__(self, args: argparse.Namespace, log: RunLog) -> None:
        self.args = args
        self.story = log
        self.trainer: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.story.write("fits", pid=os.getpid(), digest=digest_of(pl_module))

    def on_load_checkpoint(self, trainer: Any, *_: Any) -> None:
        self.pause("taking over", trainer.global_step)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        self.at("validating")

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.at("last round")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.story.write(
            "state",
            step=trainer.global_step,
            digest=digest_of(pl_module),
            moments=digest_of(moments(trainer.optimizers[0].state_dict())),
        )

    def at(self, place: str, **fields: Any) -> None:
        """Tell, and stand still if this is the place and the node where to."""
        step, epoch = self.trainer.global_step, self.trainer.current_epoch
        self.story.write(place, step=step, **fields)
        if epoch >= PAUSE_EPOCH:
            self.pause(place, step)

    def pause(self, place: str, step: int) -> None:
        if f"{NODE}={place}" not in self.args.pause:
            return
        self.story.write("pauses", place=place, step=step)
        if self.args.seize:
            ctypes.PyDLL(None).sleep(int(PAUSE_S))  # it keeps the interpreter's lock
        else:
            time.sleep(PAUSE_S)


class Holder(Callback):
    """Stands still in the middle of a step as long as the test wants, and tells of every step."""

    def __init__(self, log: RunLog) -> None:
        self.story = log
        self.order = Path(os.environ["CHAOS_LOG"]) / f"hold.{NODE}"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.obey(-1)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        self.obey(trainer.global_step)

    def obey(self, step: int) -> None:
        if step < self.ordered:
            return
        self.story.write("holds", step=step)
        while step >= self.ordered:
            time.sleep(HOLD_POLL_S)

    @property
    def ordered(self) -> float:
        """From which step on it is to stand still, infinity if it is not."""
        try:
            return int(self.order.read_text())
        except FileNotFoundError:
            return math.inf

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.story.write("stepped", step=trainer.global_step)


class TellingIO(TorchCheckpointIO):
    """Writes checkpoints and tells before and after."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self.witness.at("saving", path=str(path))
        super().save_checkpoint(checkpoint, path, storage_options)
        self.witness.at("saved", path=str(path))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=120)
    parser.add_argument("--ballast-kb", type=int, default=0)
    parser.add_argument("--round-ms", type=float, default=8.0)
    parser.add_argument("--max-epochs", type=int, default=100_000)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--checkpoints", default="")
    parser.add_argument("--disks", default="")
    parser.add_argument("--width", type=int, default=16, help="of the hidden layer")
    parser.add_argument("--holds", action="store_true")
    parser.add_argument("--pause", nargs="*", default=[], help="NODE=PLACE")
    parser.add_argument("--seize", action="store_true")
    parser.add_argument("--compiles", default="")
    parser.add_argument("--fail-at", type=int, default=-1)
    parser.add_argument("--fail-node", default="")
    args = parser.parse_args()

    pl.seed_everything(7, verbose=False)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(args.size, 8, generator=generator)
    data = TensorDataset(x, (x.sum(dim=1) > 0).long())
    log = RunLog(Path(os.environ.get("CHAOS_LOG", ".")) / f"{NODE}.script.jsonl", NODE)
    witness = Witness(args, log)
    callbacks: list[Callback] = [witness]
    if args.holds:
        gauging.LINK_S = math.inf  # no trains: the test counts what the links carry
        callbacks.append(Holder(log))
    if args.checkpoints:
        callbacks.append(ModelCheckpoint(args.checkpoints, "{step}", save_top_k=-1))
    disk = os.environ.get("DISK", "")
    if disk:
        folder = Path(args.disks) / disk
        callbacks.append(ModelCheckpoint(folder, save_last=True, every_n_train_steps=SAVE_EVERY))
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        max_epochs=args.max_epochs,
        max_steps=args.max_steps,
        callbacks=callbacks,
        plugins=[TellingIO(witness)],
        logger=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if args.validate else 0.0,
        enable_checkpointing=bool(args.checkpoints or disk),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    validation = DataLoader(TensorDataset(*data[:32]), batch_size=16)
    loader = DataLoader(data, batch_size=8, shuffle=True)
    trainer.fit(Net(args), loader, validation, ckpt_path="last" if disk else None)
    log.write("done", step=trainer.global_step)
    log.close()
    print(f"{NODE} is done after {trainer.global_step} rounds")


if __name__ == "__main__":
    main()
